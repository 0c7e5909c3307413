"""Bounds formed row by row, beside Pyro's ELBOs: importance-weighted, and with other gradients.

    IWAE_P  = E log 1/P sum_p w_p,   w_p = p(x, z_p) / q(z_p given x),   z_p ~ q(z given x)
    ELBO    = E 1/P sum_p log w_p = IWAE_1 <= IWAE_P <= IWAE_(P + 1) <= log p(x)

A batch of B rows out of N stands for all with N/B times the sum of its rows' bounds: the factor is
outside the logarithm. A KL weight multiplies log p(z) - log q(z given x) within the weight. Latents
outside the row plate are drawn once for all particles, and their own terms are added to the bound.
Discrete latents that ask for it (``infer={"enumerate": "parallel"}``) are summed exactly.

Sources: Burda, Grosse & Salakhutdinov (2016), section 3, arXiv:1509.00519; Tucker et al. (2019),
section 4, arXiv:1810.04152 (doubly reparameterized gradient); Roeder, Wu & Duvenaud (2017),
section 4, arXiv:1703.09194 (sticking the landing); Kingma et al. (2016), appendix C.8,
arXiv:1606.04934 (free bits).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import torch
from pyro.distributions import Independent
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.core import sites
from ppl_vae.core.blocks import PROBE_ROWS
from ppl_vae.core.handlers import DetachedDraws, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, map_batch
from ppl_vae.elbo.objectives import RowBound, closed_forms
from ppl_vae.elbo.weights import Draw, can_vectorize, draw_particles, plate_nesting


class _Particles(RowBound):
    """What the bounds share: particles, and rows that stand for a data set.

    Args:
        num_particles: P, draws of the guide for each row.
        vectorize_particles: Whether they are drawn in one run, which asks the networks to act on
            the last dimensions alone; else in P runs.
    """

    def __init__(self, num_particles: int, *, vectorize_particles: bool) -> None:
        whole = isinstance(num_particles, Integral) and not isinstance(num_particles, bool)
        if not whole or num_particles < 1:
            raise ValueError(
                f"num_particles: expected a whole number of at least 1, got {num_particles!r}"
            )
        self.num_particles, self.vectorize_particles = int(num_particles), vectorize_particles
        self._nesting: int | None = None

    def draws(self, pair: Pair, batch: Batch, leaves: DetachedDraws | None = None) -> list[Draw]:
        """Runs of the pair: one with all particles, or one for each."""
        if self._nesting is None:
            self._nesting = self._probed(pair, batch)
        nesting = self._nesting
        if self.vectorize_particles:
            count = self.num_particles
            found = [
                draw_particles(
                    pair, batch, count=count, nesting=nesting, shared=True, handler=leaves
                )
            ]
        else:
            found = [draw_particles(pair, batch, count=None, nesting=nesting, handler=leaves)]
            outside = {
                name: site["value"]
                for name, site in sites.sample_sites(found[0].guide_trace).items()
                if not sites.in_plate(site, pair.plate)
            }
            for _ in range(1, self.num_particles):
                again = Substitute(outside)
                found.append(
                    draw_particles(pair, batch, count=None, nesting=nesting, handler=again)
                )
        self._check(found[0])
        if leaves is not None and found[0].is_summed:
            raise ValueError(
                f"{type(self).__name__}: expected no latent that is summed under this gradient, "
                "which knows draws alone; leave doubly_reparameterized and sticking_the_landing off"
            )
        return found

    def _probed(self, pair: Pair, batch: Batch) -> int:
        """How deep plates nest; raises where particles cannot be drawn in one run."""
        nesting = plate_nesting(pair, batch)
        if self.vectorize_particles and self.num_particles > 1:
            few = map_batch(batch, lambda field: field[:PROBE_ROWS])
            with pair.quiet_run():
                sound = can_vectorize(pair, few, nesting)
            if not sound:
                raise ValueError(
                    "expected networks that act on the last dimensions alone, so that particles "
                    "are drawn in one run, got others (batch normalization, convolutions, a view); "
                    f"pass {type(self).__name__}(..., vectorize_particles=False)"
                )
        return nesting

    def _check(self, first: Draw) -> None:
        """Raise where a site's gradient would be dropped, or its own scale."""
        for trace in (first.model_trace, first.guide_trace):
            for name, site in sites.sample_sites(trace).items():
                scale = site["scale"]
                for frame in site["cond_indep_stack"]:
                    scale = scale * frame.size / (frame.full_size or frame.size)
                if isinstance(scale, Tensor) or not math.isclose(scale, 1.0):
                    raise ValueError(
                        f'site "{name}": expected no poutine.scale under {type(self).__name__}, '
                        "whose logarithm is taken of unscaled weights; use kl_weight="
                    )
        for name, site in sites.sample_sites(first.guide_trace).items():
            summed = site["infer"].get("_enumerate_dim") is not None
            if not (site["is_observed"] or summed or sites.is_reparameterized(site)):
                raise ValueError(
                    f'site "{name}": expected a reparameterized draw under {type(self).__name__}, '
                    f"got {type(site['fn']).__name__}; sum it with "
                    'infer={"enumerate": "parallel"}, or use TraceGraph_ELBO'
                )

    @staticmethod
    def _outside(draws: list[Draw], kl_weight: Tensor | None) -> tuple[Tensor | float, ...]:
        """Terms of latents outside the row plate, unweighted and weighted."""
        total: Tensor | float = 0.0
        weighted: Tensor | float = 0.0
        observed = {
            n for n, s in sites.sample_sites(draws[0].model_trace).items() if s["is_observed"]
        }
        for name, term in draws[0].global_terms().items():
            total = total + term.mean()
            factor = 1.0 if kl_weight is None or name in observed else kl_weight
            weighted = weighted + factor * term.mean()
        return total, weighted


