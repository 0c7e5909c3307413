"""How the values of a site lie in columns: a line for each row, or for each step of a sequence.

    rows         (data sets, rows, ...)           ->  (data sets, rows, features)
    sequences    (data sets, rows, steps, ...)    ->  (data sets, rows * steps, features)

Statistics are computed over the lines of each feature. The steps after the end of a sequence are
lines as well, all cells of which are masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_vae.core.sites import Site
from ppl_vae.data.rows import Rows
from ppl_vae.data.steps import step_fields
from ppl_vae.predictive.replicates import ReplicateSampler


@dataclass(frozen=True)
class Layout:
    """The layout of one site.

    Attributes:
        inside: Which steps are inside a sequence, (rows, steps) of bool; ``None`` for a site whose
            rows are no sequences.
    """

    inside: Tensor | None = None

    def by_feature(self, value: Tensor) -> Tensor:
        """Return (data sets, rows, ...) as floats of shape (data sets, lines, features).

        Example:
            >>> Layout().by_feature(torch.zeros(1, 5, 4, 4, dtype=torch.long)).shape
            torch.Size([1, 5, 16])
            >>> Layout(torch.ones(5, 4).bool()).by_feature(torch.zeros(1, 5, 4, 3)).shape
            torch.Size([1, 20, 3])
        """
        joined = self._lines(value)
        return joined if joined.is_floating_point() else joined.to(torch.get_default_dtype())

    def chosen(self, value: Tensor, positions: list[int]) -> Tensor:
        """Return some features of (data sets, rows, ...) as floats, (data sets, lines, some).

        The features are chosen before they become floats, so that no copy of all of them is made.
        """
        return Layout().by_feature(self._lines(value)[..., positions])

    def unmasked(self, mask: Tensor | None) -> Tensor | None:
        """Return the unmasked cells, (lines, features) or (lines, 1) of bool; ``None`` is all.

        Args:
            mask: The site's mask, (rows, ...); ``None`` where it has none.
        """
        if self.inside is None:
            return None if mask is None else self._lines(mask[None])[0]
        lines = self.inside.reshape(-1, 1)
        return lines if mask is None else lines & self._lines(mask[None])[0]

    def lines(self, rows: int) -> Tensor:
        """Return the positions of the lines that count, of all rows or all steps inside."""
        return torch.arange(rows) if self.inside is None else self.inside.flatten().nonzero()[:, 0]

    def rows_of(self, lines: Tensor) -> Tensor:
        """Return the rows that some lines belong to."""
        return lines if self.inside is None else lines // self.inside.shape[1]

    def names(self, of_cells: list[str]) -> list[str]:
        """Return the features' names, from those of all cells of a row, step after step."""
        if self.inside is None:
            return of_cells
        features = len(of_cells) // self.inside.shape[1]
        return [name.partition(",")[2] or name for name in of_cells[:features]]

    def _lines(self, value: Tensor) -> Tensor:
        """Return (data sets, rows, ...) as (data sets, lines, features), of any dtype."""
        if self.inside is None:
            return value.reshape(*value.shape[:2], -1)
        return value.reshape(len(value), self.inside.numel(), -1)


def layouts_of(sampler: ReplicateSampler) -> dict[str, Layout]:
    """Return the layout of each site: by steps where the pair reads the lengths of sequences.

    A site is one of sequences if the first dimension of its events are the steps of the field x.
    """
    inside = inside_of(sampler.rows) if sampler.pair.reads_lengths(sampler.rows) else None

    def layout(fn: Site) -> Layout:
        shape = fn.event_shape
        steps = inside is not None and len(shape) > 0 and shape[0] == inside.shape[1]
        return Layout(inside if steps else None)

    return {name: layout(fn) for name, fn in sampler.distributions.items()}


def inside_of(rows: Rows) -> Tensor | None:
    """Return which steps are inside each sequence, (rows, steps); ``None`` for other data."""
    if not step_fields(rows):
        return None
    x, lengths = (rows.names.index(name) for name in ("x", "lengths"))
    positions = torch.arange(len(rows))
    ends = rows.fields[lengths].take(rows.positions_in_data(positions)).cpu()
    return torch.arange(rows.fields[x].array.shape[1]) < ends[:, None]
