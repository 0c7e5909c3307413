"""One pass of a pair over all rows, which counts rows at fault and finds constant columns.

Faults are numbers that are not finite, values outside a likelihood's support, and
log-probabilities that are not finite. Masked cells are left out: NaN under a mask is how a pair
says that a cell is missing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks
from ppl_vae.data.rows import Batch, as_tuple, batch_rows
from ppl_vae.linting.inspection import LARGER_BATCH, CannotRunError, Finding, Inspection, run_pair

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
        without_gaps: Positions of the first rows without gaps, at most ``LARGER_BATCH``.
        failure: What a run raised, which ended the pass; ``None`` where none raised.
    """

    counts: dict[str, dict[str, BadRows]] = field(default_factory=lambda: {k: {} for k in KINDS})
    low: dict[str, Tensor] = field(default_factory=dict)
    high: dict[str, Tensor] = field(default_factory=dict)
    without_gaps: list[int] = field(default_factory=list)
    failure: Finding | None = None

    def add(self, marks: Marks, index: Tensor) -> None:
        """Add what was found in the rows at ``index``, (rows,)."""
        with_gaps = torch.stack([bad.cpu() for bad in marks["gaps"].values()]).any(0)
        wanted = LARGER_BATCH - len(self.without_gaps)
        self.without_gaps += index[~with_gaps][:wanted].tolist()
        for kind in KINDS:
            for name, bad in marks[kind].items():
                if bool(bad.any()):
                    self.counts[kind].setdefault(name, BadRows()).add(bad, index)
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
        model_trace, guide_trace = run_pair(inspection.pair, batch)
    except CannotRunError:
        if not any(bool(bad.any()) for bad in marks["gaps"].values()):
            raise
        marks["values"] = marks["gaps"]  # the gaps explain the failure
        return marks
    for trace in (guide_trace, model_trace):
        for name, site in sites.with_role(trace, "latent", "data").items():
            if sites.in_plate(site, inspection.pair.plate):
                unvalidated = name in inspection.unvalidated
                _examine_site(marks, name, site, batch_rows(batch), unvalidated)
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
    support: Any = getattr(site["fn"], "support", None)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    text = "" if support is None else str(support)
    return text.removesuffix("()").lstrip("_").lower().replace("greaterthan", "greater than")


def _outside_support(site: sites.Site, unmasked: Tensor, rows: int) -> Tensor:
    """Return which rows have an unmasked cell outside the support, (rows,) of bool."""
    try:
        support = site["fn"].support
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        outside = ~support.check(site["value"])
    except (NotImplementedError, AttributeError):
        return torch.zeros(rows, dtype=torch.bool, device=unmasked.device)
    event_dim = unmasked.ndim - outside.ndim  # a vector has one answer for all its cells
    unmasked = unmasked.flatten(-event_dim).any(-1) if event_dim else unmasked
    return _any_cell(outside & unmasked, site, rows, site["fn"].event_dim - event_dim)


def _is_continuous(site: sites.Site) -> bool:
    """Return whether a site's support and values are real numbers."""
    support = getattr(site["fn"], "support", None)
    return support is not None and not support.is_discrete and site["value"].is_floating_point()


def _by_row(cells: Tensor, site: sites.Site, rows: int, event_dim: int | None = None) -> Tensor:
    """Return cells with the row plate's dimension first, (rows, cells of a row)."""
    dim = -1 - (site["fn"].event_dim if event_dim is None else event_dim)
    cells = cells.movedim(dim, 0) if cells.ndim >= -dim else cells[None]
    return cells.reshape(len(cells), -1).expand(rows, -1)


def _any_cell(bad: Tensor, site: sites.Site, rows: int, event_dim: int | None = None) -> Tensor:
    """Return which rows have a marked cell, (rows,) of bool."""
    return _by_row(bad, site, rows, event_dim).any(1)
