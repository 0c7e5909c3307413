"""The linter's rules on the data: one pass of the pair over all rows.

Counts rows that are not finite, rows outside a likelihood's support, and columns that never
change. Masked cells are left out: NaN under a mask is how a pair says "missing".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import TransformedDistribution

from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks
from ppl_vae.core.handlers import Substitute
from ppl_vae.data.rows import Batch, as_tuple, batch_rows
from ppl_vae.linting.inspection import (
    LARGE,
    CannotRunError,
    Finding,
    Inspection,
    attempt,
    drawn_values,
    error,
    site_error,
    warning,
)

NARROWING = (
    "scale", "coord_scale", "scale_tril", "covariance_matrix", "precision_matrix", "cov_diag",
    "concentration",
)  # fmt: skip
KINDS = ("gaps", "values", "outside", "scores")


@dataclass
class BadRows:
    """How many rows are bad, and the first of them."""

    rows: int = 0
    first: int = -1

    def add(self, bad: Tensor, index: Tensor) -> None:
        """Add a block: ``bad`` is (rows,) of bool, ``index`` the rows' positions."""
        self.rows += int(bad.sum())
        if self.first < 0:
            self.first = int(index[bad.cpu()][0])


@dataclass
class DataFaults:
    """What a pass over the data has found so far.

    Attributes:
        counts: Bad rows by kind and by field (``gaps``: NaN or infinity in the data) or site
            (``values`` that are not finite, ``outside`` the support, ``scores``:
            log-probabilities that are not finite).
        low: Smallest value of each column of a continuous data site; ``high`` the largest.
        sound: Positions of the first rows without gaps.
        failure: What a run raised; the pass ended there.
    """

    counts: dict[str, dict[str, BadRows]] = field(default_factory=lambda: {k: {} for k in KINDS})
    low: dict[str, Tensor] = field(default_factory=dict)
    high: dict[str, Tensor] = field(default_factory=dict)
    sound: list[int] = field(default_factory=list)
    failure: Finding | None = None

    def add(self, found: dict[str, dict[str, Tensor]], index: Tensor) -> None:
        """Add what ``_examine`` found in the rows at ``index``."""
        with_gaps = torch.stack([bad.cpu() for bad in found["gaps"].values()]).any(0)
        self.sound += index[~with_gaps][: LARGE - len(self.sound)].tolist()
        for kind in KINDS:
            for name, bad in found[kind].items():
                if bool(bad.any()):
                    self.counts[kind].setdefault(name, BadRows()).add(bad, index)
        for name, columns in found["columns"].items():
            low, high = columns.amin(0), columns.amax(0)
            self.low[name] = torch.minimum(self.low.get(name, low), low)
            self.high[name] = torch.maximum(self.high.get(name, high), high)


def scan_data(look: Inspection) -> DataFaults:
    """Run the pair over all rows, up to the first failure."""
    tally = DataFaults()
    work = _Examine(look)
    try:
        for index, found in blocks(look.pair, look.rows, work, seed=0):
            tally.add(found, index)
    except CannotRunError as raised:
        tally.failure = raised.finding
    return tally


def data_findings(look: Inspection, tally: DataFaults) -> Iterator[Finding]:
    """What the pass says about the data and the pair."""
    counts, total, index = tally.counts, len(look.rows), look.rows.index
    if counts["gaps"] and (counts["values"] or counts["scores"] or tally.failure):
        yield from gap_findings(look, tally)
        return
    if tally.failure:
        yield tally.failure
        return
    for name, count in counts["values"].items():
        yield site_error(
            name,
            f"expected a finite value, got NaN or infinity in {_rows(count, total, index)}",
            "scale the inputs of the network (build fills loc and scale), or bound its output",
        )
    for name, count in counts["outside"].items():
        support = support_name(look.model_sites()[name])
        problem = (
            f"expected data in the likelihood's support ({support}), got others in "
            f"{_rows(count, total, index)}"
        )
        fix = "change the likelihood or the data"
        if name in look.unvalidated:
            problem += ", which validate_args=False lets pass: their score is no log-probability"
            fix += ", or compare this ELBO with those of the same likelihood only"
            yield warning(f'site "{name}"', problem, fix)
        else:
            yield site_error(name, problem, fix)
    for name, count in counts["scores"].items() if not counts["values"] else ():
        yield site_error(
            name,
            f"expected a finite log-probability, got NaN or infinity in "
            f"{_rows(count, total, index)}",
            "keep the scales above 0 and the guide's draws in the support of the model's prior",
        )
    yield from _constant_columns(look, tally)


