"""Reading traces: the sites of a pair, their roles, plates, masks and log-probabilities.

    log p(x, z) = sum over sites of log p(site given what it depends on)

A trace is Pyro's record of one run: a node for every sample statement. Other code reads traces
with these functions, so that no code depends on the name of a site or the class of a distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, ExpandedDistribution, Independent, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor
from torch.distributions import TransformedDistribution

from ppl_vae.compat.of_torch import mask_of
from ppl_vae.core import supports
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch

Site = Any  # a node of a trace: fn, value, mask, scale, infer, cond_indep_stack, ...


def traces(pair: Pair, batch: Batch) -> tuple[Trace, Trace]:
    """Run a pair on a batch and return its traces, as (model, guide).

    The guide runs first. The model is replayed: its latents take the guide's draws.
    """
    guide_trace = poutine.trace(pair.guide).get_trace(batch)
    model_trace = poutine.trace(poutine.replay(pair.model, trace=guide_trace)).get_trace(batch)
    return model_trace, guide_trace


def sample_sites(trace: Trace) -> dict[str, Site]:
    """Return the sample sites of a trace by name, without those that plates make to subsample."""
    samples = {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}
    return {name: site for name, site in samples.items() if not site_is_subsample(site)}


def role(site: Site) -> str:
    """Return the role of a site: "data", "latent", "deterministic", "factor" or "auxiliary"."""
    if site["infer"].get("_deterministic"):
        return "deterministic"
    if site_is_factor(site):
        return "factor"
    if site["infer"].get("is_auxiliary"):
        return "auxiliary"
    return "data" if site["is_observed"] else "latent"


def with_role(trace: Trace, *roles: str) -> dict[str, Site]:
    """Return the sites of a trace that have one of the roles, by name, in the order they ran."""
    return {name: site for name, site in sample_sites(trace).items() if role(site) in roles}


def plates(trace: Trace) -> dict[str, Any]:
    """Return the frames of all plates in a trace, by the plate's name."""
    return {f.name: f for site in sample_sites(trace).values() for f in site["cond_indep_stack"]}


def full_site_name(trace: Trace, name: str) -> str:
    """Return the name that the user gave to an observed site.

    ``pyro.sample("x", ..., obs_mask=...)`` makes a site "x_observed" for the observed cells and a
    deterministic site "x" for all cells. For "x_observed" the result is "x"; any other name is
    returned unchanged.
    """
    base = name.removesuffix("_observed")
    return base if base in trace.nodes else name


def in_plate(site: Site, plate: str) -> bool:
    """Return whether a site stands inside the plate of this name."""
    return any(frame.name == plate for frame in site["cond_indep_stack"])


def is_enumerated(site: Site) -> bool:
    """Return whether a discrete site asks to be summed out (``infer={"enumerate": ...}``)."""
    return bool(site["infer"].get("enumerate"))


def is_reparameterized(site: Site) -> bool:
    """Return whether gradients flow through the site's draw to its distribution's parameters."""
    return bool(site["fn"].has_rsample)


def is_discrete(site: Site) -> bool:
    """Return whether a site's values are discrete; no where its distribution does not know."""
    return supports.is_discrete(site["fn"])


def point_of(fn: Any) -> Delta | None:
    """Return the ``Delta`` that a distribution is, or has inside its wrappers; else ``None``."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn if isinstance(fn, Delta) else None


def log_prob(site: Site) -> Tensor:
    """Return a site's log-probability, in nats, without scales and with 0 in masked cells.

    The shape is that of the distribution's batch, or broadcasts to it.
    """
    return torch.as_tensor(scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"]))


def row_log_prob(site: Site) -> Tensor:
    """Return the log-probability of each row at a site, (rows,), in nats.

    The site's scale is not applied; masked cells count as 0. The site must stand in the row plate,
    at dim -1. Dimensions on its left (plates inside the rows) are summed.
    """
    by_plates = log_prob(site).expand(site["fn"].batch_shape)
    return by_plates.flatten(0, -2).sum(0) if by_plates.ndim > 1 else by_plates


def unmasked_cells(site: Site) -> Tensor:
    """Return which cells of a site's value no mask hides.

    A mask can stand in two places: around the site (``poutine.mask``), where Pyro stores it in
    the site, or inside the distribution (``.mask(...)``), in one of the wrappers around the basic
    distribution. A wrapper's mask has the wrapper's batch shape: its event dimensions are
    missing, so one answer holds for the whole event. Wrappers are opened from the outside in, and
    each mask is expanded over the event dimensions at its own depth. The search ends at a
    transformed distribution, whose base has other cells than the value.

    Returns:
        (...) of bool, shaped like the value.
    """
    value, fn = site["value"], site["fn"]
    masks = [(site["mask"], fn.event_dim)]
    while hasattr(fn, "base_dist") and not isinstance(fn, TransformedDistribution):
        if isinstance(fn, MaskedDistribution):
            masks.append((mask_of(fn), fn.event_dim))
        fn = fn.base_dist
    unmasked = torch.ones(value.shape, dtype=torch.bool, device=value.device)
    for mask, event_dim in masks:
        if mask is not None:
            cells = torch.as_tensor(mask, device=value.device)
            unmasked = unmasked & cells.reshape(cells.shape + (1,) * event_dim)
    return unmasked
