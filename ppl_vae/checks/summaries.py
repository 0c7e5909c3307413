"""The arithmetic of the built-in statistics: summaries of the columns of whole data sets.

    x: (data sets, rows, features)  ->  {statistic: (data sets, values)}

Every function takes ``(x, unmasked, categories)``: the values, on the CPU; a mask of shape
(rows, features), ``None`` where no cell is masked; and the number of categories of a categorical
site, otherwise 0. Results are in double precision; a feature without an unmasked cell has NaN.

Two things make the functions fast enough for hundreds of replicates of large data:

- Rows are read in parts of 2^18 numbers, which stay in the processor's cache while all moments are
  computed from them.
- Powers are summed in the dtype of the data, not in doubles. To lose no digits where the values
  have a large offset (1e6 + noise), each value x is first replaced by u = (x - center) / unit, with
  ``center`` the mean rounded to the dtype of the data and ``unit`` the largest distance from it.
  Thus |u| is at most 1, and x - center is exact wherever it matters. Because the center was
  rounded, the mean of u is small but not 0; the central moments are corrected for it in doubles.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ppl_vae.checks.pair_sums import RELATIVE_ROUNDING, PairSums

PART_NUMBERS = 1 << 18  # numbers read in one part: 1 MiB of float32 stays in the cache
QUANTILES = {
    "5 % quantile": 0.05, "25 % quantile": 0.25, "median": 0.5, "75 % quantile": 0.75,
    "95 % quantile": 0.95,
}  # fmt: skip

Values = dict[str, Tensor]


def moments(x: Tensor, unmasked: Tensor | None, categories: int = 0) -> Values:
    """Return all statistics that are made of sums of powers and of products.

    Args:
        x: (data sets, rows, features).
        unmasked: (rows, features) of bool; ``None`` where no cell is masked.
        categories: Not used.

    Returns:
        ``mean``, ``sd`` (divided by rows - 1), ``dispersion index`` (variance / mean), ``zero
        fraction``, ``skewness``, ``kurtosis`` (3 for a normal distribution), each (data sets,
        features), and ``correlation``, (data sets, pairs).

    Example:
        >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
        >>> moments(x, None)["sd"]
        tensor([[1.]], dtype=torch.float64)
    """
    count = _cell_counts(x, unmasked)
    mean, center, unit = mean_and_unit(x, unmasked)
    pair_sums = PairSums(x.shape, unmasked)

    def powers(part: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        u = _masked_as_0((part - center) / unit, mask)
        square = u.square()
        pair_sums.add_products(u)
        pair_sums.add_moments(u, square, mask)
        zeros = _masked_as_0(part == 0, mask)
        return zeros, u, square, square * u, square.square()

    zeros, first, second, third, fourth = (sums / count for sums in _sums(x, unmasked, powers))
    # From moments about the rounded center to moments about the mean, in units of ``unit``.
    central_2 = second - first**2
    central_2 = torch.where(central_2 < RELATIVE_ROUNDING * second, 0.0, central_2)
    central_3 = third - 3 * first * second + 2 * first**3
    central_4 = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    variance = central_2 * unit[:, 0].double() ** 2 * count / (count - 1)
    return {
        "mean": mean,
        "sd": variance.sqrt(),
        "dispersion index": variance / mean,
        "zero fraction": zeros,
        "skewness": central_3 / central_2**1.5,
        "kurtosis": central_4 / central_2**2,
        "correlation": pair_sums.correlation(),
    }


def mean_and_unit(x: Tensor, unmasked: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of each feature, and the center and the unit of sums of its powers.

    Args:
        x: (data sets, rows, features).
        unmasked: (rows, features) of bool; ``None`` where no cell is masked.

    Returns:
        The mean, (data sets, features) in double precision; the mean rounded to the dtype of x, and
        the largest distance of a value from it (1 instead of 0), (data sets, 1, features) each.

    Example:
        >>> [number.item() for number in mean_and_unit(torch.tensor([[[1.0], [5.0]]]), None)]
        [3.0, 3.0, 2.0]
    """
    start = _first_unmasked(x, unmasked)
    (total,) = _sums(x, unmasked, lambda part, mask: (_masked_as_0(part - start, mask),))
    mean = start[:, 0].double() + total / _cell_counts(x, unmasked)
    center = mean.to(x.dtype)[:, None]
    return mean, center, _largest_distance(x, unmasked, center)


