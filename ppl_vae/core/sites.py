"""The one reader of traces: a pair and a batch in, sites with roles and log-probabilities out.

    log p(x, z) = sum over sites of log p(site given what it depends on)

Everything downstream asks here; nothing else knows a site's name or a distribution's class.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor
from torch.distributions import TransformedDistribution

from ppl_vae.compat import mask_of
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch

Site = Any  # a node of a trace: fn, value, mask, scale, infer, cond_indep_stack, ...


def traces(pair: Pair, batch: Batch) -> tuple[Trace, Trace]:
    """Traces of the guide and of the model replayed against it, as (model, guide)."""
    guide_trace = poutine.trace(pair.guide).get_trace(batch)
    model_trace = poutine.trace(poutine.replay(pair.model, trace=guide_trace)).get_trace(batch)
    return model_trace, guide_trace


def sample_sites(trace: Trace) -> dict[str, Site]:
    """The sample sites of a trace by name, without the plates' subsample sites."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def role(site: Site) -> str:
    """What a site is: data, latent, deterministic, factor or auxiliary."""
    if site["infer"].get("_deterministic"):
        return "deterministic"
    if site_is_factor(site):
        return "factor"
    if site["infer"].get("is_auxiliary"):
        return "auxiliary"
    return "data" if site["is_observed"] else "latent"


def with_role(trace: Trace, *roles: str) -> dict[str, Site]:
    """Sites of a trace that have one of the roles, in the order they ran."""
    return {name: site for name, site in sample_sites(trace).items() if role(site) in roles}


def plates(trace: Trace) -> dict[str, Any]:
    """Every plate's frame by name."""
    return {f.name: f for site in sample_sites(trace).values() for f in site["cond_indep_stack"]}


def full_site_name(trace: Trace, name: str) -> str:
    """The site that an observed piece belongs to: ``obs_mask`` makes "x_observed" of "x"."""
    base = name.removesuffix("_observed")
    return base if base in trace.nodes else name


def in_plate(site: Site, plate: str) -> bool:
    """Whether the site stands inside the plate."""
    return any(frame.name == plate for frame in site["cond_indep_stack"])


def is_enumerated(site: Site) -> bool:
    """Whether the site asks to be summed out."""
    return bool(site["infer"].get("enumerate"))


def is_reparameterized(site: Site) -> bool:
    """Whether gradients flow through the site's draw."""
    return bool(site["fn"].has_rsample)


def row_log_prob(site: Site) -> Tensor:
    """Unscaled log-probability of each row, masked cells left out: (rows,), in nats.

    The site must stand in the row plate, at dim -1.
    """
    log_prob: Tensor = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
    log_prob = log_prob.expand(site["fn"].batch_shape)
    return log_prob.flatten(0, -2).sum(0) if log_prob.ndim > 1 else log_prob


def unmasked_cells(site: Site) -> Tensor:
    """The cells of a site's value that no mask hides, whoever set it: bool, like the value."""
    value, fn = site["value"], site["fn"]
    masks = [(site["mask"], fn.event_dim)]
    while hasattr(fn, "base_dist") and not isinstance(fn, TransformedDistribution):
        if isinstance(fn, MaskedDistribution):
            masks.append((mask_of(fn), fn.event_dim))
        fn = fn.base_dist
    kept = torch.ones(value.shape, dtype=torch.bool, device=value.device)
    for mask, event_dim in masks:
        if mask is not None:
            cells = torch.as_tensor(mask, device=value.device)
            kept = kept & cells.reshape(cells.shape + (1,) * event_dim)
    return kept
