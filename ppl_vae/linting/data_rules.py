"""The linter's rules on the data: one pass over all rows counts faults, and rules report them.

Faults are numbers that are not finite, values outside a likelihood's support, log-probabilities
that are not finite, and fields that nobody reads. Masked cells are left out: NaN under a mask is
how a pair says that a cell is missing.

A further rule is on columns with one value under a likelihood that learns its scale:

    log Normal(x; loc, scale) at x = loc  =  -log scale + const  ->  infinity  as  scale -> 0

The density of a column with one value has no upper limit where training may make the scale as
small as it likes: the ELBO grows without end, and other columns are neglected.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import TransformedDistribution

from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks
from ppl_vae.core.covariates import covariate_at_fault
from ppl_vae.core.pair import Pair
from ppl_vae.core.supports import support_of
from ppl_vae.data.cells import place_not_finite, place_of_cell
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows
from ppl_vae.linting.index_rules import negative_indices
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection, error, run_pair, warning

KINDS = ("gaps", "values", "outside", "scores")  # the kinds of faults; see DataFaults.counts

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
            in a field of the data; ``"values"``, draws of a site that are not finite;
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
        for index, marks in blocks(inspection.pair, inspection.rows, work, seed=0):
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
    except CannotRunError:
        if not any(bool(bad.any()) for bad in marks["gaps"].values()):
            raise
        marks["values"] = marks["gaps"]  # the gaps explain the failure
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
        outside = _outside_support(site, unmasked, rows) & ~not_finite
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


def support_name(site: sites.Site) -> str:
    """Return the support of a site's distribution as text, or "" where it is unknown."""
    support = support_of(site["fn"])
    text = "" if support is None else str(support)
    return text.removesuffix("()").lstrip("_").lower().replace("greaterthan", "greater than")


def _outside_support(site: sites.Site, unmasked: Tensor, rows: int) -> Tensor:
    """Return which rows have an unmasked cell outside the support, (rows,) of bool."""
    support, none = support_of(site["fn"]), torch.zeros(rows, dtype=torch.bool)
    if support is None:
        return none.to(unmasked.device)
    try:
        outside = ~support.check(site["value"])
    except NotImplementedError:  # of a constraint that cannot be checked
        return none.to(unmasked.device)
    event_dim = unmasked.ndim - outside.ndim  # a vector has one answer for all its cells
    unmasked = unmasked.flatten(-event_dim).any(-1) if event_dim else unmasked
    return _any_cell(outside & unmasked, site, rows, site["fn"].event_dim - event_dim)


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
    for name, bad in counts["values"].items():
        problem = f"expected finite values, got NaN or infinity in {_count(inspection, bad)}"
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
        problem = "expected a finite log-probability, got NaN or infinity in "
        fix = "keep the scales above 0 and the guide's draws in the support of the model's prior"
        yield error(f'site "{name}"', problem + _count(inspection, bad), fix)
    yield from constant_columns(inspection, faults)
    yield from negative_indices(inspection)


def _outside_finding(inspection: Inspection, name: str, bad: BadRows) -> Finding:
    """Return the finding for observed values outside the support of their likelihood.

    The finding is a warning where the user made the distribution with ``validate_args=False``.
    """
    support = support_name(inspection.model_sites()[name])
    problem = (
        f"expected data in the likelihood's support ({support}), got values outside it in "
        f"{_count(inspection, bad)}{_value_outside(inspection, name, bad.first)}"
    )
    fix = "change the likelihood or the data"
    if name not in inspection.unvalidated:
        return error(f'site "{name}"', problem, fix)
    problem += ", which validate_args=False lets pass: their score is not a log-probability"
    fix += ", or compare this ELBO with those of the same likelihood only"
    return warning(f'site "{name}"', problem, fix)


def _value_outside(inspection: Inspection, name: str, row: int) -> str:
    """Return the first value outside the support in a row, and its column; "" if unknown."""
    index = torch.tensor([row])
    batch = inspection.rows.take(index, inspection.pair.device())
    try:
        site = sites.sample_sites(run_pair(inspection.pair, batch, index)[0])[name]
        support: Any = support_of(site["fn"])
        first = (~support.check(site["value"])).nonzero()[0].tolist()
        value = site["value"][tuple(first)].flatten().tolist()
        place = place_of_cell(inspection.rows, batch, site["value"], first, site["fn"].event_dim)
    except Exception:  # a pair that does not run on one row, or another draw of its parameters
        return ""
    return " with " + ", ".join(f"{number:g}" for number in value[:5]) + place


