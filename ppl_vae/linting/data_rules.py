"""The linter's rules on the data: one pass over all rows counts faults, and rules report them.

Faults are numbers that are not finite, values outside a likelihood's support, log-probabilities
that are not finite, and fields that nobody reads. Masked cells are left out: NaN under a mask is
how a pair says that a cell is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd
import torch
from pyro.distributions import Independent, MaskedDistribution
from torch import Tensor

from ppl_vae.compat.of_torch import LinAlgError
from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks
from ppl_vae.core.covariates import covariate_at_fault
from ppl_vae.core.failed_runs import first_cell
from ppl_vae.core.far_rows import cell_at_fault, failing_rows
from ppl_vae.core.pair import Pair
from ppl_vae.core.supports import (
    cells_outside,
    mend_outside,
    support_of,
    support_text,
)
from ppl_vae.data.cells import place_not_finite
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows
from ppl_vae.linting.constant_columns import constant_columns
from ppl_vae.linting.index_rules import negative_indices, shared_indices
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection, error, run_pair, warning
from ppl_vae.linting.rounded_columns import rounded_columns
from ppl_vae.linting.stored_order import rows_in_an_order

KINDS = (
    "gaps",
    "runs",
    "values",
    "outside",
    "scores",
)  # the kinds of faults; see DataFaults.counts

Marks = dict[str, dict[str, Tensor]]
"""Rows at fault in one block, by kind and by field or site: (rows,) of bool."""


@dataclass
class BadRows:
    """How many rows are at fault, and the position of the first of them."""

    rows: int = 0
    first: int = -1

    def add(self, bad: Tensor, index: Tensor) -> None:
        """Add a block of rows.

        Args:
            bad: Whether each row is at fault, (rows,) of bool; at least one is.
            index: The rows' positions in the data, (rows,).
        """
        self.rows += int(bad.sum())
        if self.first < 0:
            self.first = int(index[bad.cpu()][0])


@dataclass
class DataFaults:
    """What a pass over the data has found so far.

    Attributes:
        counts: Rows at fault, by kind and by field or site. The kinds: ``"gaps"``, NaN or infinity
            in a field of the data; ``"runs"``, rows on which the run of a whole block fails;
            ``"values"``, draws of a site that are not finite;
            ``"outside"``, observed values outside the support; ``"scores"``, log-probabilities
            that are not finite.
        low: Smallest value of each column, (columns,), by continuous data site.
        high: Largest value of each column, (columns,), by continuous data site.
        sound: Position of the first row without any fault; -1 where there is none.
        without_gaps: Positions of the first rows without gaps, at most ``LARGER_BATCH``.
        failure: What a run raised, which ended the pass; ``None`` where none raised.
    """

    counts: dict[str, dict[str, BadRows]] = field(default_factory=lambda: {k: {} for k in KINDS})
    low: dict[str, Tensor] = field(default_factory=dict)
    high: dict[str, Tensor] = field(default_factory=dict)
    sound: int = -1
    without_gaps: list[int] = field(default_factory=list)
    failure: Finding | None = None

    def add(self, marks: Marks, index: Tensor) -> None:
        """Add what was found in the rows at ``index``, (rows,)."""
        with_gaps = torch.stack([bad.cpu() for bad in marks["gaps"].values()]).any(0)
        wanted = Inspection.LARGER_BATCH - len(self.without_gaps)
        self.without_gaps += index[~with_gaps][:wanted].tolist()
        sound = ~with_gaps
        for kind in KINDS:
            for name, bad in marks[kind].items():
                sound = sound & ~bad.cpu()
                if bool(bad.any()):
                    self.counts[kind].setdefault(name, BadRows()).add(bad, index)
        if self.sound < 0 and bool(sound.any()):
            self.sound = int(index[sound][0])
        for name, columns in marks["columns"].items():
            low, high = columns.amin(0), columns.amax(0)
            self.low[name] = torch.minimum(self.low.get(name, low), low)
            self.high[name] = torch.maximum(self.high.get(name, high), high)


def scan_data(inspection: Inspection) -> DataFaults:
    """Run the pair over all rows, block by block, until it fails or the rows end."""
    faults = DataFaults()
    work = functools.partial(_examine, inspection)
    try:
        for index, marks in blocks(inspection.pair, inspection.rows, work, seed=0, judge=False):
            faults.add(marks, index)
    except CannotRunError as raised:
        faults.failure = raised.finding
    return faults


def _examine(inspection: Inspection, batch: Batch, index: Tensor) -> Marks:
    """Run the pair on a block and mark its rows at fault.

    Returns:
        The marks by kind, and under ``"columns"`` the values of each continuous data site,
        (rows, columns).

    Raises:
        CannotRunError: If the pair fails on a block without gaps.
    """
    marks: Marks = {kind: {} for kind in (*KINDS, "columns")}
    for name, tensor in zip(inspection.rows.names, as_tuple(batch), strict=True):
        marks["gaps"][name] = ~torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
    try:
        model_trace, guide_trace = run_pair(inspection.pair, batch, index)
    except CannotRunError as raised:
        if any(bool(bad.any()) for bad in marks["gaps"].values()):
            marks["values"] = marks["gaps"]  # the gaps explain the failure
            return marks
        if not isinstance(raised.__cause__, LinAlgError):
            raise
        marks["runs"]["model"] = failing_rows(inspection.pair, batch)
        if not bool(marks["runs"]["model"].any()):
            raise
        return marks
    for trace in (guide_trace, model_trace):
        for name, site in sites.with_role(trace, "latent", "data").items():
            if sites.in_plate(site, inspection.pair.plate):
                _examine_site(marks, name, site, batch_rows(batch), name in inspection.unvalidated)
    return marks


def _examine_site(marks: Marks, name: str, site: sites.Site, rows: int, unvalidated: bool) -> None:
    """Mark the rows at fault at one site.

    A row with one fault gets no second mark for its log-probability, which the first fault
    explains. A likelihood that accepts NaN is judged by its log-probability alone.
    """
    value, unmasked = site["value"], sites.unmasked_cells(site)
    not_finite = _any_cell(~torch.isfinite(value.float()) & unmasked, site, rows)
    explained = not_finite
    if sites.role(site) == "latent":
        marks["values"][name] = not_finite
    else:
        outside = cells_outside(site, unmasked)
        event_dim = site["fn"].event_dim - (value.ndim - outside.ndim)
        outside = _any_cell(outside, site, rows, event_dim) & ~not_finite
        marks["outside"][name] = outside
        if not bool(outside.any()) or not unvalidated:
            explained = outside
        if _is_continuous(site) and bool(unmasked.all()):
            marks["columns"][name] = _by_row(value, site, rows)
    score = row_score(site)
    if score is not None:
        unscored = ~torch.isfinite(score) & ~explained
        marks["scores"][name] = marks["scores"].get(name, False) | unscored


def row_score(site: sites.Site) -> Tensor | None:
    """Return the log-probability of each row, (rows,), in nats.

    ``None`` where the site cannot score its value: a flow without an inverse scores only what it
    has just drawn.
    """
    try:
        return sites.row_log_prob(site)
    except Exception:
        return None


def _is_continuous(site: sites.Site) -> bool:
    """Return whether a site's support and values are real numbers."""
    return not sites.is_discrete(site) and bool(site["value"].is_floating_point())


