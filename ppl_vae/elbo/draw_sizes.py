"""How many numbers one draw for one row adds to the largest tensor of a run, measured.

    numbers of a tensor = a + b particles + c rows + d particles rows        d: a draw's own

A run of P particles for R rows has tensors of every kind: weights (a), the numbers of a draw that
all rows share (b), an encoder's layers (c), a decoder's layers (d). Only those of the last kind
grow with P R. Four small runs, of m or n rows with m or n particles, tell d from the others:

    d = (f(n, n) - f(m, n) - f(n, m) + f(m, m)) / (n - m)^2
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, batch_rows, map_batch
from ppl_vae.elbo.particles import ParticleRuns

FEW, MORE = 2, 3  # m and n; tensors of length 1 may take another way through a pair


class _Sizes(TorchFunctionMode):
    """Context that lists the numbers of every tensor that a function of torch returns.

    Attributes:
        found: Numbers in memory of each tensor, in the order of the calls; those of a view or of an
            expanded tensor are counted once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.found += [_numbers(tensor) for tensor in _tensors(result)]
        return result


def _tensors(result: Any) -> Iterator[Tensor]:
    """Yield the tensors that a function of torch returned: one, or several in a tuple."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for part in result:
            yield from _tensors(part)


def _numbers(tensor: Tensor) -> int:
    """Return how many numbers of a tensor lie in memory."""
    if tensor.layout is not torch.strided:
        return 0
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // max(1, tensor.itemsize))


def numbers_of_a_draw(pair: Pair, rows: Rows) -> int:
    """Return how many numbers each draw for each row adds to the largest tensor of a run.

    It depends on the pair and on the shape of a row, not on the number of rows.

    Args:
        pair: The pair; it is run on a few rows, without an effect outside.
        rows: The data.

    Returns:
        The numbers; 0 where they cannot be told: the pair does not take several particles in one
        run, or its runs differ in more than the sizes of their tensors.
    """
    with quiet_look(pair, rows) as batch:
        try:
            runs = ParticleRuns.of(pair, batch, vectorized=True)
            sizes = {
                (count, particles): _sizes(runs, pair, _repeated(batch, count), particles)
                for count in (FEW, MORE)
                for particles in (FEW, MORE)
            }
        except Exception:  # a network may raise anything when it meets one more dimension
            return 0
    if len({len(found) for found in sizes.values()}) > 1:
        return 0
    both, rows_alone, particles_alone, neither = (
        sizes[MORE, MORE], sizes[MORE, FEW], sizes[FEW, MORE], sizes[FEW, FEW],
    )  # fmt: skip
    own = [
        math.ceil((a - b - c + d) / (MORE - FEW) ** 2)
        for a, b, c, d in zip(both, rows_alone, particles_alone, neither, strict=True)
    ]
    return max([0, *own])


def _repeated(batch: Batch, count: int) -> Batch:
    """Return a batch of a given number of rows, the first ones, repeated where there are fewer."""
    index = torch.arange(count) % batch_rows(batch)
    return map_batch(batch, lambda field: field[index.to(field.device)])


def _sizes(runs: ParticleRuns, pair: Pair, batch: Batch, particles: int) -> list[int]:
    """Return the numbers of every tensor in a run of a pair with its log-weights."""
    sizes = _Sizes()
    with sizes:
        for draw in runs.draws(pair, batch, particles):
            draw.log_weights()
    return sizes.found
