"""Statistics of sequences: what one step says of a later one.

    autocorrelation, lag k    correlation of x_t and x_(t+k)
    0 to 1                    share of the steps at 0 that 1 follows
    1 to 0                    share of the steps at 1 that 0 follows
    run length                mean number of steps one after the other that are 1, or, of numbers,
                              above the mean of all steps

A pair of steps counts where both are inside one sequence and unmasked. A category is a column of 0
and 1. A column in which fewer than 10 steps are 0, or fewer than 10 are 1, has NaN: a share of so
few is as likely to be an odd one in a replicate as in the data.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ppl_vae.checks.pair_sums import RELATIVE_ROUNDING

LAGS = (1, 2, 4)
RAREST = 10  # steps at 0, and steps at 1

AUTOCORRELATIONS = tuple(f"autocorrelation, lag {lag}" for lag in LAGS)
TRANSITIONS = ("0 to 1", "1 to 0")
RUNS = ("run length",)


def names_of(kind: str) -> tuple[str, ...]:
    """Return the names of the statistics of a kind of values (``checks.statistics``)."""
    between = TRANSITIONS if kind in ("binary", "categories") else ()
    return (*AUTOCORRELATIONS, *between, *RUNS)


def step_statistics(
    x: Tensor, unmasked: Tensor, kind: str, categories: int = 0, wanted: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Return the statistics of several data sets of sequences.

    Args:
        x: (data sets, rows, steps, features), floats on the CPU.
        unmasked: (rows, steps, features) or (rows, steps, 1) of bool: the cells that count.
        kind: The kind of values.
        categories: Number of categories of a categorical site, otherwise 0.
        wanted: Names of statistics; all of them by default.

    Returns:
        ``{statistic: (data sets, columns)}`` in double precision: a column for each feature, or for
        each category of each feature. A lag that is longer than all sequences is left out.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 7, 1)
        >>> found = step_statistics(x, torch.ones(1, 7, 1).bool(), "real")
        >>> {name: values.item() for name, values in found.items()}["autocorrelation, lag 4"]
        1.0
    """
    names = [name for name in names_of(kind) if wanted is None or name in wanted]
    if not names:
        return {}
    ends = unmasked.any(-1).flip(1).cummax(1).values.flip(1)  # no cell counts after these steps
    row, step = ends.nonzero(as_tuple=True)
    mask = unmasked[row, step]  # (lines, features), sequence after sequence
    mask = mask.repeat_interleave(categories, -1) if categories and mask.shape[1] > 1 else mask
    same = {lag: (row[:-lag] == row[lag:])[:, None] for lag in LAGS if lag < x.shape[2]}
    pairs = {lag: mask[:-lag] & mask[lag:] & marks for lag, marks in same.items()}
    parts = [
        _of_data_set(_columns(data_set[row, step], categories), mask, pairs, kind in _OF_BITS)
        for data_set in x  # one at a time: its products would be large for all
    ]
    return {name: torch.stack([p[name] for p in parts]) for name in names if name in parts[0]}


_OF_BITS = ("binary", "categories")


def _columns(x: Tensor, categories: int) -> Tensor:
    """Return lines, (lines, features), with a column of 0 and 1 for each category."""
    if not categories:
        return x
    return (x[..., None] == torch.arange(categories)).to(x.dtype).flatten(-2)


def _of_data_set(
    x: Tensor, mask: Tensor, pairs: dict[int, Tensor], is_bits: bool
) -> dict[str, Tensor]:
    """Return all statistics of one data set, (columns,) each.

    Args:
        x: (lines, columns), the steps of all sequences.
        mask: Which cells count, like x or (lines, 1).
        pairs: Which cells count together with the one ``lag`` lines later, (lines - lag, columns or
            1), by lag.
        is_bits: Whether values are 0 or 1.
    """
    x = torch.where(mask, x, 0)
    cells = _count(mask)
    mean = x.sum(0).double() / cells
    high = (x > (0.5 if is_bits else mean.to(x.dtype))) & mask
    centered = torch.where(mask, x - mean.to(x.dtype), 0)
    found = {
        f"autocorrelation, lag {lag}": _correlation(centered[:-lag], centered[lag:], marks)
        for lag, marks in pairs.items()
    }
    ones = _count(high)
    stayed = torch.zeros_like(ones)
    if 1 in pairs:
        before, after = high[:-1], high[1:]
        stayed = _count(before & after & pairs[1])
        from_1, to_1 = _count(before & pairs[1]), _count(after & pairs[1])
        found["0 to 1"] = (to_1 - stayed) / (_count(pairs[1]) - from_1)
        found["1 to 0"] = 1 - stayed / from_1
    found["run length"] = ones / (ones - stayed)
    rare = (ones < RAREST) | (cells - ones < RAREST) if is_bits else torch.zeros_like(ones).bool()
    return {name: value.masked_fill(rare, torch.nan) for name, value in found.items()}


def _count(marks: Tensor) -> Tensor:
    """Return how many marks, (lines, columns) of bool, there are in each column."""
    return marks.float().sum(0).double()  # faster than a sum of integers


def _correlation(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    """Return the correlation of two tensors over the pairs that count, (columns,); NaN if constant.

    Args:
        first: (lines, columns), with a mean near 0.
        second: Like ``first``.
        pairs: Like ``first`` or (lines, 1), of bool.
    """
    count, weights = _count(pairs), pairs.to(first.dtype)
    first, second = first * weights, second * weights

    def mean(values: Tensor) -> Tensor:
        return values.sum(0).double() / count

    means = mean(first), mean(second)
    squares = mean(first.square()), mean(second.square())
    spreads = [square - m.square() for square, m in zip(squares, means, strict=True)]
    spreads = [
        torch.where(spread <= RELATIVE_ROUNDING * square, torch.nan, spread)
        for spread, square in zip(spreads, squares, strict=True)
    ]
    return (mean(first * second) - means[0] * means[1]) / (spreads[0] * spreads[1]).sqrt()