def extremes(x: Tensor, unmasked: Tensor | None, categories: int = 0) -> Values:
    """Return the smallest and the largest value of each feature.

    Args:
        x: (data sets, rows, features).
        unmasked: (rows, features) of bool; ``None`` where no cell is masked.
        categories: Not used.

    Returns:
        ``minimum`` and ``maximum``, (data sets, features) each.
    """
    low = x if unmasked is None else x.masked_fill(~unmasked, math.inf)
    high = x if unmasked is None else x.masked_fill(~unmasked, -math.inf)
    found = {"minimum": low.amin(1).double(), "maximum": high.amax(1).double()}
    return {name: _nan_without_cells(values, unmasked) for name, values in found.items()}


def quantiles(x: Tensor, unmasked: Tensor | None, categories: int = 0) -> Values:
    """Return five quantiles of each feature, without interpolation.

    The quantile of share c of n values is the smallest value that at least c n of them do not
    exceed: the value of rank ceil(c n). It is always the value of a cell, so that it is exact for
    counts and at any offset.

    Each column is sorted by numpy. That is simpler than selecting single ranks, and faster too:
    numpy sorts floats with vector instructions (a million in about 20 ms, ``numpy.partition``
    takes 60 ms, ``torch.sort`` 240 ms).

    Args:
        x: (data sets, rows, features).
        unmasked: (rows, features) of bool; ``None`` where no cell is masked. Masked cells are
            sorted behind all others.
        categories: Not used.

    Returns:
        ``5 % quantile``, ``25 % quantile``, ``median``, ``75 % quantile`` and ``95 % quantile``,
        (data sets, features) each.

    Example:
        >>> quantiles(torch.arange(1.0, 101.0)[None, :, None], None)["5 % quantile"]
        tensor([[5.]], dtype=torch.float64)
    """
    count = _cell_counts(x, unmasked).expand(x.shape[2])
    shares = torch.tensor(list(QUANTILES.values()), dtype=torch.double)
    ranks = (shares * count[:, None]).ceil().long().sub(1).clamp(min=0).numpy()
    found = np.empty((len(QUANTILES), *x.shape[::2]))
    for i, data_set in enumerate(x):  # one at a time: a sorted copy of all would be large
        cells = data_set if unmasked is None else data_set.masked_fill(~unmasked, math.inf)
        ordered = np.sort(cells.T.contiguous().numpy(), axis=1)  # (features, rows)
        found[:, i] = np.take_along_axis(ordered, ranks, 1).T
    return {
        name: _nan_without_cells(values, unmasked)
        for name, values in zip(QUANTILES, torch.from_numpy(found), strict=True)
    }


