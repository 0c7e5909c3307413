"""The linter's rule on columns with one value under a likelihood that learns its scale.

    log Normal(x; loc, scale) at x = loc  =  -log scale + const  ->  infinity  as  scale -> 0

The density of a column with one value has no upper limit where training may make the scale as
small as it likes: the ELBO grows without end, and other columns are neglected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import TransformedDistribution

from ppl_vae.core import sites
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection, run_pair, warning

WIDTH_PARAMETERS = (
    "scale", "coord_scale", "scale_tril", "covariance_matrix", "precision_matrix", "cov_diag",
    "concentration",
)  # fmt: skip
"""Names of the parameters of torch's and Pyro's distributions that set how narrow they are."""


def constant_columns(
    inspection: Inspection, lows: Mapping[str, Tensor], highs: Mapping[str, Tensor]
) -> Iterator[Finding]:
    """Find columns with one value under a likelihood that training can make ever narrower.

    Args:
        inspection: The pair and its data.
        lows: Smallest value of each column, (columns,), by continuous data site.
        highs: Largest value of each column, likewise.
    """
    constant = {
        name: (low == highs[name]).nonzero().flatten().tolist()
        for name, low in lows.items()
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
