"""What the bounds of particles share: how the particles are drawn, and what is refused."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ppl_vae.arguments import check_arguments, check_memory, shown
from ppl_vae.core import sites
from ppl_vae.core.blocks import PROBE_ROWS
from ppl_vae.core.handlers import DetachedDraws, has_own_scale
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, map_batch
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.objectives import RowBound
from ppl_vae.elbo.particles import ParticleRuns

BASELINES = (None, "leave_one_out", "average")
"""What a bound can subtract in a score-function gradient; see ``baselines``."""


class ParticleBound(RowBound):
    """What ``IWAE`` and ``RowELBO`` share: how particles are drawn, and what is refused.

    Args:
        num_particles: P, draws of the guide for each row.
        baseline: What is subtracted in a score-function gradient, one of ``BASELINES``.
        vectorize_particles: Whether all particles are drawn in one run of the pair, which asks the
            networks to act on the last dimensions alone; else each particle has a run of its own.

    Raises:
        ValueError: If P is not a whole number of at least 1, or the baseline is unknown or needs
            more particles.
    """

    def __init__(
        self, num_particles: int, *, baseline: str | None, vectorize_particles: bool
    ) -> None:
        check_arguments(num_particles=num_particles, vectorize_particles=vectorize_particles)
        check_memory("num_particles", num_particles, 4 * num_particles, "draw fewer particles")
        self.num_particles, self.vectorize_particles = int(num_particles), vectorize_particles
        if not (baseline is None or (isinstance(baseline, str) and baseline in BASELINES)):
            names = '"leave_one_out", "average" or None'
            raise ValueError(f"baseline: expected {names}, got {shown(baseline)}")
        if baseline == "leave_one_out" and num_particles == 1:
            raise ValueError(
                "num_particles: expected 2 or more with the baseline leave_one_out, which averages "
                'the other particles, got 1; draw more, or choose baseline="average"'
            )
        self.baseline = baseline
        self._runs: ParticleRuns | None = None

    def draws(self, pair: Pair, batch: Batch, detached: DetachedDraws | None = None) -> list[Draw]:
        """Return the runs of the pair that draw all particles: a single run, or P runs.

        Args:
            pair: The pair.
            batch: The rows.
            detached: Cuts the draws from what made them, for a gradient through draws alone.

        Raises:
            ValueError: If the pair has a site that this bound would get wrong.
        """
        if self._runs is None:
            self._runs = self._checked_runs(pair, batch)
        draws = list(
            self._runs.draws(pair, batch, self.num_particles, share_globals=True, handler=detached)
        )
        self._check_sites(draws[0], through_draws_alone=detached is not None)
        return draws

    def _check_one_run(self, option: str) -> None:
        """Raise if each particle is to have its own run, which an option's gradient rules out."""
        if not self.vectorize_particles:
            raise ValueError(
                f"vectorize_particles: expected True with {option}, whose gradient "
                "needs all particles in one run, got False; leave one of them out"
            )

    def _checked_runs(self, pair: Pair, batch: Batch) -> ParticleRuns:
        """Return whether all particles are drawn in one execution of the pair, or one in each.

        Raises:
            ValueError: If one execution was asked for, and a network of the pair combines numbers
                of different particles.
        """
        few_rows = map_batch(batch, lambda field: field[:PROBE_ROWS])
        with pair.quiet_run():
            if not self.vectorize_particles or self.num_particles == 1:
                return ParticleRuns.of(pair, few_rows, vectorized=self.vectorize_particles)
            runs = ParticleRuns.probe(pair, few_rows)
            if not runs.vectorized:  # what fails with a single particle, too, is told as it is
                list(replace(runs, vectorized=False).draws(pair, few_rows, 1))
        if not runs.vectorized:
            raise ValueError(
                "vectorize_particles: expected networks that act on the last dimensions alone, so "
                "that particles can be drawn in one run, got others (batch normalization, "
                f"convolutions, a view); pass {type(self).__name__}(..., vectorize_particles=False)"
            )
        return runs

    def _check_sites(self, draw: Draw, *, through_draws_alone: bool) -> None:
        """Raise if a site has a scale of its own, or a draw whose gradient would be wrong.

        Args:
            draw: A run of the pair.
            through_draws_alone: Whether the gradient of the guide flows through its draws alone.
        """
        name_of_bound = type(self).__name__
        refuse_own_scales(draw, name_of_bound)
        if through_draws_alone and draw.has_enumerated:
            raise ValueError(
                f"{name_of_bound}: expected no latent that is summed under this gradient, "
                "which flows through draws alone; leave doubly_reparameterized and "
                "sticking_the_landing off"
            )
        for name, site in draw.without_gradient().items():
            if through_draws_alone or draw.has_enumerated or not sites.in_plate(site, draw.plate):
                raise ValueError(
                    f'site "{name}": expected a reparameterized draw under {name_of_bound} (with '
                    "a gradient through draws alone, beside summed latents, or outside the row "
                    f"plate), got {type(site['fn']).__name__}; sum it with "
                    'infer={"enumerate": "parallel"}, or use TraceGraph_ELBO'
                )

    @staticmethod
    def _global_totals(draw: Draw, kl_weight: Tensor | None) -> tuple[Tensor | float, ...]:
        """Return the sum of the terms outside the row plate: at a KL weight of 1, and weighted.

        Two scalars, in nats of the whole data set. Particles share these latents, so that the terms
        of the first run are those of all.
        """
        plain: Tensor | float = 0.0
        weighted: Tensor | float = 0.0
        all_sites = {**sites.sample_sites(draw.guide_trace), **sites.sample_sites(draw.model_trace)}
        observed = {name for name, site in all_sites.items() if site["is_observed"]}
        for name, term in draw.global_terms().items():
            plain = plain + term.mean()
            factor = 1.0 if kl_weight is None or name in observed else kl_weight
            weighted = weighted + factor * term.mean()
        return plain, weighted


def refuse_own_scales(draw: Draw, bound: str) -> None:
    """Raise ``ValueError`` if a site has a scale of its own, under a bound of this name."""
    for trace in (draw.model_trace, draw.guide_trace):
        for name, site in sites.sample_sites(trace).items():
            if has_own_scale(site):
                raise ValueError(
                    f'site "{name}": expected no poutine.scale under {bound}, whose logarithm is '
                    "taken of unscaled weights; use kl_weight="
                )
