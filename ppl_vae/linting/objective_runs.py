"""Pairs that run under their ELBO alone, because they expect the shapes they have there.

Under ``TraceEnum_ELBO`` a summed latent has all of its values along a dimension of its own, and
vectorized particles lie along another. A model may assert these shapes. Run as its sites are drawn,
it fails; run by its ELBO, it is sound. ``lint`` then reads the traces of the ELBO's own run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from pyro.infer import TraceEnum_ELBO

from ppl_vae.compat.of_pyro import particle_traces
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.objectives import Objective, RowBound
from ppl_vae.linting import elbo_rules, trace_rules
from ppl_vae.linting.inspection import Finding, Inspection, warning
from ppl_vae.linting.watching import Layers, ParameterWatch

RULES = (
    trace_rules.missing_latents, trace_rules.extra_latents, trace_rules.observed_in_guide,
    trace_rules.nothing_observed, trace_rules.row_plates, trace_rules.odd_row_plates,
    trace_rules.twin_parameters, trace_rules.shared_names,
)  # fmt: skip


def inspect_under_elbo(
    pair: Pair, rows: Rows, objective: Objective | None, kl_weighted: bool, layers: Layers
) -> Inspection | None:
    """Return an inspection with the traces of the ELBO's own run, where the pair runs under it.

    Args:
        pair: The pair, which does not run as its sites are drawn.
        rows: The data.
        objective: The ELBO that the user gave, or ``None``. Pyro finds the plates' dimensions by a
            run as drawn, unless ``max_plate_nesting=`` says how many they are.
        kl_weighted: Whether the KL weight differs from 1 at some step.
        layers: Records the layers that run.

    Returns:
        The inspection; ``None`` where the ELBO draws every site once, or the pair fails under it.
    """
    if objective is None or isinstance(objective.elbo, RowBound):
        return None
    elbo = Objective.of(objective.elbo, "tried").elbo
    vectorized = elbo.vectorize_particles and elbo.num_particles > 1
    if math.isinf(elbo.max_plate_nesting) or not (objective.enumerates or vectorized):
        return None
    if isinstance(elbo, TraceEnum_ELBO):
        elbo.strict_enumeration_warning = False
    batch = rows.take(torch.arange(min(len(rows), Inspection.LARGER_BATCH)), pair.device())
    watches = {"model": ParameterWatch(), "guide": ParameterWatch()}
    halves = watches["model"](pair.model), watches["guide"](pair.guide)
    try:
        model_trace, guide_trace = next(particle_traces(elbo, *halves, batch))
    except Exception:  # the failure as drawn is reported
        return None
    return Inspection(
        pair, rows, objective, kl_weighted, layers, batch, model_trace, guide_trace, watches, None
    )


def findings_under_elbo(inspection: Inspection, failure: Finding) -> Iterator[Finding]:
    """Yield the findings that need no other run of the pair than the ELBO's own.

    Args:
        inspection: From ``inspect_under_elbo``.
        failure: What the pair raised as its sites are drawn.
    """
    yield warning(
        failure.where,
        f"expected to run as its sites are drawn, too, got a run under {inspection.objective.name} "
        "alone: rows and data are not checked one by one, a term of the guide that is no draw "
        "counts in the history's ELBO, and evaluation, which draws, fails",
        "let the code take any shape that leads the plates', in place of the ELBO's alone",
    )
    errors = False
    for rule in RULES:
        for finding in rule(inspection):
            errors |= finding.severity == "error"
            yield finding
    if not errors:
        yield from elbo_rules.under_elbo(inspection, inspection.batch)
