"""The factors of an importance weight, and the names of their dimensions where latents are summed.

    p(x, y, z) / q(y, z given x)        a factor: the probability of one site, above or below

``elbo.enumerated`` says how Pyro lays the values of an enumerated latent out, and why dimensions
need names (symbols).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from pyro.ops import packed
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.compat.of_pyro import named_dims
from ppl_vae.core import sites
from ppl_vae.core.handlers import Particles

SUMMED = "_summed_one_by_one"  # entry of ``infer`` where a run has one value of a summed latent
Packed = Any  # a tensor whose attribute _pyro_dims holds one symbol for each dimension


class OutsidePlateError(ValueError):
    """Raised where a site depends on a summed latent but stands outside one of its plates."""


class Factor(NamedTuple):
    """One factor of the importance weight p(x, z) / q(z given x).

    Attributes:
        site: The site whose log-probability is meant.
        sign: 1 where the site's probability multiplies the weight (the model's sites), -1 where it
            divides the weight (the guide's draws).
    """

    site: sites.Site
    sign: int


def was_enumerated(site: sites.Site) -> bool:
    """Return whether Pyro enumerated the site in this run (it gave the site all of its values)."""
    return site["infer"].get("_enumerate_dim") is not None


def was_summed(site: sites.Site) -> bool:
    """Return whether a sum over the site's values was asked for, in parallel or one by one."""
    return was_enumerated(site) or bool(site["infer"].get(SUMMED))


def factor_log_prob(site: sites.Site) -> Tensor:
    """Return a site's log-probability, in nats, with 0 in masked cells unless the site is summed.

    A mask is ignored on a summed latent, so that its probabilities still sum to 1: a masked latent
    would count 0 nats for each of its K values, and the sum over them would add log K.
    """
    if was_summed(site):
        return torch.as_tensor(site["fn"].log_prob(site["value"]))
    return sites.log_prob(site)


def enumerated_names(trace: Trace) -> set[str]:
    """Return the names of the sites of a trace that Pyro enumerated in this run."""
    return {name for name, site in sites.sample_sites(trace).items() if was_enumerated(site)}


def total(parts: list[Tensor]) -> Tensor:
    """Add tensors of shape (particles or 1, rows), broadcast against each other."""
    return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


def refuse_kl_weight(kl_weight: Tensor | None) -> None:
    """Raise ``ValueError`` for a KL weight other than ``None`` where latents are summed."""
    if kl_weight is not None:
        raise ValueError(
            "kl_weight: expected 1 under a bound that sums latents inside its logarithm, where "
            "p(z) and q(z given x) have no terms of their own; use RowELBO or TraceEnum_ELBO"
        )


def missing_plates(
    model_trace: Trace, guide_trace: Trace, factors: list[Factor]
) -> Iterator[tuple[str, str, str]]:
    """Yield the factors that depend on an enumerated latent outside one of the latent's plates.

    A latent in a plate has as many values at once as the plate has places, and a sum over all their
    combinations would be needed where a site outside the plate depends on all of them. Pyro lays
    out only the combinations in which all places have the same value, K of K^places. So nothing
    outside the plate may depend on the latent. A plate with a single place does no harm.

    Args:
        model_trace: Trace of the model, whose dimensions have symbols.
        guide_trace: Trace of the guide, whose dimensions have symbols.
        factors: Factors of the importance weight, in the row plate or outside it.

    Yields:
        The name of the factor's site, of the latent, and of the first plate that is missing.
    """
    latents: dict[str, sites.Site] = {
        latent_symbol(trace, name): trace.nodes[name]
        for trace in (guide_trace, model_trace)
        for name in enumerated_names(trace)
    }
    for factor in factors:
        own_plates = {frame.name for frame in factor.site["cond_indep_stack"]}
        for symbol in named_dims(packed_factor(factor)):
            if symbol in latents:
                for frame in latents[symbol]["cond_indep_stack"]:
                    if frame.size != 1 and frame.name not in own_plates | {Particles.NAME}:
                        yield factor.site["name"], latents[symbol]["name"], str(frame.name)
                        break


def plate_fault(latent: str, plate: str) -> tuple[str, str]:
    """Return what is wrong where ``missing_plates`` finds a factor, and what to change.

    Args:
        latent: Name of the enumerated latent.
        plate: Name of the plate that the factor is missing from.
    """
    return (
        f'expected a site that depends on the summed latent "{latent}" to stand in all plates of '
        f'that latent, got none of "{plate}": the sum leaves out all values but those that are '
        "equal throughout the plate",
        f'put the site into plate "{plate}", write a site for each place of the plate, or draw '
        f'"{latent}" in the guide',
    )


def latent_symbol(trace: Trace, name: str) -> str:
    """Return the symbol of the dimension along which the values of an enumerated site lie."""
    site: sites.Site = trace.nodes[name]
    return str(site["infer"]["_enumerate_symbol"])


def packed_factor(factor: Factor) -> Packed:
    """Return a factor's log-probability times its sign, with a symbol for every dimension."""
    log_prob = factor.sign * factor_log_prob(factor.site)
    return packed.pack(log_prob, factor.site["infer"]["_dim_to_symbol"])
