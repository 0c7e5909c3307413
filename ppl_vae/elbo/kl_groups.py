"""KL divergences of parts of the latents, which free bits act on.

    KL_g = mean over particles and rows of log q(z_g given x) - log p(z_g),    g a group

A latent whose dimensions are independent under the prior and under the guide has a group for each
dimension; any other latent is one group.

Source: Kingma et al. (2016), appendix C.8, arXiv:1606.04934.
"""

from __future__ import annotations

import torch
from pyro.distributions import Independent
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.core import sites
from ppl_vae.elbo.objectives import closed_forms
from ppl_vae.elbo.weights import Draw


def kl_groups(draws: list[Draw]) -> Tensor:
    """Return the KL divergence of every group of the row latents, averaged: (groups,), in nats.

    Args:
        draws: The runs of the pair that draw all particles; none joins several sites in one term.
    """
    first = draws[0]
    groups = []
    for names in first.terms():
        name = names[0]
        site = first.guide_trace.nodes.get(name) or first.model_trace.nodes[name]
        if not site["is_observed"] and sites.in_plate(site, first.plate):
            groups.append(torch.stack([_latent_groups(draw, name) for draw in draws]).mean(0))
    return torch.cat(groups) if groups else torch.zeros(0)


def _latent_groups(draw: Draw, name: str) -> Tensor:
    """Return the KL divergences of one latent in one run, (groups,).

    The groups are the latent's dimensions, and those of plates inside the rows, where they are
    independent: where prior and guide are both ``Independent`` over as many dimensions. Otherwise
    there is one group, (1,).
    """
    model_site: sites.Site = draw.model_trace.nodes[name]
    guide_site: sites.Site = draw.guide_trace.nodes.get(name)
    fns = [site["fn"] for site in (model_site, guide_site) if site is not None]
    independent = all(isinstance(fn, Independent) for fn in fns) and not draw.has_enumerated
    if (
        guide_site is None
        or not independent
        or len({fn.reinterpreted_batch_ndims for fn in fns}) > 1
    ):
        return -draw.terms()[(name,)].mean().reshape(1)
    prior, posterior = (fn.base_dist for fn in fns)
    if name in closed_forms(draw.model_trace, draw.guide_trace):
        kl = kl_divergence(posterior, prior)
    else:
        value = guide_site["value"]
        kl = posterior.log_prob(value) - prior.log_prob(value)
    event_dim: int = fns[0].reinterpreted_batch_ndims
    mask = guide_site["mask"]
    if isinstance(mask, Tensor):
        mask = mask.reshape(*mask.shape, *(1,) * event_dim)
    kl = torch.as_tensor(scale_and_mask(kl, mask=mask))
    has_particles = draw.dim is not None and kl.ndim - event_dim >= -draw.dim
    kl = kl.mean(-1 - event_dim)  # over the rows
    return (kl.mean(0) if has_particles else kl).flatten()
