"""Statistics of two columns together: correlation and co-occurrence, from sums over rows.

    S_ij = Σ_r m_ri m_rj x_ri x_rj          sum of products, over rows in which both cells count
    n_ij = Σ_r m_ri m_rj                    number of such rows
    a_ij = Σ_r m_ri m_rj x_ri               sum of column i over the rows that i and j share
    q_ij = Σ_r m_ri m_rj x_ri²              sum of squares, likewise

    co-occurrence of i and j   S_ij / n_ij                         x is 0 or 1
    correlation of i and j     cov_ij / sqrt(var_ij var_ji)
      cov_ij = S_ij / n_ij - a_ij a_ji / n_ij²      var_ij = q_ij / n_ij - a_ij² / n_ij²

with x: (rows, columns) and the mask m: (rows, columns), 1 where a cell is unmasked. Under a mask
the mean and the variance of a column depend on the second column of the pair, because a pair is
measured over the rows in which both of its cells are unmasked (pairwise deletion, as in pandas).

A column is a feature, or one category of a feature. The number of pairs grows with the square of
the number of columns, so that at most 64 columns are paired.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_PAIRED_COLUMNS = 64
RELATIVE_ROUNDING = 1e-10  # a variance below this share of the mean square is rounding error


def paired_columns(columns: int) -> list[int]:
    """Return the positions of the columns of which pairs are made.

    Args:
        columns: Number of columns.

    Returns:
        All positions where there are at most 64 columns, otherwise 64 evenly spaced positions,
        the first and the last column included.

    Example:
        >>> paired_columns(3), len(paired_columns(500)), paired_columns(500)[-1]
        ([0, 1, 2], 64, 499)
    """
    if columns <= MAX_PAIRED_COLUMNS:
        return list(range(columns))
    return torch.linspace(0, columns - 1, MAX_PAIRED_COLUMNS, dtype=torch.double).long().tolist()


def pairs_of(columns: Sequence[int], categories: int = 0) -> list[tuple[int, int]]:
    """Return every pair of columns that belong to two different features.

    Two categories of one feature never occur together in a row, so that they make no pair.

    Args:
        columns: The paired columns, as returned by ``paired_columns``.
        categories: Number of columns of each feature; 0 where a feature is one column.

    Returns:
        Pairs of positions in ``columns``, the smaller position first.

    Example:
        >>> pairs_of([0, 1, 2])
        [(0, 1), (0, 2), (1, 2)]
        >>> pairs_of([0, 1, 2, 3], categories=2)
        [(0, 2), (0, 3), (1, 2), (1, 3)]
    """
    feature = [column // max(categories, 1) for column in columns]
    count = len(columns)
    return [(i, j) for i in range(count) for j in range(i + 1, count) if feature[i] != feature[j]]


class PairSums:
    """Running sums of products of two columns, over the rows in which both cells are unmasked.

    Rows are added part by part, because the products of all rows at once do not fit into the
    processor's cache. Sums are in double precision.

    Args:
        shape: (data sets, rows, columns) of all the values that will be added.
        unmasked: (rows, columns) of bool, the unmasked cells; ``None`` where no cell is masked.
        categories: Number of columns of each feature; 0 where a feature is one column.
        pairs: The pairs of columns; by default the pairs of features of at most 64 columns.
    """

    def __init__(
        self,
        shape: torch.Size,
        unmasked: Tensor | None,
        categories: int = 0,
        pairs: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._columns = paired_columns(shape[2]) if pairs is None else list(range(shape[2]))
        self._all_columns = len(self._columns) == shape[2]
        pairs = pairs_of(self._columns, categories) if pairs is None else pairs
        self._pairs = torch.tensor(pairs, dtype=torch.long)
        zero = torch.zeros(1, 1, 1, dtype=torch.double)  # grows to its size with the first part
        self._products, self._values, self._squares = zero, zero, zero
        self._rows = torch.tensor(float(shape[1]), dtype=torch.double)  # rows shared by a pair
        if unmasked is not None:
            weights = self._chosen(unmasked).double()
            self._rows = weights.T @ weights

    def add_products(self, values: Tensor) -> None:
        """Add the products of some rows.

        Args:
            values: (data sets, some rows, columns), 0 where a cell is masked.
        """
        chosen = self._chosen(values)
        self._products = self._products + torch.bmm(chosen.transpose(1, 2), chosen)

    def add_moments(self, values: Tensor, squares: Tensor, unmasked: Tensor | None) -> None:
        """Add what ``correlation`` needs beside the products: the sums of values and of squares.

        Args:
            values: (data sets, some rows, columns), 0 where a cell is masked.
            squares: The squares of ``values``.
            unmasked: (some rows, columns) of bool; ``None`` where no cell is masked.
        """
        weights = None if unmasked is None else self._chosen(unmasked).to(values.dtype)
        self._values = self._values + self._shared_sum(values, weights)
        self._squares = self._squares + self._shared_sum(squares, weights)

    def co_occurrence(self) -> Tensor:
        """Return the mean product of each pair, (data sets, pairs)."""
        return self._by_pair(self._products / self._rows)

    def correlation(self) -> Tensor:
        """Return Pearson's correlation of each pair, (data sets, pairs); NaN for a constant."""
        mean, mean_square = self._values / self._rows, self._squares / self._rows
        variance = mean_square - mean**2
        variance = torch.where(variance < RELATIVE_ROUNDING * mean_square, 0.0, variance)
        covariance = self._products / self._rows - mean * mean.transpose(1, 2)
        return self._by_pair(covariance / (variance * variance.transpose(1, 2)).sqrt())

    def _chosen(self, values: Tensor) -> Tensor:
        """Return the paired columns, (..., paired columns), of (..., columns)."""
        return values if self._all_columns else values[..., self._columns]

    def _shared_sum(self, values: Tensor, weights: Tensor | None) -> Tensor:
        """Sum column i over the rows that it shares with column j.

        Args:
            values: (data sets, rows, columns).
            weights: (rows, paired columns), 1 where a cell is unmasked; ``None`` is all 1.

        Returns:
            (data sets, paired columns i, paired columns j); without a mask the sum is the same
            for every j and the last dimension has size 1.
        """
        chosen = self._chosen(values)
        if weights is None:
            return chosen.sum(1)[..., None]
        return torch.bmm(chosen.transpose(1, 2), weights.expand(len(chosen), -1, -1))

    def _by_pair(self, matrix: Tensor) -> Tensor:
        """Return the entries of (data sets, paired columns, paired columns), one for each pair."""
        pairs = self._pairs.reshape(-1, 2)
        return matrix[:, pairs[:, 0], pairs[:, 1]]