def gap_findings(look: Inspection, tally: DataFaults) -> Iterator[Finding]:
    """NaN or infinity in the data, which the pair cannot take."""
    for name, count in tally.counts["gaps"].items():
        yield error(
            f'field "{name}"' if look.rows.keys else f"data field {name}",
            "expected numbers, got NaN or infinity in "
            + _rows(count, len(look.rows), look.rows.index),
            "remove or impute them, or fill them (x.nan_to_num()) before the networks and the "
            "likelihood and mask those cells: NaN under a mask still reaches gradients",
        )


def _constant_columns(look: Inspection, tally: DataFaults) -> Iterator[Finding]:
    """Columns with one value only, under a likelihood that can learn to be ever narrower."""
    constant = {
        name: (low == tally.high[name]).nonzero().flatten().tolist()
        for name, low in tally.low.items()
        if len(look.rows) > 1
    }
    narrowing = _narrowing_sites(look) if any(constant.values()) else set()
    for name, columns in constant.items():
        if columns and name in narrowing:
            shown = ", ".join(map(str, columns[:8])) + (", ..." if len(columns) > 8 else "")
            yield warning(
                f'site "{name}"',
                "expected columns that vary where the likelihood learns its scale, got "
                f"{len(columns)} with one value (column {shown}): their density grows as the "
                "scale shrinks, without bound if nothing keeps it up",
                "drop them, fix the scale, or keep a floor on it",
            )


def _narrowing_sites(look: Inspection) -> set[str]:
    """Data sites whose density training can make as narrow as it likes."""
    pair = look.pair
    try:
        with torch.enable_grad():
            drawn = drawn_values(attempt(pair.guide, look.batch, pair.plate))
            trace = attempt(pair.model, look.batch, pair.plate, Substitute(drawn))
    except CannotRunError:  # draws that failed by chance; all else has run before
        return set()
    data = sites.with_role(trace, "data")
    return {name for name, site in data.items() if _learns_to_narrow(site["fn"])}


def _learns_to_narrow(fn: Any) -> bool:
    """Whether a parameter that sets how narrow a density is depends on what is trained.

    One without a location (HalfNormal), or one whose mean and spread are one parameter
    (Exponential, ContinuousBernoulli), is bounded at a value inside its support.
    """
    named = [name for name in type(fn).arg_constraints if name in NARROWING]
    if "loc" not in type(fn).arg_constraints and "scale" in named:
        named.remove("scale")
    if any(_is_learned(getattr(fn, name)) for name in named):
        return True
    if isinstance(fn, TransformedDistribution) and not type(fn).arg_constraints:
        if any(map(_moves, fn.transforms)):
            return True
        return _learns_to_narrow(fn.base_dist)
    inner = [getattr(fn, name, None) for name in ("base_dist", "component_distribution")]
    wrapped = not isinstance(fn, TransformedDistribution)
    return wrapped and any(_learns_to_narrow(part) for part in inner if part is not None)


def _moves(transform: Any) -> bool:
    """Whether a transform stretches by what is trained: a flow, or a learned scale."""
    held = transform.parameters() if isinstance(transform, nn.Module) else ()
    return any(p.requires_grad for p in held) or _is_learned(getattr(transform, "scale", None))