def rates(x: Tensor, unmasked: Tensor | None, categories: int = 0) -> Values:
    """Return how often a value is 1, or each category, and how often two of them come together.

    Args:
        x: (data sets, rows, features), of 0 and 1 or of categories 0, 1, ...
        unmasked: (rows, features) of bool; ``None`` where no cell is masked.
        categories: Number of categories; 0 where values are 0 or 1.

    Returns:
        ``rate``, (data sets, columns), a column for each feature or for each category of each
        feature, the first feature's categories first; and ``co-occurrence``, (data sets, pairs),
        the share of rows in which two columns are both 1.

    Example:
        >>> bits = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
        >>> rates(bits, None)["rate"].tolist(), rates(bits, None)["co-occurrence"].tolist()
        ([[0.5, 1.0]], [[0.5]])
    """
    width = max(categories, 1)  # columns of a feature
    feature = torch.arange(x.shape[2]).repeat_interleave(width)
    category = torch.arange(width).repeat(x.shape[2])
    by_column = None if unmasked is None else unmasked[:, feature]
    pair_sums = PairSums(torch.Size((*x.shape[:2], len(feature))), by_column, categories)

    def indicators(part: Tensor, mask: Tensor | None) -> tuple[Tensor]:
        if categories:
            part = (part[..., feature] == category).to(torch.get_default_dtype())
            mask = None if mask is None else mask[..., feature]
        part = _masked_as_0(part, mask)
        pair_sums.add_products(part)
        return (part,)

    (total,) = _sums(x, unmasked, indicators, width)
    count = _cell_counts(x, by_column)
    return {"rate": total / count, "co-occurrence": pair_sums.co_occurrence()}


# Reading rows part by part


def _sums(
    x: Tensor,
    unmasked: Tensor | None,
    terms: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]],
    width: int = 1,
) -> list[Tensor]:
    """Return the sums over rows of several terms of each cell, (data sets, columns) each.

    Args:
        x: (data sets, rows, features).
        unmasked: (rows, features) of bool; ``None`` where no cell is masked.
        terms: Makes the terms, (data sets, some rows, columns) each, from a part of the rows and
            of the mask; masked cells of the part are 0.
        width: Columns that ``terms`` makes of one feature.
    """
    totals: list[Tensor] = []
    for part, mask in _parts(x, unmasked, width):
        safe = _masked_as_0(part, mask)  # a masked cell may be NaN, which 0 times NaN would keep
        sums = [term.sum(1).double() for term in terms(safe, mask)]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
    return totals


def _parts(
    x: Tensor, unmasked: Tensor | None, width: int = 1
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the rows part by part, with their mask; ``width`` as in ``_sums``."""
    size = max(1, PART_NUMBERS // max(1, len(x) * x.shape[-1] * width))
    for start in range(0, x.shape[1], size):
        rows = slice(start, start + size)
        yield x[:, rows], None if unmasked is None else unmasked[rows]


def _masked_as_0(values: Tensor, unmasked: Tensor | None) -> Tensor:
    """Return the values, (data sets, rows, columns), with 0 in masked cells."""
    return values if unmasked is None else values.masked_fill(~unmasked, 0)


# Single numbers of each feature


def _cell_counts(x: Tensor, unmasked: Tensor | None) -> Tensor:
    """Return the number of unmasked cells of each feature, (features,), or of all features, ()."""
    if unmasked is None:
        return torch.tensor(float(x.shape[1]), dtype=torch.double)
    return unmasked.sum(0).double()


def _first_unmasked(x: Tensor, unmasked: Tensor | None) -> Tensor:
    """Return the first unmasked value of each feature, (data sets, 1, features); 0 without any."""
    if unmasked is None:
        return x[:, :1]
    row = unmasked.int().argmax(0).expand(len(x), 1, -1)
    return x.gather(1, row).masked_fill(~unmasked.any(0), 0.0)


def _largest_distance(x: Tensor, unmasked: Tensor | None, center: Tensor) -> Tensor:
    """Return the largest distance from the center, (data sets, 1, features); 1 instead of 0."""
    far = torch.zeros_like(center)
    for part, mask in _parts(x, unmasked):
        distance = _masked_as_0((part - center).abs(), mask)
        far = torch.maximum(far, distance.amax(1, keepdim=True))
    return torch.where(far > 0, far, 1.0)


def _nan_without_cells(values: Tensor, unmasked: Tensor | None) -> Tensor:
    """Return (data sets, features) with NaN for a feature all of whose cells are masked."""
    return values if unmasked is None else values.masked_fill(~unmasked.any(0), math.nan)
