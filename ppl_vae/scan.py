"""The linter's rules on the data: one pass of the pair over all rows.

Counts rows that are not finite, rows outside a likelihood's support, and columns that never
change. Masked cells are left out: NaN under a mask is how a pair says "missing".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from ppl_vae import sites
from ppl_vae.handlers import Substitute
from ppl_vae.inspection import CannotRunError, Finding, Inspection, attempt
from ppl_vae.passes import blocks
from ppl_vae.rows import Batch, as_tuple


@dataclass
class Count:
    """How many rows are bad, and the first of them."""

    rows: int = 0
    first: int = -1

    def add(self, bad: Tensor, index: Tensor) -> None:
        """Add a block: ``bad`` is (rows,) of bool, ``index`` the rows' positions."""
        if bool(bad.any()):
            self.rows += int(bad.sum())
            if self.first < 0:
                self.first = int(index[bad.cpu()][0])


@dataclass
class Tally:
    """What a pass over the data has found so far, by site or field."""

    gaps: dict[str, Count] = field(default_factory=dict)
    broken: dict[str, Count] = field(default_factory=dict)
    outside: dict[str, Count] = field(default_factory=dict)
    support: dict[str, str] = field(default_factory=dict)
    low: dict[str, Tensor] = field(default_factory=dict)
    high: dict[str, Tensor] = field(default_factory=dict)


def data_findings(look: Inspection) -> list[Finding]:
    """Run the pair over all rows and report what the data do to it."""
    tally = Tally()
    names = look.rows.names

    def work(batch: Batch, index: Tensor) -> dict[str, dict[str, Tensor]]:
        return _examine(look, batch, names)

    try:
        for index, part in blocks(look.pair, look.rows, work, seed=0):
            _add(tally, part, index)
    except CannotRunError as error:
        return _gap_findings(tally, look, always=True) or [error.finding]
    return [
        *_gap_findings(tally, look, always=bool(tally.broken)),
        *_broken_findings(tally),
        *_outside_findings(tally, look),
        *_constant_findings(tally),
    ]


def _examine(look: Inspection, batch: Batch, names: list[str]) -> dict[str, dict[str, Tensor]]:
    """One block: for every field and site the rows at fault, (rows,) of bool."""
    gaps = {
        name: _rows_of(~torch.isfinite(tensor))
        for name, tensor in zip(names, as_tuple(batch), strict=True)
        if tensor.is_floating_point()
    }
    result: dict[str, dict[str, Tensor]] = {"gaps": gaps}
    try:
        guide_trace = attempt(look.pair.guide, batch, "guide")
        drawn = sites.with_role(guide_trace, "latent", "auxiliary")
        values = {name: site["value"] for name, site in drawn.items()}
        model_trace = attempt(Substitute(values)(look.pair.model), batch, "model")
    except CannotRunError:
        if any(bool(bad.any()) for bad in gaps.values()):
            return result  # the gaps explain it
        raise
    broken, outside = result.setdefault("broken", {}), result.setdefault("outside", {})
    low, high = result.setdefault("low", {}), result.setdefault("high", {})
    rows = len(as_tuple(batch)[0])
    for name, site in {**drawn, **sites.with_role(model_trace, "data")}.items():
        if not sites.in_plate(site, look.pair.plate):
            continue
        event_dim = site["fn"].event_dim
        finite = torch.isfinite(site["value"].float())
        broken[name] = ~_by_row(finite, event_dim, site["mask"], rows)
        if name in drawn:
            continue
        support = _check_support(site)
        if support is not None:
            outside[name] = ~_by_row(support, 0, site["mask"], rows) & ~broken[name]
        if _is_continuous(site) and site["mask"] is None:
            columns = site["value"].reshape(rows, -1)
            low[name], high[name] = columns.amin(0), columns.amax(0)
    return result