class IWAE(_Particles):
    """The importance-weighted bound; tighter than the ELBO, and tighter with more particles.

    A latent that is summed in the guide is summed within the weight, where its own probability
    under the guide cancels: nothing trains that part of the guide (``RowELBO`` does).

    Args:
        num_particles: P, draws of the guide for each row.
        doubly_reparameterized: Use the gradient of Tucker et al., whose signal for the guide does
            not fade as P grows.
        vectorize_particles: Whether particles are drawn in one run, which asks the networks to act
            on the last dimensions alone; else in P runs.

    Raises:
        ValueError: Where P is not at least 1.

    Example:
        >>> from ppl_vae import fit
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.rand(100, 8).bernoulli()
        >>> pair = BernoulliModel(8), NormalGuide(8)
        >>> fit(*pair, x, elbo=IWAE(5), epochs=1, progress=False).objective
        'IWAE'
    """

    def __init__(
        self,
        num_particles: int,
        *,
        doubly_reparameterized: bool = False,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles)
        if doubly_reparameterized and not vectorize_particles:
            raise ValueError("vectorize_particles: expected True with doubly_reparameterized")
        self.doubly_reparameterized = doubly_reparameterized

    def loss_and_surrogate(
        self, pair: Pair, batch: Batch, rows: int, kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Loss at a KL weight of 1, and what is differentiated: two scalars, in nats."""
        doubly = self.doubly_reparameterized and torch.is_grad_enabled()
        leaves = DetachedDraws(pair.plate) if doubly else None
        draws = self.draws(pair, batch, leaves)
        factor = rows / draws[0].rows
        outside, weighted_outside = self._outside(draws, kl_weight)
        plain = torch.cat([d.log_weights() for d in draws])  # (particles, rows)
        weighted = plain
        if kl_weight is not None:
            weighted = torch.cat([d.log_weights(kl_weight) for d in draws])
        loss = -factor * _log_mean(plain).sum() - outside
        if leaves is None:
            return loss, -factor * _log_mean(weighted).sum() - weighted_outside
        share = weighted.softmax(0).detach()
        weight = 1.0 if kl_weight is None else kl_weight
        kept = 1 - weight + weight * share  # of the slope that reaches a draw
        path = _path(_log_mean(weighted).sum(), leaves, kept, draws[0])
        direct = (share * draws[0].log_weights(kl_weight, fixed=True)).sum()
        return loss, -factor * (direct + path) - weighted_outside


class RowELBO(_Particles):
    """The ELBO formed row by row, for what Pyro's do not have.

    Args:
        num_particles: Draws of the guide for each row.
        sticking_the_landing: Leave the guide's score out of the gradient, whose variance then
            vanishes as the guide nears the posterior.
        free_bits: Nats of KL divergence, averaged over the batch's rows, that cost nothing: for
            every dimension of a latent with independent dimensions, else for the whole latent. The
            loss that is reported is without them.
        vectorize_particles: Whether particles are drawn in one run, which asks the networks to act
            on the last dimensions alone; else in as many runs.

    Raises:
        ValueError: Where free bits are negative, or wanted together with sticking the landing.

    Example:
        >>> from ppl_vae import fit
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.rand(100, 8).bernoulli()
        >>> pair = BernoulliModel(8), NormalGuide(8)
        >>> fit(*pair, x, elbo=RowELBO(free_bits=0.1), epochs=1, progress=False).objective
        'RowELBO'
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        sticking_the_landing: bool = False,
        free_bits: float = 0.0,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles)
        number: object = free_bits
        if not isinstance(number, Real) or not 0 <= free_bits < math.inf:
            raise ValueError(f"free_bits: expected nats, at least 0, got {free_bits!r}")
        if free_bits and sticking_the_landing:
            raise ValueError("free_bits: expected 0 with sticking_the_landing; choose one")
        if sticking_the_landing and not vectorize_particles:
            raise ValueError("vectorize_particles: expected True with sticking_the_landing")
        self.sticking_the_landing: bool = sticking_the_landing
        self.free_bits: float = float(free_bits)

    def loss_and_surrogate(
        self, pair: Pair, batch: Batch, rows: int, kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Loss at a KL weight of 1, and what is differentiated: two scalars, in nats."""
        sticking = self.sticking_the_landing and torch.is_grad_enabled()
        leaves = DetachedDraws(pair.plate) if sticking else None
        draws = self.draws(pair, batch, leaves)
        factor = rows / draws[0].rows
        outside, weighted_outside = self._outside(draws, kl_weight)
        likelihood, divergence = self._halves(draws, kl_weight)
        loss = -factor * (likelihood - divergence).mean(0).sum() - outside
        weight = 1.0 if kl_weight is None else kl_weight
        if leaves is not None:
            weighted = draws[0].log_weights(kl_weight)
            share = torch.full_like(weighted, 1 / self.num_particles)
            path = _path(weighted.mean(0).sum(), leaves, None, draws[0])
            direct = (share * draws[0].log_weights(kl_weight, fixed=True)).sum()
            return loss, -factor * (direct + path) - weighted_outside
        if self.free_bits:
            groups = torch.cat(list(self._groups(draws)))
            divergences = rows * groups.clamp(min=self.free_bits).sum()
        else:
            divergences = factor * divergence.mean(0).sum()
        surrogate = weight * divergences - factor * likelihood.mean(0).sum() - weighted_outside
        return loss, surrogate

    def _halves(self, draws: list[Draw], kl_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-likelihood and KL divergence, (particles, rows) each."""
        likelihoods, divergences = [], []
        for one in draws:
            observed = sites.with_role(one.model_trace, "data", "factor", "deterministic")
            terms = one.terms(closed=not self.sticking_the_landing)
            joined = [name for name in terms if " + " in name]
            if joined and (kl_weight is not None or self.free_bits):
                raise ValueError(
                    f"kl_weight, free_bits: {joined[0]} are summed together in the model, so that "
                    "their KL has no term of its own; sum the latent in the guide"
                )
            zero = torch.zeros_like(next(iter(terms.values())))
            ours = [t for n, t in terms.items() if n in observed or n in joined]
            rest = [-t for n, t in terms.items() if n not in observed and n not in joined]
            likelihoods.append(torch.stack(torch.broadcast_tensors(zero, *ours)).sum(0))
            divergences.append(torch.stack(torch.broadcast_tensors(zero, *rest)).sum(0))
        return torch.cat(torch.broadcast_tensors(*likelihoods)), torch.cat(divergences)

    def _groups(self, draws: list[Draw]) -> Iterator[Tensor]:
        """For every latent, KL divergences averaged over particles and rows, (groups,)."""
        first = draws[0]
        for name in first.terms():
            site = first.guide_trace.nodes.get(name) or first.model_trace.nodes[name]
            if site["is_observed"] or not sites.in_plate(site, first.plate):
                continue
            yield torch.stack([_divergences(one, name) for one in draws]).mean(0)


def _divergences(one: Draw, name: str) -> Tensor:
    """KL divergences of one latent averaged over particles and rows: of its dimensions (and those
    of plates within), (groups,), where they are independent; else of the whole, (1,).
    """  # noqa: D205  one sentence
    ours: sites.Site = one.model_trace.nodes[name]
    theirs: sites.Site = one.guide_trace.nodes.get(name)
    fns = [site["fn"] for site in (ours, theirs) if site is not None]
    apart = all(isinstance(fn, Independent) for fn in fns) and not one.is_summed
    if theirs is None or not apart or len({fn.reinterpreted_batch_ndims for fn in fns}) > 1:
        return -one.terms()[name].mean().reshape(1)
    p, q = (fn.base_dist for fn in fns)
    if name in closed_forms(one.model_trace, one.guide_trace):
        each = kl_divergence(q, p)
    else:
        each = q.log_prob(theirs["value"]) - p.log_prob(theirs["value"])
    events: int = fns[0].reinterpreted_batch_ndims
    mask = theirs["mask"]
    if isinstance(mask, Tensor):
        mask = mask.reshape(*mask.shape, *(1,) * events)
    each = torch.as_tensor(scale_and_mask(each, mask=mask))
    has_particles = one.dim is not None and each.ndim - events >= -one.dim
    each = each.mean(-1 - events)  # rows
    return (each.mean(0) if has_particles else each).flatten()


def _path(value: Tensor, leaves: DetachedDraws, share: Tensor | None, one: Draw) -> Tensor:
    """A scalar with the gradient that reaches the guide through its draws alone.

    Args:
        value: What the leaves determine.
        leaves: The draws, cut; those of a later latent depend on the leaves of the earlier.
        share: Weights of the particles, (particles, rows), that multiply each gradient.
        one: The run.
    """
    cut = list(leaves.draws.items())
    total = value.new_zeros(())
    if not cut:
        return total
    gradients = list(
        torch.autograd.grad(value, [leaf for _, (leaf, _) in cut], retain_graph=True,
                            allow_unused=True)
    )  # fmt: skip
    for i in reversed(range(len(cut))):
        name, (leaf, made) = cut[i]
        own = gradients[i]
        slope = torch.zeros_like(leaf) if own is None else own
        if share is not None:
            slope = slope * _like(share, leaf, one.guide_trace.nodes[name]["fn"])
        slope = slope + (0.0 if i == len(cut) - 1 else _onward(total, leaf))
        total = total + (slope.detach() * made).sum()
    return total


def _onward(total: Tensor, leaf: Tensor) -> Tensor:
    """What later draws pass on to an earlier one."""
    found = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(leaf) if found is None else found


def _like(share: Tensor, leaf: Tensor, fn: Any) -> Tensor:
    """Particles' weights, (particles, rows), in the dimensions of a latent's values."""
    events = len(fn.event_shape)
    middle = leaf.ndim - events - 2
    return share.reshape(share.shape[0], *(1,) * middle, share.shape[1], *(1,) * events)


def _log_mean(log_weights: Tensor) -> Tensor:
    """Log 1/P sum_p w_p of every row, (rows,)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))
