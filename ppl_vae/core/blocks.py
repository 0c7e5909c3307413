"""The one chunked pass over data: fixed blocks, constant memory, a seed for each block.

A block's size depends on shapes alone and its draws on its index alone, so that a result never
depends on memory, on threads or on what else ran.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import child, forked
from ppl_vae.data.rows import Batch, Rows, as_tuple

ELEMENTS = 1 << 20  # numbers of data in a block: 4 MiB of floats
LARGEST = 8192  # rows in a block
FEW = 5  # rows that show which sites a pair has and which shapes they take

T = TypeVar("T")


def check_count(name: str, count: Any) -> None:
    """Refuse what is no whole number of at least 1."""
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {count!r}")


def block_rows(rows: Rows, copies: int = 1) -> int:
    """Rows in one block: fewer for wide rows and for many copies of each, by shapes alone."""
    width = sum(max(1, math.prod(field.array.shape[1:])) for field in rows.fields)
    return max(1, min(LARGEST, ELEMENTS // (width * copies)))


@contextlib.contextmanager
def quiet_look(
    pair: Pair, rows: Rows, count: int = FEW, *, spread: bool = False
) -> Iterator[Batch]:
    """Look at a pair on a few rows, inside ``Pair.quiet_run``; an error names the rows.

    Args:
        pair: The pair.
        rows: The data.
        count: Rows to look at, fewer where the data have fewer.
        spread: Whether they lie evenly over the data; else they are the first ones.

    Yields:
        The rows as a batch, on the pair's device.

    Raises:
        ValueError: Where the pair does not run on them.
    """
    count = min(len(rows), count)
    last = len(rows) - 1 if spread else count - 1
    index = torch.linspace(0, last, count, dtype=torch.float64).long()
    batch = rows.take(index, pair.device())
    with pair.quiet_run(), errors_naming_rows(batch, index):
        yield batch


def blocks(
    pair: Pair,
    rows: Rows,
    work: Callable[[Batch, Tensor], T],
    *,
    seed: int | None,
    progress: str = "",
    copies: int = 1,
) -> Iterator[tuple[Tensor, T]]:
    """Do the work on each block of rows in turn, in evaluation mode and without gradients.

    Args:
        pair: Decides the device; its modules are put in evaluation mode for each block.
        rows: The data.
        work: Called with each batch and its rows' positions, (rows,).
        seed: Seed of the whole pass; ``None`` draws from the global generators.
        progress: Title of a progress bar; none if empty.
        copies: Particles of each row that the work holds at once.

    Yields:
        The rows' positions, (rows,), and what the work returned.
    """
    size = block_rows(rows, copies)
    starts = range(0, len(rows), size)
    device = pair.device()
    bar = tqdm(starts, desc=progress, unit="block", disable=not progress, leave=False)
    for block, start in enumerate(bar):
        index = torch.arange(start, min(start + size, len(rows)))
        batch = rows.take(index, device)
        with (
            pyro_lock(),
            forked(child(seed, block)),
            pair.evaluating(),
            errors_naming_rows(batch, index),
        ):
            result = work(batch, index)
        yield index, result


@contextlib.contextmanager
def errors_naming_rows(batch: Batch, index: Tensor) -> Iterator[None]:
    """Raise ``ValueError`` that says what the rows at ``index`` have to do with an error."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise _explained(error, batch, index) from error


def _explained(error: Exception, batch: Batch, index: Tensor) -> ValueError:
    """What stopped a pass: rows that are not finite, or a pair that does not take the rows."""
    if isinstance(error, ValueError) and "Expected " not in str(error):
        return error
    for field in as_tuple(batch):
        bad = ~field.isfinite().reshape(len(field), -1).all(1)
        if bool(bad.any()):
            first = int(index[bad.cpu()][0])
            return ValueError(
                f"data: expected numbers that the pair takes, got NaN or infinity, first in row "
                f"{first}; impute or drop such rows"
            )
    shapes = [tuple(field.shape) for field in as_tuple(batch)]
    return ValueError(
        f"data: expected rows that the pair takes, got a block of shapes {shapes}: "
        f"{type(error).__name__}: {str(error).splitlines()[0]}"
    )


def collect(
    pair: Pair,
    rows: Rows,
    work: Callable[[Batch, Tensor], dict[str, Tensor]],
    *,
    seed: int | None,
    progress: str = "",
    copies: int = 1,
) -> dict[str, Tensor]:
    """Results of all blocks laid end to end: ``{name: (rows, ...)}`` on the CPU.

    The memory is that of the result and of one block.
    """
    results: dict[str, Tensor] = {}
    for index, part in blocks(pair, rows, work, seed=seed, progress=progress, copies=copies):
        for name, value in part.items():
            if name not in results:
                results[name] = torch.empty((len(rows), *value.shape[1:]), dtype=value.dtype)
            wider = torch.promote_types(results[name].dtype, value.dtype)
            results[name] = results[name].to(wider)
            results[name][index] = value.detach().cpu().to(wider)
    return results


def mean_loss(pair: Pair, rows: Rows, loss: Callable[[Batch], float], *, seed: int | None) -> float:
    """Average over blocks of a loss that estimates the whole data set's, weighed by rows."""
    total = 0.0
    for index, value in blocks(pair, rows, lambda batch, _: loss(batch), seed=seed):
        total += value * len(index) / len(rows)
    return total