def _add(tally: Tally, part: dict[str, dict[str, Tensor]], index: Tensor) -> None:
    for kind in ("gaps", "broken", "outside"):
        for name, bad in part.get(kind, {}).items():
            if bool(bad.any()):
                getattr(tally, kind).setdefault(name, Count()).add(bad, index)
    for name, low in part.get("low", {}).items():
        high = part["high"][name]
        tally.low[name] = torch.minimum(tally.low.get(name, low), low)
        tally.high[name] = torch.maximum(tally.high.get(name, high), high)


def _gap_findings(tally: Tally, look: Inspection, always: bool) -> list[Finding]:
    """NaN or infinity in a field, where it reaches a site outside its mask."""
    if not always:
        return []
    return [
        Finding(
            "error",
            f'field "{name}"' if look.rows.keys else f"data field {name}",
            f"{count.rows} of {len(look.rows)} rows hold NaN or infinity, the first is row "
            f"{_label(look.rows.index, count.first)}",
            "remove or impute them, or mask those cells in the model and keep them from the guide",
        )
        for name, count in tally.gaps.items()
    ]


def _broken_findings(tally: Tally) -> list[Finding]:
    """Values that are not finite though the data are."""
    if tally.gaps:
        return []
    return [
        Finding(
            "error",
            f'site "{name}"',
            f"its value is not finite in {count.rows} rows, the first is row {count.first}",
            "scale the inputs of the network (build fills loc and scale), or bound its output",
        )
        for name, count in tally.broken.items()
    ]


def _outside_findings(tally: Tally, look: Inspection) -> list[Finding]:
    model_sites = look.model_sites()
    return [
        Finding(
            "error",
            f'site "{name}"',
            f"{count.rows} of {len(look.rows)} rows lie outside the likelihood's support "
            f"({support_name(model_sites[name])}), the first is row "
            f"{_label(look.rows.index, count.first)}",
            "change the likelihood or the data",
        )
        for name, count in tally.outside.items()
    ]


def _constant_findings(tally: Tally) -> list[Finding]:
    """Columns with one value only: a continuous density of them grows without bound."""
    findings = []
    for name, low in tally.low.items():
        constant = (low == tally.high[name]).nonzero().flatten().tolist()
        if constant:
            shown = ", ".join(map(str, constant[:8])) + (", ..." if len(constant) > 8 else "")
            findings.append(
                Finding(
                    "warning",
                    f'site "{name}"',
                    f"{len(constant)} columns never change ({shown}): under a continuous "
                    "likelihood they dominate the ELBO as their scale shrinks",
                    "drop them, or keep a floor on the scale",
                )
            )
    return findings


def support_name(site: sites.Site) -> str:
    """The support of a site's distribution in words, empty where it has none."""
    support = getattr(site["fn"], "support", None)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    text = "" if support is None else str(support)
    return text.removesuffix("()").lstrip("_").lower().replace("greaterthan", "greater than")


def _check_support(site: sites.Site) -> Tensor | None:
    try:
        ok: Tensor = site["fn"].support.check(site["value"])
    except (NotImplementedError, AttributeError):
        return None
    return ok


def _is_continuous(site: sites.Site) -> bool:
    support = getattr(site["fn"], "support", None)
    return support is not None and not support.is_discrete and site["value"].is_floating_point()


def _by_row(ok: Tensor, event_dim: int, mask: Tensor | bool | None, rows: int) -> Tensor:
    """Whether every unmasked cell of a row is sound: (rows,)."""
    if event_dim:
        ok = ok.flatten(-event_dim).all(-1)
    if mask is not None:
        ok = ok | ~torch.as_tensor(mask, device=ok.device)
    while ok.ndim > 1:
        ok = ok.all(0)
    return ok.expand(rows)


def _rows_of(bad: Tensor) -> Tensor:
    return bad.reshape(len(bad), -1).any(1)


def _label(index: pd.Index, position: int) -> str:
    """A row's number, with its label where the index has other labels."""
    label = index[position]
    return str(position) if label == position else f"{position} (index {label!r})"
