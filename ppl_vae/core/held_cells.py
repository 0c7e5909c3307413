"""Latents that hold the cells which an observed site hides.

    x_unobserved   of Pyro's ``obs_mask=``, beside the observed site x_observed
    a latent       of the observed site's shape, with a mask that is the opposite of the site's

A model has such a latent where other sites depend on missing cells, as on the reason for which
they are missing.
"""

from __future__ import annotations

from pyro.distributions import MaskedDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites


def holders(trace: Trace) -> dict[str, list[str]]:
    """Return the latents that hold the hidden cells of each observed site, ``{site: latents}``.

    Args:
        trace: A run of a model without particles.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> def model(x, seen):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("rest", dist.Normal(0.0, 1.0).expand([len(x)]).mask(~seen))
        ...         pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x)]).mask(seen), obs=x)
        >>> fields = torch.zeros(2), torch.tensor([True, False])
        >>> holders(pyro.poutine.trace(model).get_trace(*fields))
        {'x': ['rest']}
    """
    latents = sites.with_role(trace, "latent").items()
    found = {
        name: [latent for latent, other in latents if _holds(latent, other, name, site)]
        for name, site in sites.with_role(trace, "data").items()
    }
    return {name: names for name, names in found.items() if names}


def _holds(latent: str, other: sites.Site, name: str, site: sites.Site) -> bool:
    """Return whether a latent holds the hidden cells of an observed site.

    Args:
        latent: Name of the latent.
        other: The latent.
        name: Name of the observed site.
        site: The observed site.
    """
    if name.endswith("_observed") and latent == name.removesuffix("_observed") + "_unobserved":
        return True
    same = other["value"].shape == site["value"].shape and _has_mask(other)
    same = same and other["fn"].event_dim == site["fn"].event_dim
    return same and bool((sites.unmasked_cells(other) == ~sites.unmasked_cells(site)).all())


def _has_mask(site: sites.Site) -> bool:
    """Return whether a mask stands around a site, or inside its distribution."""
    fn = site["fn"]
    while hasattr(fn, "base_dist") and not isinstance(fn, MaskedDistribution):
        fn = fn.base_dist
    return isinstance(site["mask"], Tensor) or isinstance(fn, MaskedDistribution)