def gap_findings(inspection: Inspection, faults: DataFaults) -> Iterator[Finding]:
    """Yield a finding for each field with NaN or infinity that the pair cannot take."""
    rows = inspection.rows
    for name, bad in faults.counts["gaps"].items():
        position = rows.names.index(name)
        field = as_tuple(rows.take(torch.tensor([bad.first])))[position]
        yield error(
            f'field "{name}"' if rows.keys else f"data field {name}",
            f"expected finite numbers, got NaN or infinity in {_count(inspection, bad)}"
            f"{place_not_finite(rows, position, field)}",
            "drop these rows or impute the cells; or fill the cells (x.nan_to_num()) before the "
            "networks and the likelihood and mask them: NaN under a mask still reaches gradients",
        )


def _count(inspection: Inspection, bad: BadRows) -> str:
    """Return how many rows are at fault and which is the first, with its label in the index."""
    index: pd.Index = inspection.rows.index
    label = index[bad.first]
    named = "" if label == bad.first else f" (index {label!r})"
    return f"{bad.rows} of {len(inspection.rows)} rows, the first is row {bad.first}{named}"


# Columns with one value

WIDTH_PARAMETERS = (
    "scale", "coord_scale", "scale_tril", "covariance_matrix", "precision_matrix", "cov_diag",
    "concentration",
)  # fmt: skip
"""Names of the parameters of torch's and Pyro's distributions that set how narrow they are."""


def constant_columns(inspection: Inspection, faults: DataFaults) -> Iterator[Finding]:
    """Find columns with one value under a likelihood that training can make ever narrower."""
    constant = {
        name: (low == faults.high[name]).nonzero().flatten().tolist()
        for name, low in faults.low.items()
        if len(inspection.rows) > 1
    }
    narrowing = _narrowing_sites(inspection) if any(constant.values()) else set()
    for name, columns in constant.items():
        if columns and name in narrowing:
            shown = ", ".join(map(str, columns[:8])) + (", ..." if len(columns) > 8 else "")
            yield warning(
                f'site "{name}"',
                "expected columns that vary where the likelihood learns its scale, got "
                f"{len(columns)} with one value (column {shown}): their density grows as the "
                "scale shrinks, without limit unless the scale has a floor",
                "drop these columns, fix the scale, or give the scale a floor",
            )


def _narrowing_sites(inspection: Inspection) -> set[str]:
    """Return the data sites whose density training can make as narrow as it likes.

    The pair is run with gradients on: a scale that requires a gradient depends on a parameter.
    """
    try:
        with torch.enable_grad():
            trace, _ = run_pair(inspection.pair, inspection.batch)
    except CannotRunError:  # by chance of the draws: earlier runs did not fail
        return set()
    data = sites.with_role(trace, "data")
    return {name for name, site in data.items() if _learns_to_narrow(site["fn"])}


def _learns_to_narrow(fn: Any) -> bool:
    """Return whether a parameter that sets how narrow a density is depends on what is trained.

    Some densities cannot narrow at a value inside their support, and give ``False``: those with a
    scale but without a location (HalfNormal), and those whose one parameter sets both their mean
    and their spread (Exponential, ContinuousBernoulli).
    """
    arguments = type(fn).arg_constraints  # a property in a class that names no arguments
    arguments = arguments if isinstance(arguments, Mapping) else {}
    named = [name for name in arguments if name in WIDTH_PARAMETERS]
    if "loc" not in arguments and "scale" in named:
        named.remove("scale")
    if any(_is_learned(getattr(fn, name)) for name in named):
        return True
    if isinstance(fn, TransformedDistribution) and not arguments:
        return any(map(_stretches, fn.transforms)) or _learns_to_narrow(fn.base_dist)
    inner = [getattr(fn, name, None) for name in ("base_dist", "component_distribution")]
    wrapped = not isinstance(fn, TransformedDistribution)
    return wrapped and any(_learns_to_narrow(part) for part in inner if part is not None)


def _stretches(transform: Any) -> bool:
    """Return whether a transform stretches by what is trained: a flow, or a learned scale."""
    parameters = transform.parameters() if isinstance(transform, nn.Module) else ()
    learned_scale = _is_learned(getattr(transform, "scale", None))
    return any(p.requires_grad for p in parameters) or learned_scale


def _is_learned(value: Any) -> bool:
    """Return whether a distribution's parameter depends on a trainable tensor."""
    return isinstance(value, Tensor) and value.requires_grad
