"""The linter's rules on the data: unread fields, faults of rows, columns with one value.

The rule on columns with one value is about a likelihood that learns its scale:

    log Normal(x; loc, scale) at x = loc  =  -log scale + const  ->  infinity  as  scale -> 0

The density of a column with one value has no upper limit where training may make the scale as
small as it likes: the ELBO grows without end, and other columns are neglected.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import TransformedDistribution

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.linting.data_scan import BadRows, DataFaults, support_name
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection, error, run_pair, warning


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
        yield error(
            f'site "{name}"',
            f"expected a finite log-probability, got NaN or infinity in {_count(inspection, bad)}",
            "keep the scales above 0 and the guide's draws in the support of the model's prior",
        )
    yield from constant_columns(inspection, faults)


def _outside_finding(inspection: Inspection, name: str, bad: BadRows) -> Finding:
    """Return the finding for observed values outside the support of their likelihood.

    The finding is a warning where the user made the distribution with ``validate_args=False``.
    """
    support = support_name(inspection.model_sites()[name])
    problem = (
        f"expected data in the likelihood's support ({support}), got values outside it in "
        f"{_count(inspection, bad)}"
    )
    fix = "change the likelihood or the data"
    if name not in inspection.unvalidated:
        return error(f'site "{name}"', problem, fix)
    problem += ", which validate_args=False lets pass: their score is not a log-probability"
    fix += ", or compare this ELBO with those of the same likelihood only"
    return warning(f'site "{name}"', problem, fix)


def gap_findings(inspection: Inspection, faults: DataFaults) -> Iterator[Finding]:
    """Yield a finding for each field with NaN or infinity that the pair cannot take."""
    for name, bad in faults.counts["gaps"].items():
        yield error(
            f'field "{name}"' if inspection.rows.keys else f"data field {name}",
            f"expected finite numbers, got NaN or infinity in {_count(inspection, bad)}",
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
    named = [name for name in type(fn).arg_constraints if name in WIDTH_PARAMETERS]
    if "loc" not in type(fn).arg_constraints and "scale" in named:
        named.remove("scale")
    if any(_is_learned(getattr(fn, name)) for name in named):
        return True
    if isinstance(fn, TransformedDistribution) and not type(fn).arg_constraints:
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