def _by_row(cells: Tensor, site: sites.Site, rows: int, event_dim: int | None = None) -> Tensor:
    """Return a tensor shaped like a site's value as (rows, numbers in each row).

    Args:
        cells: One entry for each number of the site's value, or for each event (see event_dim).
        site: The site, which stands in the row plate.
        rows: Number of rows.
        event_dim: Event dimensions of ``cells``; those of the site if ``None``.
    """
    dim = -1 - (site["fn"].event_dim if event_dim is None else event_dim)
    cells = cells.movedim(dim, 0) if cells.ndim >= -dim else cells[None]
    return cells.reshape(len(cells), -1).expand(rows, -1)


def _any_cell(bad: Tensor, site: sites.Site, rows: int, event_dim: int | None = None) -> Tensor:
    """Return which rows have a marked cell, (rows,) of bool."""
    return _by_row(bad, site, rows, event_dim).any(1)


# Findings


def unread_fields(pair: Pair, rows: Rows) -> Iterator[Finding]:
    """Find fields of a mapping that neither the model nor the guide has an argument for."""
    if rows.keys is None:
        return
    empty = dict.fromkeys(rows.keys, torch.empty(0))
    read = {*pair.model.fields_read(empty), *pair.guide.fields_read(empty)}
    for name in rows.keys:
        if name not in read:
            problem = "expected an argument of this name in the model or the guide, got none"
            fix = "rename the field or the argument, or leave the field out of the data"
            yield error(f'field "{name}"', problem, fix)


