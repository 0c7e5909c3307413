"""One run of a pair with particles: importance weights of every row, and the ELBO site by site.

    z_p ~ q(z given x)                                        p = 1 ... P particles
    log w_p = log p(x, z_p) - log q(z_p given x)              (particles, rows), in nats
    ELBO    = E[log w] = E[log p(x given z)] - KL(q(z given x), p(z))

Log-probabilities are unscaled, and masked cells add 0. A latent that the guide does not draw comes
from the model itself: its probability stands above and below the fraction, and it adds nothing.
Discrete latents that ask to be summed are summed exactly, inside the logarithm (``enumerated``).

A latent outside the row plate is drawn once for a particle, and all rows share it. A row's weight
is then conditional on the latent, and the latent's own terms stand apart (``Draw.global_terms``).

Source: Kingma & Welling (2014), appendix D, arXiv:1312.6114.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from pyro.distributions import Delta, Independent
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.handlers import scale_of_plates
from ppl_vae.elbo.enumerated import EnumeratedSum
from ppl_vae.elbo.factors import (
    Factor,
    enumerated_names,
    factor_log_prob,
    missing_plates,
    refuse_kl_weight,
    total,
    was_summed,
)
from ppl_vae.elbo.objectives import closed_form_kl, closed_forms


@dataclass(frozen=True)
class Draw:
    """The two traces of one run of a pair, and the weights and ELBO terms that follow from them.

    Attributes:
        model_trace: Trace of the model, replayed on the guide's draws.
        guide_trace: Trace of the guide.
        plate: Name of the row plate.
        dim: The particles' dimension, counted from the right (negative); ``None`` for a run of one
            particle, which has no such dimension.
        rows: Rows of the batch.
        excluded: Sites of the guide that are no part of the density of its draws
            (``training_terms``), and so no part of a weight.
    """

    model_trace: Trace
    guide_trace: Trace
    plate: str
    dim: int | None
    rows: int
    excluded: frozenset[str] = frozenset()

    @property
    def has_enumerated(self) -> bool:
        """Whether a latent was enumerated in this run, so that sums over its values are needed."""
        return bool(enumerated_names(self.model_trace) | enumerated_names(self.guide_trace))

    @property
    def draws_nothing(self) -> bool:
        """Whether no latent was drawn in this run, so that all particles have the same weight."""
        return not self._drawn()

    @property
    def draws_discrete(self) -> bool:
        """Whether a discrete site in the row plate was drawn in this run, and not enumerated."""
        drawn = [site for site in self._drawn() if sites.in_plate(site, self.plate)]
        return any(sites.is_discrete(site) for site in drawn)

    def without_gradient(self) -> dict[str, sites.Site]:
        """Return the guide's draws that no gradient flows through, by name."""
        drawn = sites.with_role(self.guide_trace, "latent", "auxiliary")
        return {
            name: site
            for name, site in drawn.items()
            if not (site["is_observed"] or was_summed(site) or sites.is_reparameterized(site))
        }

    def log_prob_of(self, site: sites.Site) -> Tensor:
        """Return the log-probability of a row's site, (particles or 1, rows), in nats."""
        return self.fold(self._log_prob(site), site["fn"])

    def _drawn(self) -> list[sites.Site]:
        """Return the latent and auxiliary sites of this run that were not enumerated."""
        return [
            site
            for trace in (self.model_trace, self.guide_trace)
            for site in sites.with_role(trace, "latent", "auxiliary").values()
            if not was_summed(site)
        ]

    def log_weights(self, kl_weight: Tensor | None = None, *, fixed_guide: bool = False) -> Tensor:
        """Return the log importance weight of every particle for every row, in nats.

        Args:
            kl_weight: Factor, a scalar, on log p(z) - log q(z given x); ``None`` is 1.
            fixed_guide: Whether log q(z given x) is a constant, through which no gradient flows.

        Returns:
            (particles, rows); (1, rows) where nothing was drawn in the row plate, so that all
            particles have the same weight.

        Raises:
            ValueError: If no site stands in the row plate, or a KL weight meets an enumerated
                latent.
        """
        if self.has_enumerated:
            refuse_kl_weight(kl_weight)
            return self.enumerated().log_weights()
        parts = []
        for site, sign in self._factors():
            if sites.in_plate(site, self.plate):
                part = sign * self.log_prob_of(site)
                part = part.detach() if fixed_guide and sign < 0 else part
                weight = 1.0 if kl_weight is None or site["is_observed"] else kl_weight
                parts.append(weight * part)
        if not parts:
            raise ValueError(
                f'plate "{self.plate}": expected sites in the row plate, found none; open it in '
                "the model, or pass its name as plate="
            )
        return total(parts)

    def log_ratios(self) -> Tensor:
        """Return the terms whose average over particles is the ELBO of a row, (particles, rows).

        They are the log-weights themselves, the very tensor, unless a latent is enumerated: then a
        log-weight is log sum_y, and the ELBO's term is the expectation over q(y given x).
        """
        log_weights = self.log_weights()
        if not self.has_enumerated:
            return log_weights
        return total(list(self.terms(closed=False).values())).expand_as(log_weights)

    def terms(self, *, closed: bool = True) -> dict[tuple[str, ...], Tensor]:
        """Return the ELBO's terms for the sites in the row plate: they add up to the row's ELBO.

        The term of an observed site is its log-probability. The term of a latent is log p - log q,
        or minus its KL divergence in closed form. Where the guide enumerates a latent, a term is
        its expectation over the latent's values.

        Args:
            closed: Whether a KL divergence with a closed form replaces log p - log q.

        Returns:
            ``{names of sites: (particles or 1, rows)}``, in nats, latents first. A key holds one
            name; it holds several where the model alone enumerates a latent, whose sum joins the
            latent and all that follows it into one term.

        Raises:
            ValueError: If an enumerated latent stands outside the row plate.
        """
        if self.has_enumerated:
            return self.enumerated().terms()
        terms = {name: term for (name,), term in self.closed_terms().items()} if closed else {}
        exact = set(terms)
        for site, sign in self._factors():
            name = sites.full_site_name(self.model_trace, site["name"])
            if name not in exact and sites.in_plate(site, self.plate):
                part = sign * self.log_prob_of(site)
                terms[name] = terms[name] + part if name in terms else part
        return {(name,): terms[name] for name in self._names_latents_first() if name in terms}

    def log_likelihoods(self) -> Tensor:
        """Return log p(x given z) of every particle for every row, (particles or 1, rows), in nats.

        A latent that is summed is summed here, too: with the guide's probabilities of its values,
        or, where the model alone has it, with the model's.

        Raises:
            ValueError: If an enumerated latent stands outside the row plate.
        """
        if self.has_enumerated:
            return self.enumerated().log_likelihoods()
        observed = sites.with_role(self.model_trace, "data", "factor").values()
        in_rows = [site for site in observed if sites.in_plate(site, self.plate)]
        return total([self.log_prob_of(site) for site in in_rows])

    def is_likelihood(self, names: tuple[str, ...]) -> bool:
        """Return whether one of the sites, as in a key of ``terms``, is observed or a factor."""
        roles = {sites.role(self.model_trace.nodes[n]) for n in names if n in self.model_trace}
        return bool(roles & {"data", "deterministic", "factor"})

    def global_terms(self) -> dict[str, Tensor]:
        """Return the ELBO's terms for the sites outside the row plate.

        Returns:
            ``{site: tensor}``, in nats, not divided by the number of rows. Each tensor is
            (particles,), or (1,) if all particles share the term. The term of a latent is
            log p - log q, that of an observed site log p.
        """
        terms: dict[str, Tensor] = {}
        for site, sign in self._factors():
            if not sites.in_plate(site, self.plate):
                value = self._log_prob(site).expand(site["fn"].batch_shape)
                others = [dim for dim in range(-value.ndim, 0) if dim != self.dim]
                value = sign * (value.sum(others) if others else value)
                terms[site["name"]] = terms.get(site["name"], 0) + value.flatten()
        return terms

    def latents_of_auxiliaries(self) -> dict[str, str]:
        """Return which latent of the model an auxiliary draw of the guide becomes, by their names.

        An autoguide draws a number without bounds, an auxiliary site, and then sets the latent: a
        ``Delta`` at a function of the number, whose log-density is the change of variables. The
        terms of both sites together are the latent's log p - log q. An auxiliary draw is left out
        where other than one ``Delta`` follows it, as where all latents are parts of one draw.
        """
        latents = {}
        drawn = list(sites.with_role(self.guide_trace, "latent", "auxiliary").items())
        for position, (name, site) in enumerate(drawn, 1):
            after = list(takewhile(lambda item: isinstance(item[1]["fn"], Delta), drawn[position:]))
            in_rows = {sites.in_plate(each, self.plate) for each in (site, *dict(after).values())}
            if sites.role(site) == "auxiliary" and len(after) == len(in_rows) == 1:
                latents[name] = after[0][0]
        return latents

    def enumerated(self) -> EnumeratedSum:
        """Return the sums over the values of the enumerated latents of this run."""
        factors = list(self._factors())
        for site, _ in factors:
            if scale_of_plates(site, without=self.plate) != 1:
                raise ValueError(
                    f'site "{site["name"]}": expected no subsampling plate beside an enumerated '
                    "latent, whose sum has no scale for its parts; open the plate with its full "
                    "size, or draw the latent"
                )
        return EnumeratedSum(self.model_trace, self.guide_trace, self.plate, self.rows, factors)

    def missing_plates(self) -> Iterator[tuple[str, str, str]]:
        """Yield the sites outside a plate of a summed latent that they depend on.

        Yields:
            The names of the site, of the latent and of the plate; see
            ``elbo.factors.missing_plates``.
        """
        self.guide_trace.symbolize_dims()
        self.model_trace.symbolize_dims(self.guide_trace.plate_to_symbol)
        yield from missing_plates(self.model_trace, self.guide_trace, list(self._factors()))

    def closed_terms(self) -> dict[tuple[str, ...], Tensor]:
        """Return minus the KL divergence of each row latent that has one in closed form.

        The keys are those of ``terms``.
        """
        terms: dict[tuple[str, ...], Tensor] = {}
        for name in closed_forms(self.model_trace, self.guide_trace):
            guide_site: sites.Site = self.guide_trace.nodes[name]
            model_site: sites.Site = self.model_trace.nodes[name]
            if sites.in_plate(guide_site, self.plate):
                kl = closed_form_kl(guide_site["fn"], model_site["fn"], guide_site["value"].device)
                scale = scale_of_plates(guide_site, without=self.plate)
                masked = scale_and_mask(kl, scale, mask=guide_site["mask"])
                terms[name,] = -self.fold(masked, guide_site["fn"])
        return terms

    def _log_prob(self, site: sites.Site) -> Tensor:
        """Return a site's log-probability, in nats, for all places of plates that subsample.

        The places that a subsampling plate has drawn stand for all of its places, as in Pyro's
        ELBOs; the row plate is left out, because every row counts for itself.
        """
        scale = scale_of_plates(site, without=self.plate)
        log_prob = factor_log_prob(site)
        return log_prob if scale == 1 else log_prob * scale

    def _names_latents_first(self) -> list[str]:
        """Return the names of all sites of both traces, the likelihoods after the latents."""
        all_sites = {**sites.sample_sites(self.guide_trace), **sites.sample_sites(self.model_trace)}
        likelihoods = ("data", "deterministic")  # "x" of an ``obs_mask`` is deterministic
        return sorted(all_sites, key=lambda name: sites.role(all_sites[name]) in likelihoods)

    def _factors(self) -> Iterator[Factor]:
        """Yield the factors of the weight: sites of the model above, draws of the guide below.

        A latent that the guide does not draw is left out: its probability cancels. So are
        deterministic sites, and what the guide observes. A ``pyro.factor`` of the guide counts as
        part of the density of its draws, as in Pyro, unless its value depends on no draw.

        Raises:
            ValueError: If the guide draws a latent that the model does not have.
        """
        in_model = sites.sample_sites(self.model_trace)
        in_guide = sites.sample_sites(self.guide_trace)
        enumerated = enumerated_names(self.model_trace)
        for name, site in in_model.items():
            proposed = site["is_observed"] or name in in_guide or name in enumerated
            if proposed and sites.role(site) != "deterministic":
                yield Factor(site, 1)
        for name, site in in_guide.items():
            if name in self.excluded or sites.role(site) == "deterministic":
                continue
            if sites.role(site) != "factor":
                if site["is_observed"]:
                    continue
                if name not in in_model:
                    self._check_auxiliary(name)
            yield Factor(site, -1)

    def _check_auxiliary(self, name: str) -> None:
        """Raise if a draw of the guide alone does not make up a latent of the model.

        An autoguide draws one auxiliary site and sets the model's latents as functions of it, as
        ``Delta`` sites whose log-density holds the change of variables. Any other draw that the
        model does not have would divide the weight by its density with nothing above the fraction.
        """
        in_guide = sites.sample_sites(self.guide_trace)
        auxiliary = sites.role(in_guide[name]) == "auxiliary"
        if not (auxiliary and any(isinstance(site["fn"], Delta) for site in in_guide.values())):
            raise ValueError(
                f'site "{name}": expected the guide to draw latents of the model, got a draw that '
                "the model does not have, so that the weights would be divided by its density "
                "alone; draw it in the model too"
            )

    def fold(self, values: Tensor, fn: Any) -> Tensor:
        """Sum over all dimensions but particles and rows: (particles or 1, rows).

        Args:
            values: Log-probabilities of a site in the row plate, broadcastable to its batch shape.
            fn: The site's distribution.
        """
        values = values.expand(fn.batch_shape)
        has_particles = self.dim is not None and values.ndim >= -self.dim
        particles = values.shape[0] if has_particles else 1
        return values.reshape(particles, -1, values.shape[-1]).sum(1)


def kl_groups(draws: list[Draw]) -> Tensor:
    """Return the KL divergence of every group of the row latents, averaged: (groups,), in nats.

        KL_g = mean over particles and rows of log q(z_g given x) - log p(z_g),    g a group

    A latent whose dimensions are independent under the prior and under the guide has a group for
    each dimension; any other latent is one group. Free bits act on these groups.

    Source: Kingma et al. (2016), appendix C.8, arXiv:1606.04934.

    Args:
        draws: The runs of the pair that draw all particles; none joins several sites in one term.
    """
    first = draws[0]
    groups = []
    for names in first.terms():
        name = names[0]
        site = first.guide_trace.nodes.get(name) or first.model_trace.nodes[name]
        if not site["is_observed"] and sites.in_plate(site, first.plate):
            groups.append(torch.stack([latent_groups(draw, name) for draw in draws]).mean(0))
    return torch.cat(groups) if groups else torch.zeros(0)


def latent_groups(draw: Draw, name: str) -> Tensor:
    """Return the KL divergences of one latent in one run, averaged over the rows: (groups,).

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
        kl = closed_form_kl(posterior, prior, guide_site["value"].device)
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
