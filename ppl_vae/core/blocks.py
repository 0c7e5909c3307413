"""The one pass over data in blocks of rows: fixed block sizes, constant memory, a seed per block.

A block's size depends on the shapes of the data alone, and its random draws on the block's index
alone. A result therefore does not depend on memory, on threads or on what else ran.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.bars import NO_BAR, Bar
from ppl_vae.core.failed_calls import find_cause
from ppl_vae.core.failed_runs import FailedRun, error_text, raised_again, raised_in
from ppl_vae.core.failed_sums import cause_in_sums
from ppl_vae.core.far_rows import overflowing_rows, without_rows
from ppl_vae.core.observed_values import refuse_outside, refuse_swapped, row_shape_cause
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import child, forked
from ppl_vae.core.shared_rows import exchange_rows
from ppl_vae.core.world import World, alone, world
from ppl_vae.data.cells import place_not_finite
from ppl_vae.data.rows import Batch, Rows, as_tuple, evenly_spaced

ELEMENTS = 1 << 20  # most numbers of data in a block: 4 MiB of floats
LARGEST = 8192  # most rows in a block
PROBE_ROWS = 5  # rows that suffice to see which sites a pair has and which shapes they take

T = TypeVar("T")
Key = TypeVar("Key")


def block_rows(rows: Rows, copies: int = 1) -> int:
    """Return the number of rows in a block, which depends on shapes alone.

    Args:
        rows: The data; wider rows make smaller blocks.
        copies: Particles of each row that are held at once; more of them make smaller blocks.

    Returns:
        A number from 1 to ``LARGEST``.
    """
    width = sum(max(1, math.prod(field.array.shape[1:])) for field in rows.fields)
    return max(1, min(LARGEST, ELEMENTS // (width * copies)))


@contextlib.contextmanager
def quiet_look(
    pair: Pair, rows: Rows, count: int = PROBE_ROWS, *, spread: bool = False
) -> Iterator[Batch]:
    """Make a context for running a pair on a few rows, without an effect outside.

    The context is ``Pair.quiet_run``; errors inside say which rows they have to do with. Copies of
    a sound row stand in the places of rows on which the pair overflows (``core.far_rows``).

    Args:
        pair: The pair.
        rows: The data.
        count: Number of rows at most: no more than the data have, nor, beyond ``PROBE_ROWS``, than
            a block of them has.
        spread: Whether to take rows spread evenly over the data instead of the first rows.

    Yields:
        The rows as a batch, on the pair's device.

    Raises:
        ValueError: If the pair does not run on the rows, or its model and guide are swapped.
    """
    count = min(len(rows), count, max(PROBE_ROWS, block_rows(rows)))
    last = len(rows) - 1 if spread else count - 1
    index = evenly_spaced(last + 1, count)
    batch = rows.take(index, pair.device())
    looks = pair.looks.setdefault(rows, {})
    if (count, last) not in looks:
        with pair.quiet_run():  # one context, so that what the stores tell comes in one warning
            if not looks:
                refuse_swapped(pair, batch)
            looks[count, last] = overflowing_rows(pair, batch).cpu()
    far = looks[count, last]
    if bool(far.any()):
        batch = without_rows(pair, rows, batch, far) or batch
    with pair.quiet_run(), errors_naming_rows(pair, batch, index, rows):
        yield batch


def blocks(
    pair: Pair,
    rows: Rows,
    work: Callable[[Batch, Tensor], T],
    *,
    seed: int | None,
    bar: Bar = NO_BAR,
    copies: int = 1,
    size: int | None = None,
    judge: bool = True,
    first_block: int = 0,
    team: World | None = None,
) -> Iterator[tuple[Tensor, T]]:
    """Call ``work`` on each block of rows in turn, in evaluation mode and without gradients.

    Block number b draws its random numbers from ``child(seed, b)``.

    Args:
        pair: The pair; its parameters' device decides where the blocks go.
        rows: The data.
        work: Called with each block as a batch and the positions of its rows, (rows,).
        seed: Seed of the whole pass; ``None`` draws from the global generators.
        bar: The progress bar, which counts blocks.
        copies: Particles of each row that ``work`` holds at once.
        size: Rows in a block; ``block_rows`` by default.
        judge: Whether to refuse observed values outside their likelihood's support. Rows of which
            only the form is read, and not what they observe, are not judged.
        first_block: Number of the first block, where the rows are a part of the data.
        team: Processes that share the blocks; this one gets every ``team.size``-th block, from its
            rank on. ``None`` for all blocks.

    Yields:
        The positions of the block's rows, (rows,), and what ``work`` returned.

    Raises:
        ValueError: If the pair does not run on a block, or an observed value is outside its
            likelihood's support.
    """
    size = size or block_rows(rows, copies)
    team = World() if team is None else team
    numbered = list(enumerate(range(0, len(rows), size), first_block))[team.rank :: team.size]
    device = pair.device()
    for block, start in bar.only(team.first).over(numbered, unit="block"):
        index = torch.arange(start, min(start + size, len(rows)))
        batch = rows.take(index, device)
        if judge:
            refuse_outside(pair, batch, index, rows)
        with (
            pyro_lock(),
            forked(child(seed, block)),
            pair.evaluating(),
            errors_naming_rows(pair, batch, index, rows),
        ):
            result = work(batch, index)
        yield index, result


@contextlib.contextmanager
def errors_naming_rows(pair: Pair, batch: Batch, index: Tensor, rows: Rows) -> Iterator[None]:
    """Make a context that turns an error of torch or Pyro into one that speaks of the data.

    Args:
        pair: The pair that the code inside runs.
        batch: The rows that the code inside works on.
        index: Their positions in the data, (rows,).
        rows: The data, whose columns have names.

    Yields:
        Nothing.

    Raises:
        ValueError: If the code inside fails. The message names the first row with NaN or infinity;
            where all numbers are finite, what ``find_cause`` finds at fault; where that is
            nothing, the shapes of the rows and the original error. A ``ValueError`` that was raised
            outside torch and Pyro, by this library or by the user's own code, says what is wrong
            and passes unchanged, without the table of shapes that Pyro adds, and so does a failed
            ``assert`` of this library.
    """
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        if isinstance(error, ValueError) and not raised_in(error, "torch", "pyro"):
            if not raised_again(error):
                raise
            cause = row_shape_cause(pair, batch)
            raise ValueError(str(error.__cause__ if cause is None else cause)) from error
        if isinstance(error, AssertionError) and raised_in(error, "ppl_vae"):
            raise
        positions = rows.places(index)
        raise _error_about_rows(error, pair, batch, positions, rows) from error


def _error_about_rows(
    error: Exception, pair: Pair, batch: Batch, index: Tensor, rows: Rows
) -> ValueError:
    """Return the error that names the first cell that is not finite, the cause, or the shapes."""
    for described, field in zip(rows.fields, as_tuple(batch), strict=True):
        bad = ~field.isfinite().reshape(len(field), -1).all(1)
        if bool(bad.any()):
            first = int(index[bad.cpu()][0])
            return ValueError(
                f"{described.name}: expected finite numbers, got NaN or infinity, first in row "
                f"{first}{place_not_finite(field, described.labels)}; impute or drop these rows"
            )

    def run() -> None:
        draws = poutine.trace(pair.guide).get_trace(batch)
        poutine.replay(pair.model, trace=draws)(batch)

    labels = [field.labels for field in rows.fields]
    failed = FailedRun(error, batch, index, "pair", pair.plate, pair.parameters(), run, labels)
    cause = row_shape_cause(pair, batch) or find_cause(failed)
    if cause is not None:
        return ValueError(str(cause))
    own = _refused_by_a_half(pair, batch)
    if own is not None:
        return own
    cause = cause_in_sums(pair, batch, index)
    if cause is not None:
        return ValueError(str(cause))
    shapes = [tuple(field.shape) for field in as_tuple(batch)]
    return ValueError(
        f"{rows.name}: expected rows that the pair takes, got a block of shapes {shapes}: "
        f"{error_text(error)}; lint(model, guide, data) says which site fails"
    )


def _refused_by_a_half(pair: Pair, batch: Batch) -> ValueError | None:
    """Return what the guide, or the model, says by itself of rows that it refuses, if it does."""
    for half in (pair.guide, pair.model):
        try:
            with pair.quiet_run():
                half(batch)
        except ValueError as error:
            if not raised_in(error, "torch", "pyro"):
                return ValueError(str(error.__cause__ if raised_again(error) else error))
        except Exception:  # torch's or Pyro's words, which the caller tells with the shapes
            continue
    return None


def collect(
    pair: Pair,
    rows: Rows,
    work: Callable[[Batch, Tensor], dict[Key, Tensor]],
    *,
    seed: int | None,
    bar: Bar = NO_BAR,
    copies: int = 1,
    size: int | None = None,
    judge: bool = True,
    first_block: int = 0,
    shared: Tensor | None = None,
) -> dict[Key, Tensor]:
    """Call ``work`` on all blocks and return its results for all rows, block after block.

    The memory used is that of the result and of one block, and twice the result where several
    processes share the blocks.

    Args:
        pair: The pair.
        rows: The data.
        work: Returns ``{name: (rows of the block, ...)}``.
        seed: Seed of the whole pass; ``None`` draws from the global generators.
        bar: The progress bar, which counts blocks.
        copies: Particles of each row that ``work`` holds at once.
        size: Rows in a block; ``block_rows`` by default.
        judge: As in ``blocks``.
        first_block: As in ``blocks``.
        shared: Marks of the rows, (N,) of bool, all that ``work`` leaves behind beside its results;
            where it is given, several processes share the blocks, and each has the results and
            the marks of all rows afterwards.

    Returns:
        ``{name: (rows, ...)}`` on the CPU, in the widest dtype that a block returned.
    """
    options: dict[str, Any] = {
        "bar": bar, "copies": copies, "size": size or block_rows(rows, copies),
        "judge": judge, "first_block": first_block,
    }  # fmt: skip
    team = World() if shared is None else world()
    count = math.ceil(len(rows) / options["size"])
    seed = team.seed(seed, "a pass over the rows")
    if team.size == 1 or count == 1:
        return _collected(pair, rows, work, seed, World(), options)
    assert shared is not None
    with team.together("a pass over the rows"):
        with alone():
            own = team if team.rank < count else World(0, count)  # without a block of its own
            results = _collected(pair, rows, work, seed, own, options)
        firsts = range(0, len(rows), options["size"])
        places = [torch.arange(f, min(f + options["size"], len(rows))) for f in firsts]
        results = exchange_rows(team, results, places)
        shared |= team.gather(shared, "marks of the rows").any(0)
    return results


def _collected(
    pair: Pair,
    rows: Rows,
    work: Callable[[Batch, Tensor], dict[Key, Tensor]],
    seed: int | None,
    team: World,
    options: dict[str, Any],
) -> dict[Key, Tensor]:
    """Return the results of a process's own blocks in tensors for all rows."""
    results: dict[Key, Tensor] = {}
    for index, part in blocks(pair, rows, work, seed=seed, team=team, **options):
        for name, value in part.items():
            if name not in results:
                results[name] = torch.empty((len(rows), *value.shape[1:]), dtype=value.dtype)
            wider = torch.promote_types(results[name].dtype, value.dtype)
            results[name] = results[name].to(wider)
            results[name][index] = value.detach().cpu().to(wider)
    return results