def data_findings(inspection: Inspection, faults: DataFaults) -> Iterator[Finding]:
    """Yield a finding for each fault that the pass over the data has counted.

    Gaps (NaN or infinity) come first: they explain draws and log-probabilities that are not
    finite, so where both occur the gaps alone are reported.
    """
    counts = faults.counts
    if counts["gaps"] and (counts["values"] or counts["scores"] or faults.failure):
        yield from gap_findings(inspection, faults)
        return
    if faults.failure:
        yield faults.failure
        return
    for name, bad in counts["runs"].items():
        problem = f"expected to run on every row, got an overflow in {_count(inspection, bad)}"
        problem += _cell_at_fault(inspection, faults, bad)
        yield error(
            name,
            problem,
            "leave out or correct rows far from the data, or bound what the "
            "networks give (a clamp on log_scale)",
        )
    for name, bad in counts["values"].items():
        problem = f"expected finite values, got NaN or infinity in {_count(inspection, bad)}"
        problem += _cell_at_fault(inspection, faults, bad)
        fix = "scale the inputs of the network (build fills loc and scale), or bound its output"
        yield error(f'site "{name}"', problem, fix)
    for name, bad in counts["outside"].items():
        yield _outside_finding(inspection, name, bad)
    for name, bad in counts["scores"].items() if not counts["values"] else ():
        cause = None
        if faults.sound >= 0:
            cause = covariate_at_fault(inspection.pair, inspection.rows, bad.first, faults.sound)
        if cause is not None:
            yield error(*cause)
            continue
        cell = _first_cell(inspection, name, bad.first, _unscored)
        place = "" if cell.named else _cell_at_fault(inspection, faults, bad)
        yield error(
            f'site "{name}"',
            "expected a finite log-probability, got NaN or infinity in "
            f"{_count(inspection, bad)}{place or cell.text}",
            "keep the scales above 0 and the guide's draws in the support of the model's prior"
            + (", or change a value that the likelihood gives probability 0" if cell.text else ""),
        )
    yield from constant_columns(inspection, faults.low, faults.high)
    yield from rounded_columns(inspection, faults.low, faults.high)
    yield from rows_in_an_order(inspection)
    yield from negative_indices(inspection)
    yield from shared_indices(inspection)


def _cell_at_fault(inspection: Inspection, faults: DataFaults, bad: BadRows) -> str:
    """Return the cell that makes the pair overflow on the first bad row, as a sentence's end."""
    if faults.sound < 0:
        return ""
    name = cell_at_fault(inspection.pair, inspection.rows, bad.first, faults.sound)
    return f", {name}" if name else ""


