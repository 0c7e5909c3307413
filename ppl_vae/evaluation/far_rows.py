"""Rows so far from the data that a network overflows on them: marked NaN, the others computed.

An encoder of unbounded activations may give a row 1,000 standard deviations away a scale of
exp(1000), which is infinite. Pyro's checks then stop the whole block of rows. Here the block is run
once more without the checks, to see which rows have no finite log-probability. Their places are
taken by copies of a sound row, the block is run again, and the results of these places become NaN.
Rows do not depend on each other, so the results of all other rows stand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pyro
import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, as_tuple, map_batch

Work: TypeAlias = Callable[[Batch, Tensor], dict[str, Tensor]]

LOOKED_AT = 64  # rows, evenly over the data, among which a sound one is looked for
FAULTS = (RuntimeError, ValueError, ArithmeticError)


class FarRows:
    """Makes the work on a block of rows leave out the rows on which the pair overflows.

    Args:
        pair: The pair.
        rows: The data.
        work: The work: from a block and the positions of its rows to ``{name: (rows,)}``, floats.

    Attributes:
        found: Positions of the rows that were left out.
    """

    def __init__(self, pair: Pair, rows: Rows, work: Work) -> None:
        self.pair, self.rows, self.work = pair, rows, work
        self.found: list[int] = []

    def __call__(self, batch: Batch, index: Tensor) -> dict[str, Tensor]:
        """Return what the work returns, NaN for the rows on which the pair overflows.

        Raises:
            Exception: What the work raises, if no such row explains it, or all rows are such.
        """
        try:
            return self.work(batch, index)
        except FAULTS:
            far = self._overflowing(batch)
            replaced = self._replaced(batch, far) if bool(far.any()) else None
            if replaced is None:
                raise
            result = self.work(replaced, index)
        self.found += index[far.cpu()].tolist()
        return {
            name: value.masked_fill(far.to(value.device), torch.nan)
            for name, value in result.items()
        }

    def warn(self, name: str, rows: int, stacklevel: int) -> None:
        """Warn of the rows that were left out, if any.

        Args:
            name: The public function.
            rows: Rows in all.
            stacklevel: As ``warnings.warn`` has it, counted from the caller.
        """
        if self.found:
            warnings.warn(
                f"{name}: expected finite numbers, got an overflow of the pair in "
                f"{len(self.found)} of {rows} rows, first in row {self.found[0]}: their values are "
                "NaN; look whether these rows are far from the data, or bound what the networks "
                "give (a clamp on log_scale)",
                stacklevel=stacklevel + 1,
            )

    def _overflowing(self, batch: Batch) -> Tensor:
        """Return which rows have no finite log-probability though their data are sound, (rows,).

        No row, where the pair fails without Pyro's checks, too, where a number of the data is not
        finite, or where an observed value is outside its support.
        """
        fields = as_tuple(batch)
        none = torch.zeros(len(fields[0]), dtype=torch.bool, device=fields[0].device)
        if not all(bool(field.isfinite().all()) for field in fields):
            return none
        far = none.clone()
        try:
            with pyro.validation_enabled(False):
                for site in self._scored_sites(batch):
                    if not _in_support(site):
                        return none
                    by_row = sites.row_log_prob(site).expand(len(none))
                    far |= by_row.isnan() | (by_row == torch.inf) | ~_finite_rows(site)
        except FAULTS:
            return none
        return far

    def _replaced(self, batch: Batch, far: Tensor) -> Batch | None:
        """Return a block with sound rows in the places of far ones; ``None`` without a sound row.

        Where all rows of the block are far, the sound row is looked for in all the data.
        """
        source = batch
        if bool(far.all()):
            spread = torch.linspace(0, len(self.rows) - 1, min(len(self.rows), LOOKED_AT)).long()
            source = self.rows.take(spread, self.pair.device())
        sound = (~self._overflowing(source)).nonzero().flatten().cpu()
        if not len(sound):
            return None
        places = torch.arange(len(far)) if source is batch else torch.zeros(len(far)).long()
        places = places.masked_fill(far.cpu(), int(sound[0]))
        return map_batch(source, lambda field: field[places.to(field.device)])

    def _scored_sites(self, batch: Batch) -> Iterator[sites.Site]:
        """Yield the sites in the row plate that have a log-probability, from one run."""
        for trace in sites.traces(self.pair, batch):
            for site in sites.with_role(trace, "data", "latent", "auxiliary", "factor").values():
                if sites.in_plate(site, self.pair.plate):
                    yield site


def _in_support(site: sites.Site) -> bool:
    """Return whether an observed value lies in its support; yes where nothing can be told."""
    if sites.role(site) != "data":
        return True
    try:
        inside = site["fn"].support.check(site["value"])
    except (NotImplementedError, AttributeError):
        return True
    return bool(inside.all())


def _finite_rows(site: sites.Site) -> Tensor:
    """Return in which rows a site's value is finite, (rows,), or one answer for all rows."""
    finite: Tensor = site["value"].isfinite()
    if site["fn"].event_dim:
        finite = finite.flatten(-site["fn"].event_dim).all(-1)
    return finite.reshape(-1, finite.shape[-1]).all(0) if finite.ndim else finite