def refuse_rows_outside(pair: Pair, rows: Rows) -> None:
    """Raise if an observed value of any row is outside its likelihood's support.

    Args:
        pair: The pair.
        rows: The data.

    Raises:
        ValueError: With the site, the support, the value, its row, its column and what to do.
    """
    for _ in blocks(pair, rows, lambda *_: None, seed=0):
        pass


def mean_loss(pair: Pair, rows: Rows, loss: Callable[[Batch], float], *, seed: int | None) -> float:
    """Return the average of a loss over all blocks, weighted by their numbers of rows.

    Args:
        pair: The pair.
        rows: The data.
        loss: Returns, for a block, an estimate of the loss of the whole data set.
        seed: Seed of the whole pass; ``None`` draws from the global generators.

    Returns:
        An estimate of the loss of the whole data set, in the units of ``loss``.
    """
    team, size = world(), block_rows(rows)
    seed = team.seed(seed, "the mean over blocks")
    count = math.ceil(len(rows) / size)
    team = World() if count == 1 else team
    own = torch.zeros(math.ceil(count / team.size), dtype=torch.float64)
    with team.together("the mean over blocks"):
        with alone():
            parts = blocks(pair, rows, lambda batch, _: loss(batch), seed=seed, team=team)
            for place, (index, value) in enumerate(parts):
                own[place] = value * len(index) / len(rows)
        values = team.gather(own, "the mean over blocks").T.flatten()[:count]
    return float(sum(values.tolist()))