def _outside_finding(inspection: Inspection, name: str, bad: BadRows) -> Finding:
    """Return the finding for observed values outside the support of their likelihood.

    The finding is a warning where the user made the distribution with ``validate_args=False``.
    """
    cell = _first_cell(inspection, name, bad.first, _outside)
    fn = inspection.model_sites()[name]["fn"] if cell.site is None else cell.site["fn"]
    support, fix = support_text(support_of(fn), cell.at), mend_outside(fn, cell.value)
    problem = (
        f"expected data in the likelihood's support ({support}), got values outside it in "
        f"{_count(inspection, bad)}{cell.text}"
    )
    if name not in inspection.unvalidated:
        return error(f'site "{name}"', problem, fix)
    problem += ", which validate_args=False lets pass: their score is not a log-probability"
    fix += ", or compare this ELBO with those of the same likelihood only"
    return warning(f'site "{name}"', problem, fix)


class _BadCell(NamedTuple):
    """The first bad value of an observed site in a row; the defaults where it is not found.

    Attributes:
        text: The value and its cell as the end of a sentence, such as `` with 7 in column 2``.
        named: Whether the text names a cell of the row.
        site: The site in a run on this row.
        at: Where the value stands in the site's value.
        value: The value.
    """

    text: str = ""
    named: bool = False
    site: sites.Site | None = None
    at: tuple[int, ...] = ()
    value: float = 0.0


def _first_cell(
    inspection: Inspection, name: str, row: int, is_bad: Callable[[sites.Site], Tensor]
) -> _BadCell:
    """Return the first bad value of an observed site in a row of the data, and its cell.

    Args:
        inspection: The pair and its data.
        name: The site.
        row: Position of the row in the data.
        is_bad: Tells which numbers of the site's value are bad, or which vectors of them.
    """
    rows, index = inspection.rows, torch.tensor([row])
    batch = rows.take(index, inspection.pair.device())
    try:
        site = sites.with_role(run_pair(inspection.pair, batch, index)[0], "data")[name]
        cell = first_cell(site, is_bad(site), batch, [field.labels for field in rows.fields])
        value = site["value"][cell.at].flatten().tolist()
    except Exception:  # a pair that does not run on one row, or another draw of its parameters
        return _BadCell()
    numbers = ", ".join(f"{number:g}" for number in value[:5])
    text = f" with {numbers}{cell.name and f' in {cell.name}'}"
    return _BadCell(text, bool(cell.name), site, cell.at, value[0])


def _outside(site: sites.Site) -> Tensor:
    """Return which numbers, or vectors, of a site's value are outside the support."""
    return cells_outside(site, sites.unmasked_cells(site))


def _unscored(site: sites.Site) -> Tensor:
    """Return which numbers, or events, of a site's value have no finite log-probability."""
    fn = site["fn"]
    while isinstance(fn, Independent | MaskedDistribution):
        fn = fn.base_dist
    log_prob: Tensor = fn.log_prob(site["value"])
    return ~log_prob.isfinite()


def gap_findings(inspection: Inspection, faults: DataFaults) -> Iterator[Finding]:
    """Yield a finding for each field with NaN or infinity that the pair cannot take."""
    rows = inspection.rows
    for name, bad in faults.counts["gaps"].items():
        field = rows.fields[rows.names.index(name)]
        row = field.take(rows.positions_in_data(torch.tensor([bad.first])))
        yield error(
            f'field "{name}"' if rows.keys else f"data field {name}",
            f"expected finite numbers, got NaN or infinity in {_count(inspection, bad)}"
            f"{place_not_finite(row, field.labels)}",
            "drop these rows or impute the cells; or fill the cells (x.nan_to_num()) before the "
            "networks and the likelihood and mask them: NaN under a mask still reaches gradients",
        )


def _count(inspection: Inspection, bad: BadRows) -> str:
    """Return how many rows are at fault and which is the first, with its label in the index."""
    index: pd.Index = inspection.rows.index
    label = index[bad.first]
    named = "" if label == bad.first else f" (index {label!r})"
    return f"{bad.rows} of {len(inspection.rows)} rows, the first is row {bad.first}{named}"
