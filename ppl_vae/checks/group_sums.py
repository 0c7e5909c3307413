"""Means of numbers in the rows of a category, from sums over rows.

    n_cj = Σ_r m_rc m_rj 1[c]     rows of category c in which number j is unmasked
    n_j  = Σ_r m_rc m_rj          all rows in which the feature of c and number j are unmasked

with the mask m, 1 where a cell is unmasked.

    group mean of j in c     (mean_cj - mean_j) / sd_j

with mean_cj over the n_cj rows, and mean_j and sd_j over the n_j rows. So the group mean says how
far the rows of the category lie from all rows, in standard deviations; a number that is wrong by
itself (its mean, its spread) does not change it.

A category with fewer than 10 such rows, or with all such rows but fewer than 10, has NaN: the mean
of so few is as likely to be an odd one in a replicate as in the data.
"""

import torch
from torch import Tensor

from ppl_vae.checks.pair_sums import RELATIVE_ROUNDING
from ppl_vae.checks.step_statistics import RAREST


class GroupSums:
    """Running sums of numbers over the rows of each category. Sums are in double precision.

    Args:
        feature: Position of the feature of each category, (categories,).
    """

    def __init__(self, feature: Tensor) -> None:
        self._feature = feature
        zero = torch.zeros(1, 1, 1, dtype=torch.double)  # grows to its size with the first part
        self._values, self._rows = zero, zero  # of each category
        self._all_values, self._all_squares, self._all_rows = zero, zero, zero  # of each feature

    def add(
        self,
        categories: Tensor,
        numbers: Tensor,
        unmasked: Tensor | None,
        unmasked_numbers: Tensor | None,
    ) -> None:
        """Add some rows.

        Args:
            categories: (data sets, some rows, categories), 1 in a row of the category, else 0; 0
                where the cell of its feature is masked.
            numbers: (data sets, some rows, numbers), near 0, and 0 where a cell is masked.
            unmasked: (some rows, features) of bool, the unmasked cells of the features that have
                the categories; ``None`` where no cell is masked.
            unmasked_numbers: (some rows, numbers) of bool, likewise.
        """
        groups = categories.transpose(1, 2).to(numbers.dtype)
        self._values = self._values + torch.bmm(groups, numbers)
        present = _weights(unmasked_numbers, numbers)
        self._rows = self._rows + groups @ present
        whole = _weights(unmasked, numbers).T
        self._all_values = self._all_values + whole @ numbers
        self._all_squares = self._all_squares + whole @ numbers.square()
        self._all_rows = self._all_rows + whole @ present

    def means(self) -> Tensor:
        """Return the group mean of each category and number, (data sets, categories, numbers)."""
        mean, square = self._all_values / self._all_rows, self._all_squares / self._all_rows
        variance = square - mean.square()
        variance = variance.masked_fill(variance <= RELATIVE_ROUNDING * square, torch.nan)
        mean, sd, all_rows = (
            self._by_category(sums) for sums in (mean, variance.sqrt(), self._all_rows)
        )
        found = (self._values / self._rows - mean) / sd
        rare = (self._rows < RAREST) | (all_rows - self._rows < RAREST)
        return found.masked_fill(rare, torch.nan)

    def _by_category(self, sums: Tensor) -> Tensor:
        """Return sums of each feature, or of all alike, for each category."""
        return sums if sums.shape[1] == 1 else sums[:, self._feature]


def _weights(unmasked: Tensor | None, numbers: Tensor) -> Tensor:
    """Return 1 for unmasked cells and 0 for others, (some rows, columns); one column for no mask.

    Args:
        unmasked: (some rows, columns) of bool; ``None`` where no cell is masked.
        numbers: Has the number of rows and the dtype.
    """
    return numbers.new_ones(numbers.shape[1], 1) if unmasked is None else unmasked.to(numbers.dtype)
