"""The linter's rule on guides that relax discrete latents, which they do in train mode alone.

All other rules run the pair in evaluation mode, where a relaxed guide draws discrete values.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pyro.poutine.trace_struct import Trace

from ppl_vae.core import sites
from ppl_vae.elbo.relaxations import relaxed_latents, traces_in_training
from ppl_vae.linting.inspection import Finding, Inspection, site_error


def traces_of_relaxed(inspection: Inspection) -> tuple[Trace, Trace] | None:
    """Return the pair's traces in train mode where its guide relaxes a latent there, else ``None``.

    The pair runs once more only where a discrete latent is drawn without a gradient. Call it
    outside ``Pair.quiet_run``.

    Args:
        inspection: The pair and its traces in evaluation mode.
    """
    drawn = [site for _, site in inspection.shared_latents().values()]
    if not any(sites.is_discrete(s) and not sites.is_reparameterized(s) for s in drawn):
        return None
    try:
        traces = traces_in_training(inspection.pair, inspection.batch)
    except Exception:  # the fit's first step raises it again, in the pair's own words
        return None
    return traces if relaxed_latents(*traces) else None


def relaxed_draws(model_trace: Trace, guide_trace: Trace) -> Iterator[Finding]:
    """Find relaxed draws that are not finite, or that the model's prior would read as discrete.

    Args:
        model_trace: Trace of the model in train mode.
        guide_trace: Trace of the guide in train mode.
    """
    for name in relaxed_latents(model_trace, guide_trace):
        site: sites.Site = model_trace.nodes[name]
        prior = type(site["fn"]).__name__
        if not bool(site["value"].isfinite().all()):
            yield site_error(
                name,
                "expected finite draws in train mode, got NaN or infinity from the relaxed guide",
                "keep the temperature a positive number, lowered by factors",
            )
            continue
        if bool(torch.as_tensor(site["fn"].support.check(site["value"])).all()):
            continue
        yield site_error(
            name,
            f"expected a prior that takes the guide's relaxed draws, got {prior}, which scores "
            "discrete values alone",
            "draw the latent from ppl_vae.distributions.CategoricalVector or BernoulliVector in "
            "the model, whose log-probabilities have a gradient at relaxed draws",
        )


def reason(model_trace: Trace, guide_trace: Trace) -> str:
    """Return in words that the training loss is no bound, for the history.

    Args:
        model_trace: Trace of the model in train mode.
        guide_trace: Trace of the guide in train mode.
    """
    (name, *_) = relaxed_latents(model_trace, guide_trace)
    return f'site "{name}" is relaxed in train mode: the trained objective is no bound'