def _is_learned(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class _Examine:
    """Finds the rows at fault in one block: (rows,) of bool, by kind and by field or site."""

    def __init__(self, look: Inspection) -> None:
        self.look = look

    def __call__(self, batch: Batch, index: Tensor) -> dict[str, dict[str, Tensor]]:
        found: dict[str, dict[str, Tensor]] = {kind: {} for kind in (*KINDS, "columns")}
        for name, tensor in zip(self.look.rows.names, as_tuple(batch), strict=True):
            found["gaps"][name] = ~torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
        pair = self.look.pair
        try:
            guide_trace = attempt(pair.guide, batch, pair.plate)
            proposed = Substitute(drawn_values(guide_trace))
            model_trace = attempt(pair.model, batch, pair.plate, proposed)
        except CannotRunError:
            if not any(bool(bad.any()) for bad in found["gaps"].values()):
                raise
            found["values"] = found["gaps"]  # the gaps explain it
            return found
        for trace in (guide_trace, model_trace):
            for name, site in sites.with_role(trace, "latent", "data").items():
                if sites.in_plate(site, pair.plate):
                    self._site(found, name, site, batch_rows(batch))
        return found

    def _site(self, found: Any, name: str, site: sites.Site, rows: int) -> None:
        value, kept = site["value"], sites.unmasked_cells(site)
        endless = _any_cell(~torch.isfinite(value.float()) & kept, site, rows)
        bad = endless
        if sites.role(site) == "latent":
            found["values"][name] = endless
        else:  # a likelihood that takes NaN is judged by its score
            outside = _outside_support(site, kept, rows) & ~endless
            found["outside"][name] = outside
            if not bool(outside.any()) or name not in self.look.unvalidated:
                bad = outside  # its score says nothing more
            if _is_continuous(site) and bool(kept.all()):
                found["columns"][name] = _by_row(value, site, rows)
        score = row_score(site)
        if score is not None:
            unscored = ~torch.isfinite(score) & ~bad
            found["scores"][name] = found["scores"].get(name, False) | unscored


def row_score(site: sites.Site) -> Tensor | None:
    """Log-probability of each row, (rows,); ``None`` where the site cannot score its value."""
    try:
        return sites.row_log_prob(site)
    except Exception:  # a flow without an inverse scores only what it has just drawn
        return None


def support_name(site: sites.Site) -> str:
    """The support of a site's distribution in words, empty where it has none."""
    support: Any = getattr(site["fn"], "support", None)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    text = "" if support is None else str(support)
    return text.removesuffix("()").lstrip("_").lower().replace("greaterthan", "greater than")


def _outside_support(site: sites.Site, kept: Tensor, rows: int) -> Tensor:
    """Rows with an unmasked cell outside the support: (rows,)."""
    try:
        support = site["fn"].support
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        outside = ~support.check(site["value"])
    except (NotImplementedError, AttributeError):
        return torch.zeros(rows, dtype=torch.bool, device=kept.device)
    event_dim = kept.ndim - outside.ndim  # a vector has one answer for all its cells
    kept = kept.flatten(-event_dim).any(-1) if event_dim else kept
    return _any_cell(outside & kept, site, rows, site["fn"].event_dim - event_dim)


def _is_continuous(site: sites.Site) -> bool:
    support = getattr(site["fn"], "support", None)
    return support is not None and not support.is_discrete and site["value"].is_floating_point()


def _by_row(cells: Tensor, site: sites.Site, rows: int, event_dim: int | None = None) -> Tensor:
    """Cells with the row plate's dimension in front: (rows, cells)."""
    dim = -1 - (site["fn"].event_dim if event_dim is None else event_dim)
    cells = cells.movedim(dim, 0) if cells.ndim >= -dim else cells[None]
    return cells.reshape(len(cells), -1).expand(rows, -1)


def _any_cell(bad: Tensor, site: sites.Site, rows: int, event_dim: int | None = None) -> Tensor:
    return _by_row(bad, site, rows, event_dim).any(1)


def _rows(count: BadRows, total: int, index: pd.Index) -> str:
    """How many rows and the first of them, with its label where the index has other labels."""
    label = index[count.first]
    named = "" if label == count.first else f" (index {label!r})"
    return f"{count.rows} of {total} rows, the first is row {count.first}{named}"
