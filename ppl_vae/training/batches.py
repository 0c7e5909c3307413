"""How an epoch's rows are cut into batches, and a last batch of one row under batch normalization.

Batch normalization of (rows, features) divides by the spread of a batch's rows, and one row has
none: torch refuses it. The last batch of an epoch has one row where the number of rows is one more
than a multiple of ``batch_size``. It then joins the batch before it. A pair without such layers
keeps its last batch of one row, and so does one whose layers can do with one (on images, say).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ppl_vae.compat.of_torch import BatchNorm
from ppl_vae.core.pair import Pair


def layer_refusing_one_row(pair: Pair, run_one_row: Callable[[], None]) -> str:
    """Return the layer of batch normalization that refuses a batch of one row.

    Args:
        pair: The pair.
        run_one_row: Runs the pair on one row, without a lasting effect; raises what the pair
            raises.

    Returns:
        The layer's name and class; ``""`` where there is none in training mode, or where one row
        is no fault.
    """
    layers = [
        f'"{".".join(part for part in (top_name, name) if part)}" ({type(module).__name__})'
        for half in (pair.guide, pair.model)
        for top_name, top in half.layers().items()
        for name, module in top.named_modules()
        if isinstance(module, BatchNorm) and module.training
    ]
    if layers:
        try:
            run_one_row()
        except ValueError:
            return layers[0]
    return ""


def cut(order: Tensor, batch_size: int, *, join_last: bool) -> list[Tensor]:
    """Cut an order of the rows, (rows,), into batches; the last two may be joined into one.

    Example:
        >>> [len(batch) for batch in cut(torch.arange(7), 3, join_last=True)]
        [3, 4]
    """
    batches = list(order.split(batch_size))
    if join_last:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def shard_sizes(rows: int, shards: int) -> list[int]:
    """Return the different numbers of rows of a batch's shards, the largest first; none of 0.

    Example:
        >>> shard_sizes(10, 4), shard_sizes(2, 4)
        ([3, 2], [1])
    """
    least, larger = divmod(rows, shards)
    return [size for size in ([least + 1] if larger else []) + [least] if size]


def check_batch_size(rows: int, batch_size: int, layer: str, shards: int = 1) -> None:
    """Raise ``ValueError`` where every batch has shards of one row and a layer refuses that."""
    if layer and shards > 1 and batch_size < 2 * shards:
        raise ValueError(
            f"layer {layer}: expected two rows or more in a shard, whose spread it divides by, got "
            f"batch_size={batch_size} and shards={shards}; pass batch_size={2 * shards} or more, "
            "or use nn.LayerNorm"
        )
    if layer and 1 in (rows, batch_size):
        got = f"batch_size={batch_size}" if rows > 1 else "data of one row"
        raise ValueError(
            f"layer {layer}: expected two rows or more in a batch, whose spread it divides by, got "
            f"{got}; pass {'batch_size=2 or more' if rows > 1 else 'more rows'}, or use "
            "nn.LayerNorm"
        )
