"""Bounds formed row by row, beside Pyro's ELBOs: importance-weighted, and with other gradients.

    w_p     = p(x, z_p) / q(z_p given x),    z_p ~ q(z given x),    p = 1 ... P
    IWAE_P  = E log 1/P sum_p w_p
    ELBO    = E 1/P sum_p log w_p = IWAE_1 <= IWAE_P <= IWAE_(P + 1) <= log p(x)

Log-weights are (particles, rows); a bound is (rows,), in nats; the loss is a scalar, minus the
bound of the whole data set. A batch of B rows out of N stands for the data set with N/B times the
sum of its rows' bounds: the factor stands outside the logarithm. A KL weight multiplies
log p(z) - log q(z given x) within the weight. Latents outside the row plate are drawn once for all
particles, and their own terms are added to the bound. Discrete latents that ask for it
(``infer={"enumerate": "parallel"}``) are summed exactly.

Sources: Burda, Grosse & Salakhutdinov (2016), section 3, arXiv:1509.00519; Tucker et al. (2019),
section 4, arXiv:1810.04152 (doubly reparameterized gradient); Roeder, Wu & Duvenaud (2017),
section 4, arXiv:1703.09194 (sticking the landing); Kingma et al. (2016), appendix C.8,
arXiv:1606.04934 (free bits).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl_vae.arguments import check_arguments, check_number
from ppl_vae.core import sites
from ppl_vae.core.handlers import DetachedDraws
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch
from ppl_vae.elbo.baselines import score_term, without_particle
from ppl_vae.elbo.factors import total
from ppl_vae.elbo.gradients import gradient_through_draws
from ppl_vae.elbo.importance_weights import Draw, kl_groups
from ppl_vae.elbo.particle_bound import ParticleBound


class IWAE(ParticleBound):
    """The importance-weighted bound: tighter than the ELBO, and tighter with more particles.

    A latent that the guide enumerates is summed inside the weight, where q(y given x) cancels: no
    gradient trains that part of the guide (use ``RowELBO`` to train it).

    Args:
        num_particles: P, draws of the guide for each row.
        doubly_reparameterized: Use the gradient of Tucker et al. (2019). The plain gradient of the
            guide drowns in noise as P grows; this one does not.
        baseline: What is subtracted from a row's bound in the score-function gradient of draws that
            have no gradient: ``"leave_one_out"``, the bound without the particle (VIMCO);
            ``"average"``, the mean bound of the batch's other rows; or nothing. The gradient stays
            unbiased and gets less noisy. A network of the guide (``baselines``) is subtracted too,
            and trained, but not under ``"leave_one_out"``.
        vectorize_particles: Whether all particles are drawn in one run of the pair, which asks the
            networks to act on the last dimensions alone; else each particle has a run of its own.

    Raises:
        ValueError: If P is not a whole number of at least 1, or ``doubly_reparameterized`` is asked
            for with ``vectorize_particles=False``.

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
        baseline: str | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, baseline=baseline, vectorize_particles=vectorize_particles)
        check_arguments(doubly_reparameterized=doubly_reparameterized)
        if doubly_reparameterized:
            self._check_one_run("doubly_reparameterized")
        self.doubly_reparameterized = doubly_reparameterized

    @property
    def estimates_elbo(self) -> bool:
        """Whether the training loss is minus the ELBO in expectation: no, its bound is tighter."""
        return False

    def losses_and_surrogate(
        self, pair: Pair, batch: Batch, rows: int, kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return minus the ELBO, the training loss, and the surrogate to differentiate.

        Args:
            pair: The model and the guide.
            batch: B rows.
            rows: N, the number of rows of the whole data set.
            kl_weight: The KL weight, a scalar; ``None`` means 1.

        Returns:
            Three scalars, in nats of the whole data set. The ELBO ignores ``kl_weight`` and takes
            the average of the log-weights, not the logarithm of their average.
        """
        doubly = self.doubly_reparameterized and torch.is_grad_enabled()
        detached = DetachedDraws(pair.plate) if doubly else None
        draws = self.draws(pair, batch, detached)
        factor = rows / draws[0].rows
        outside, weighted_outside = self._global_totals(draws[0], kl_weight)
        ratios = torch.cat([draw.log_ratios() for draw in draws])  # (particles, rows)
        weighted = ratios
        if kl_weight is not None or draws[0].has_enumerated:
            weighted = torch.cat([draw.log_weights(kl_weight) for draw in draws])
        negative_elbo = -factor * ratios.mean(0).sum() - outside
        bound = _log_mean_exp(weighted)
        loss = -factor * bound.sum() - weighted_outside
        if detached is None:
            others = without_particle(weighted) if self.baseline == "leave_one_out" else None
            score, fits = score_term(draws, bound.expand_as(weighted), self.baseline, others)
            return negative_elbo, loss, loss - factor * score.sum() + fits
        surrogate = self._doubly_reparameterized(draws[0], weighted, kl_weight, detached)
        return negative_elbo, loss, -factor * surrogate - weighted_outside

    @staticmethod
    def _doubly_reparameterized(
        draw: Draw, log_weights: Tensor, kl_weight: Tensor | None, detached: DetachedDraws
    ) -> Tensor:
        """Return a scalar whose gradient is the doubly reparameterized one, summed over rows.

        Let s_p = w_p / sum w be a particle's share and b the KL weight. The derivative of
        log sum w by the guide's parameters has two parts: through the draw z_p,
        s_p dlog w_p/dz_p dz_p/dphi, and through the density at a fixed draw,
        -b s_p dlog q(z_p)/dphi, the score, which is the noisy part. Tucker et al. replace the
        expectation of the score by a second derivative through the draw:

            E[s_p dlog q/dphi] = E[s_p (1 - s_p) dlog w_p/dz_p dz_p/dphi]

        Together: s_p (1 - b + b s_p) dlog w_p/dz_p dz_p/dphi. The first s_p is the derivative of
        the logarithm of the mean, which autograd takes; the bracket multiplies the slope that
        reaches each draw. The model's parameters have their ordinary gradient, s_p dlog p/dtheta,
        with the draws cut off and log q held fixed.

        Args:
            draw: The single run with all particles.
            log_weights: Log-weights under the KL weight, (particles, rows).
            kl_weight: The KL weight, a scalar; ``None`` is 1.
            detached: The draws, cut from what made them.
        """
        share = log_weights.softmax(0).detach()
        weight = 1.0 if kl_weight is None else kl_weight
        through_guide = gradient_through_draws(
            _log_mean_exp(log_weights).sum(), detached, draw, 1 - weight + weight * share
        )
        through_model = (share * draw.log_weights(kl_weight, fixed_guide=True)).sum()
        return through_model + through_guide


class RowELBO(ParticleBound):
    """The ELBO formed row by row, with gradients and constraints that Pyro's ELBOs do not have.

    Args:
        num_particles: P, draws of the guide for each row.
        sticking_the_landing: Leave the score dlog q(z)/dphi out of the guide's gradient. Its
            expectation is 0, and without it the gradient's variance vanishes as the guide nears
            the posterior.
        free_bits: Nats of KL divergence, averaged over the batch's rows, that cost nothing: for
            every dimension of a latent with independent dimensions, else for the whole latent. The
            loss that is reported is without free bits.
        baseline: What is subtracted from a row's ELBO in the score-function gradient of draws that
            have no gradient: ``"leave_one_out"``, the mean of the row's other particles (RLOO);
            ``"average"``, the mean of the batch's other rows; or nothing. The gradient stays
            unbiased and gets less noisy. A network of the guide (``baselines``) is subtracted too,
            and trained, but not under ``"leave_one_out"``.
        vectorize_particles: Whether all particles are drawn in one run of the pair, which asks the
            networks to act on the last dimensions alone; else each particle has a run of its own.

    Raises:
        ValueError: If free bits are negative or combined with sticking the landing, or sticking the
            landing is asked for with ``vectorize_particles=False``.

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
        baseline: str | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        super().__init__(num_particles, baseline=baseline, vectorize_particles=vectorize_particles)
        check_arguments(sticking_the_landing=sticking_the_landing)
        check_number("free_bits", free_bits, least=0)
        if free_bits and sticking_the_landing:
            raise ValueError("free_bits: expected 0 with sticking_the_landing; choose one")
        if sticking_the_landing:
            self._check_one_run("sticking_the_landing")
        self.sticking_the_landing, self.free_bits = sticking_the_landing, float(free_bits)

    @property
    def estimates_elbo(self) -> bool:
        """Whether the training loss is minus the ELBO in expectation: yes, without free bits."""
        return not self.free_bits

    def losses_and_surrogate(
        self, pair: Pair, batch: Batch, rows: int, kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return minus the ELBO, the training loss, and the surrogate to differentiate.

        Args:
            pair: The model and the guide.
            batch: B rows.
            rows: N, the number of rows of the whole data set.
            kl_weight: The KL weight, a scalar; ``None`` means 1.

        Returns:
            Three scalars, in nats of the whole data set. The ELBO ignores ``kl_weight`` and
            ``free_bits``.
        """
        sticking = self.sticking_the_landing and torch.is_grad_enabled()
        detached = DetachedDraws(pair.plate) if sticking else None
        draws = self.draws(pair, batch, detached)
        factor = rows / draws[0].rows
        outside, weighted_outside = self._global_totals(draws[0], kl_weight)
        likelihood, kl = self._likelihood_and_kl(draws, kl_weight)
        negative_elbo = -factor * (likelihood - kl).mean(0).sum() - outside
        if self.free_bits:
            total_kl = rows * kl_groups(draws).clamp(min=self.free_bits).sum()
        else:
            total_kl = factor * kl.mean(0).sum()
        weight = 1.0 if kl_weight is None else kl_weight
        loss = weight * total_kl - factor * likelihood.mean(0).sum() - weighted_outside
        if detached is None:
            score, fits = score_term(draws, likelihood - weight * kl, self.baseline)
            if self.free_bits and score.requires_grad:
                raise ValueError(
                    "free_bits: expected reparameterized draws, got a latent under a score "
                    "function, to which free bits give no gradient; leave free_bits at 0"
                )
            return negative_elbo, loss, loss - factor * score.mean(0).sum() + fits
        surrogate = self._sticking_the_landing(draws[0], kl_weight, detached)
        return negative_elbo, loss, -factor * surrogate - weighted_outside

    def _sticking_the_landing(
        self, draw: Draw, kl_weight: Tensor | None, detached: DetachedDraws
    ) -> Tensor:
        """Return a scalar whose gradient is the ELBO's without the score, summed over rows.

        The guide's parameters act on log w = log p(x, z) - log q(z given x) in two ways: through
        the draws z, and directly through the density q. The direct way is the score; it is left out
        by taking the derivative through the draws alone.
        """
        log_weights = draw.log_weights(kl_weight)  # (particles, rows)
        through_guide = gradient_through_draws(log_weights.mean(0).sum(), detached, draw)
        share = torch.full_like(log_weights, 1 / self.num_particles)
        through_model = (share * draw.log_weights(kl_weight, fixed_guide=True)).sum()
        return through_model + through_guide

    def _likelihood_and_kl(
        self, draws: list[Draw], kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood and the KL divergence of every row, (particles, rows) each.

        A term that joins several sites (a latent that the model alone enumerates, with what follows
        it) holds likelihood and KL divergence in one number; it counts as likelihood.

        Raises:
            ValueError: If there is such a term, and a KL weight or free bits need the KL apart.
        """
        likelihoods, kls = [], []
        for draw in draws:
            observed = sites.with_role(draw.model_trace, "data", "factor", "deterministic")
            observed |= sites.with_role(draw.guide_trace, "factor")  # no KL weight acts on a factor
            terms = draw.terms(closed=not self.sticking_the_landing)
            joint = [names for names in terms if len(names) > 1]
            if joint and (kl_weight is not None or self.free_bits):
                raise ValueError(
                    f"kl_weight, free_bits: expected a KL divergence for every latent, got sites "
                    f"{', '.join(joint[0])} summed together in the model, which leaves them none; "
                    "enumerate the latent in the guide"
                )
            zero = torch.zeros_like(next(iter(terms.values())))
            likelihood_terms, kl_terms = [zero], [zero]
            for names, term in terms.items():
                if len(names) > 1 or names[0] in observed:
                    likelihood_terms.append(term)
                else:
                    kl_terms.append(-term)
            likelihoods.append(total(likelihood_terms))
            kls.append(total(kl_terms))
        return torch.cat(torch.broadcast_tensors(*likelihoods)), torch.cat(kls)


def _log_mean_exp(log_weights: Tensor) -> Tensor:
    """Return log 1/P sum_p w_p of every row, (rows,), from log-weights (particles, rows)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))
