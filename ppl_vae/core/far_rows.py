"""Rows so far from the data that a network overflows on them: marked NaN, the others computed.

An encoder of unbounded activations may give a row 1,000 standard deviations away a scale of
exp(1000), which is infinite. Pyro's checks then stop the whole block of rows. Here the block is run
once more without the checks, to see which rows have no finite log-probability. Their places are
taken by copies of a sound row, the block is run again, and the results of these places become NaN.
Rows do not depend on each other, so the results of all other rows stand.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_vae.compat.of_torch import LinAlgError
from ppl_vae.core import sites
from ppl_vae.core.covariates import covariate_at_fault
from ppl_vae.core.failed_runs import Cause
from ppl_vae.core.pair import Pair
from ppl_vae.data.cells import cell_name
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows, evenly_spaced, map_batch

T = TypeVar("T")
Key = TypeVar("Key")
Work: TypeAlias = Callable[[Batch, Tensor], T]

LOOKED_AT = 64  # rows, evenly over the data, among which a sound one is looked for
MOST_RUNS = 200  # runs of parts of a batch in the search for rows that fail by themselves
MOST_CELLS = 4096  # most cells of a row in the search for the one that is at fault
FAULTS = (RuntimeError, ValueError, ArithmeticError)


class FarRows:
    """The rows of some data on which a pair overflows, found while the pair runs on blocks of rows.

    Args:
        pair: The pair.
        rows: The data, N rows.

    Attributes:
        found: Which rows were found, (N,) of bool.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> pair, rows = Pair.of(BernoulliModel(4), None, "data"), Rows(torch.ones(3, 4))
        >>> FarRows(pair, rows).found
        tensor([False, False, False])
    """

    def __init__(self, pair: Pair, rows: Rows) -> None:
        self.pair, self.rows = pair, rows
        self.found = torch.zeros(len(rows), dtype=torch.bool)

    def run(
        self,
        work: Work[T],
        values: Callable[[T], Mapping[Any, Tensor]],
        batch: Batch,
        index: Tensor,
    ) -> T:
        """Return what the work returns for a block, in which sound rows stand for far ones.

        Rows of the block that are known to be far are replaced at once. Where the work fails, or
        returns numbers that are not finite, far rows are looked for, and the work is done once
        more; without a far row, what it returned or raised stands.

        Args:
            work: The work, from a block and the positions of its rows in the data.
            values: The numbers in what the work returns, by name.
            batch: The block of rows.
            index: The positions of its rows, (rows,).

        Raises:
            Exception: What the work raises, if no far row explains it, or all rows are far.
        """
        known = self.found[index]
        if bool(known.any()):
            batch = self._replaced(batch, known)
        try:
            result = work(batch, index)
            if all(bool(value.sum().isfinite()) for value in values(result).values()):
                return result
        except FAULTS:
            if not self._find(batch, index):
                raise
        else:
            if not self._find(batch, index):
                return result
        return work(self._replaced(batch, self.found[index]), index)

    def marked(self, work: Work[Mapping[Key, Tensor]]) -> Work[dict[Key, Tensor]]:
        """Return the work with NaN in its results for the rows on which the pair overflows.

        Args:
            work: From a block and the positions of its rows to ``{name: (rows, ...)}``.
        """

        def work_with_marks(batch: Batch, index: Tensor) -> dict[Key, Tensor]:
            result = self.run(work, lambda result: result, batch, index)
            far = self.found[index]
            return {name: nan_in_rows(value, far) for name, value in result.items()}

        return work_with_marks

    def warn(self, name: str, stacklevel: int, value: str = "values are NaN") -> None:
        """Warn of the rows that were found, if any.

        Args:
            name: The public function.
            stacklevel: As ``warnings.warn`` has it, counted from the caller.
            value: What became of the rows' numbers.
        """
        if bool(self.found.any()):
            first = int(self.found.nonzero()[0])
            place = int(self.rows.places(torch.tensor(first)))
            cell = ""
            if not bool(self.found.all()):
                sound = int((~self.found).nonzero()[0])
                cell = cell_at_fault(self.pair, self.rows, first, sound)
            warnings.warn(
                f"{name}: expected finite numbers, got an overflow of the pair in "
                f"{int(self.found.sum())} of {len(self.rows)} rows, first in row "
                f"{place}{cell and f', {cell}'}: their {value}; look whether these rows "
                "are far from the data, or bound what the networks give (a clamp on log_scale)",
                stacklevel=stacklevel + 1,
            )

    def _find(self, batch: Batch, index: Tensor) -> bool:
        """Look for far rows in a block; return whether some are there, and sound rows too.

        Raises:
            ValueError: If a field that the model does not observe is at fault, such as a size of 0.
        """
        cause = self._covariate_at_fault(batch, index)
        if cause is not None:
            raise ValueError(str(cause))
        far = overflowing_rows(self.pair, batch).cpu()
        if not bool(far.any()) or without_rows(self.pair, self.rows, batch, far) is None:
            return False
        self.found[index[far]] = True
        return True

    def _covariate_at_fault(self, batch: Batch, index: Tensor) -> Cause | None:
        """Return the field at fault for the first row without a finite log-probability, if any."""
        if len(self.rows.fields) == 1:
            return None
        finite = torch.ones(len(index), dtype=torch.bool)
        try:
            with pyro.validation_enabled(False):
                for site in _scored_sites(self.pair, batch):
                    finite &= sites.row_log_prob(site).isfinite().cpu()
        except Exception:
            return None
        if bool(finite.all()) or not bool(finite.any()):
            return None
        bad, sound = int(index[~finite][0]), int(index[finite][0])
        return covariate_at_fault(self.pair, self.rows, bad, sound)

    def _replaced(self, batch: Batch, far: Tensor) -> Batch:
        """Return a block with sound rows in the places of rows that are known to be far.

        Raises:
            ValueError: If no sound row is found.
        """
        replaced = without_rows(self.pair, self.rows, batch, far)
        if replaced is None:
            raise ValueError(
                f"{self.rows.name}: expected rows on which the pair gives finite numbers, got an "
                "overflow in all rows that were looked at; bound what the networks give (a clamp "
                "on log_scale)"
            )
        return replaced


def nan_in_rows(value: Tensor, rows: Tensor, dim: int = 0) -> Tensor:
    """Return a value with NaN in some rows, if any; whole numbers then become 64-bit floats.

    Args:
        value: The value of a block of rows.
        rows: The rows to mark, (rows,) of bool.
        dim: The rows' dimension of the value.

    Example:
        >>> nan_in_rows(torch.tensor([[1, 2], [3, 4]]), torch.tensor([True, False]))
        tensor([[nan, nan],
                [3., 4.]], dtype=torch.float64)
    """
    if not bool(rows.any()):
        return value
    value = value if value.is_floating_point() else value.double()
    shape = [1] * value.ndim
    shape[dim] = len(rows)
    return value.masked_fill(rows.reshape(shape).to(value.device), torch.nan)


def overflowing_rows(pair: Pair, batch: Batch, *, impossible: bool = False) -> Tensor:
    """Return which rows have no finite log-probability though their data are sound, (rows,).

    Rows that make the run of all fail count too (``failing_rows``). No row, where the pair fails on
    single rows as well (whoever runs it next meets the error), where a number of the data is not
    finite, or where an observed value is outside its support.

    Args:
        pair: The pair.
        batch: The rows.
        impossible: Whether a log-probability of minus infinity counts, too, which a row may have
            for other reasons than an overflow.
    """
    fields = as_tuple(batch)
    none = torch.zeros(len(fields[0]), dtype=torch.bool, device=fields[0].device)
    if not all(bool(field.isfinite().all()) for field in fields):
        return none
    try:
        return _rows_not_finite(pair, batch, none, impossible=impossible)
    except LinAlgError:
        failing = failing_rows(pair, batch)
    except Exception:
        return none
    if not bool(failing.any()):
        return none
    places = torch.arange(len(none), device=none.device)
    places = places.masked_fill(failing, int((~failing).nonzero()[0]))
    sound = map_batch(batch, lambda field: field[places])
    try:
        others = _rows_not_finite(pair, sound, none, impossible=impossible)
    except Exception:
        return failing
    return failing | others


def _rows_not_finite(pair: Pair, batch: Batch, none: Tensor, *, impossible: bool) -> Tensor:
    """Return which rows have no finite log-probability, or value, in one run of the pair, (rows,).

    Args:
        pair: The pair.
        batch: The rows.
        none: False for every row; returned where an observed value is outside its support.
        impossible: As in ``overflowing_rows``.
    """
    far = none.clone()
    with pyro.validation_enabled(False):
        for site in _scored_sites(pair, batch):
            if not _in_support(site):
                return none
            by_row = sites.row_log_prob(site).expand(len(none))
            far |= by_row.isnan() | (by_row == torch.inf) | ~_finite_rows(site)
            far |= impossible & (by_row == -torch.inf)
    return far


def failing_rows(pair: Pair, batch: Batch) -> Tensor:
    """Return the rows whose own numbers make the run of a whole batch fail, (rows,) of bool.

    The Cholesky factor of a covariance that a network computes from 1e30 does not exist, and torch
    then stops the whole batch. Parts of the batch run alone: a part that fails is halved, down to
    single rows. Only errors of linear algebra count. No row is returned where the batch does not
    fail, or where five rows of it fail by themselves, so that the numbers of single rows are not
    the cause, or after ``MOST_RUNS``.

    Args:
        pair: The pair.
        batch: The rows.

    Raises:
        Exception: Any other error of the pair.
    """
    count = batch_rows(batch)
    failing = torch.zeros(count, dtype=torch.bool, device=as_tuple(batch)[0].device)
    runs = 0

    def fails(rows: range) -> bool:
        nonlocal runs
        runs += 1
        part = map_batch(batch, lambda field: field[rows.start : rows.stop])
        try:
            with pyro.validation_enabled(False):
                sites.traces(pair, part)
        except LinAlgError:
            return True
        return False

    spread = {number * (count - 1) // 4 for number in range(5)}
    if all(fails(range(row, row + 1)) for row in spread):
        return failing
    parts = [range(count)]
    while parts:
        part = parts.pop()
        if runs >= MOST_RUNS:
            return torch.zeros_like(failing)
        if not fails(part):
            continue
        if len(part) == 1:
            failing[part.start] = True
        else:
            middle = part.start + len(part) // 2
            parts += [range(middle, part.stop), range(part.start, middle)]
    return failing


def cell_at_fault(pair: Pair, rows: Rows, bad: int, sound: int) -> str:
    """Return the cell that leaves a row without a finite log-probability; "" where it is not one.

    Copies of a sound row get one cell of the bad row each. The copy without a finite
    log-probability has the cell that is at fault.

    Args:
        pair: The pair.
        rows: The data.
        bad: Position of the row without a finite log-probability.
        sound: Position of a row with one.

    Returns:
        The name, such as ``column "age"``.
    """
    device = pair.device()
    fields, bad_fields = (as_tuple(rows.take(torch.tensor([r]), device)) for r in (sound, bad))
    for position, (field, bad_field) in enumerate(zip(fields, bad_fields, strict=True)):
        shape = tuple(field.shape[1:])
        cells = math.prod(shape)
        if not 0 < cells <= MOST_CELLS:
            continue
        copies = [other.repeat_interleave(cells, 0) for other in fields]
        copies[position].view(cells, -1).diagonal().copy_(bad_field.flatten())
        with pair.quiet_run():
            far = overflowing_rows(pair, rows.batch(copies), impossible=True)
        if bool(far.any()) and (cells == 1 or not bool(far.all())):
            place = [int(at) for at in np.unravel_index(int(far.nonzero()[0]), shape)]
            return cell_name(place, shape, [(shape, rows.fields[position].labels)])
    return ""


def without_rows(pair: Pair, rows: Rows, batch: Batch, far: Tensor) -> Batch | None:
    """Return a block with sound rows in the places of far ones; ``None`` without a sound row.

    Where all rows of the block are far, the sound row is looked for in all the data.

    Args:
        pair: The pair.
        rows: The data.
        batch: The block.
        far: The far rows of the block, (rows,) of bool, on the CPU.
    """
    source, sound = batch, ~far
    if bool(far.all()):
        spread = evenly_spaced(len(rows), min(len(rows), LOOKED_AT))
        source = rows.take(spread, pair.device())
        sound = ~overflowing_rows(pair, source).cpu()
    if not bool(sound.any()):
        return None
    places = torch.arange(len(far)) if source is batch else torch.zeros(len(far)).long()
    places = places.masked_fill(far, int(sound.nonzero()[0]))
    return map_batch(source, lambda field: field[places.to(field.device)])


def _scored_sites(pair: Pair, batch: Batch) -> Iterator[sites.Site]:
    """Yield the sites in the row plate that have a log-probability, from one run."""
    for trace in sites.traces(pair, batch):
        for site in sites.with_role(trace, "data", "latent", "auxiliary", "factor").values():
            if sites.in_plate(site, pair.plate):
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
