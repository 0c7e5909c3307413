"""The rank of each row's true latents among draws of the guide, and that of the log-likelihood.

    z*, x    drawn from the model           z_s ~ q(z given x)       s = 1 ... S draws
    r        how many z_s lie below z*, ties broken at random              a whole number, 0 ... S
    w_s      p(x, z_s) / q(z_s given x), their sum made 1;  n = 1 / sum_s w_s^2, effective draws
    r_w      (S + 1) (n sum_s w_s [z_s < z*] + v) / (n + 1),  v ~ Uniform(0, 1), rounded down

Each dimension of a latent has a rank, each category of a categorical one (of whether it is drawn,
0 or 1), and so has log p(x given z), whose rank is that of the true latents among the draws.

Sources: Talts et al. (2018), algorithm 1, arXiv:1804.06788; Modrak et al. (2023), section 4, on
quantities that see the data, arXiv:2211.02383; Czado, Gneiting & Held (2009) (ties at random).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import ELEMENTS, block_rows, quiet_look
from ppl_vae.core.handlers import Particles, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.core.supports import support_of
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.distributions import AutoregressiveCategorical, MarkovPath
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import (
    PARTICLES,
    ParticleRuns,
    draw_given,
    particles_per_run,
    with_particles,
)
from ppl_vae.elbo.points import point_latents
from ppl_vae.evaluation.rank_tests import LIKELIHOOD, Quantity
from ppl_vae.evaluation.simulated_rows import SimulatedRows
from ppl_vae.predictive.latent_draws import LatentDraws
from ppl_vae.predictive.replicates import samples_first

ROUNDING = 1e-6  # relative: log-likelihoods as close as that are equal
UNRANKED = -1.0  # rank of a cell that is no draw: masked, or after the end of a sequence

RANKS, WEIGHTED = "ranks", "weighted ranks"


class GuideRanks:
    """Ranks the true latents of simulated rows among draws of the guide.

    Args:
        pair: The pair.
        like: Rows of the form of the data.
        num_draws: S.
        weighted: Whether ranks weighted by importance are computed, too.

    Attributes:
        quantities: What is ranked, in the order of the columns.
        size: Rows of a block.
        from_prior: Latents that neither the guide draws nor the row decides: of their prior.

    Raises:
        ValueError: If no latent or no observed site stands in the row plate, or the guide gives a
            latent as a point.
    """

    def __init__(self, pair: Pair, like: Rows, num_draws: int, *, weighted: bool) -> None:
        self.pair, self.num_draws, self.weighted = pair, num_draws, weighted
        self.latent_draws = LatentDraws(pair, like)
        self.count = particles_per_run(num_draws, PARTICLES)
        with quiet_look(pair, like) as few_rows:
            self.runs = ParticleRuns.probe(pair, few_rows)
            points = point_latents(pair, few_rows)
            guide_trace, model_trace, _ = self._run(few_rows, {}, None)
        if points:
            raise ValueError(
                f'site "{points[0]}": expected a guide that draws the latent from a distribution, '
                "got a point (Delta), among whose draws nothing has a rank; fit another guide"
            )
        latents = sites.with_role(model_trace, "latent").items()
        self._latents = [
            name
            for name, site in latents
            if sites.in_plate(site, pair.plate)
            and (name in guide_trace or not name.endswith("_unobserved"))  # cells, of ``obs_mask``
        ]
        if not self._latents:
            raise ValueError(
                f'guide: expected a latent in the row plate "{pair.plate}", whose guide could be '
                "calibrated, found none; latents outside the plate have no ranks"
            )
        observed = sites.with_role(model_trace, "data").values()
        if not any(sites.in_plate(site, pair.plate) for site in observed):
            raise ValueError(
                f'model: expected an observed site in the row plate "{pair.plate}", found none; '
                "observe the data inside the plate, or pass its name as plate="
            )
        self.from_prior = [n for n in self.latent_draws.from_prior if n in self._latents]
        if weighted and self.from_prior and self.latent_draws.enumerated:
            raise ValueError(
                f'recalibrate: expected a guide that draws site "{self.from_prior[0]}", as the '
                f'model sums site "{self.latent_draws.enumerated[0]}" beside it; draw the former '
                "in the guide, or take recalibrate=False"
            )
        self.quantities = [
            Quantity(name, dimension)
            for name in self._latents
            for dimension in _dimensions(model_trace.nodes[name])
        ]
        self.quantities.append(Quantity(LIKELIHOOD, ""))
        kept = ELEMENTS * 8 // (len(self.quantities) * (num_draws if weighted else self.count))
        self.size = max(1, min(block_rows(like, self.count), kept))

    def ranks(
        self, simulated: SimulatedRows, batch: Batch, index: Tensor, bar: Any
    ) -> dict[Any, Tensor]:
        """Return the ranks of a block of rows, and the log-probabilities of the true latents.

        Args:
            simulated: The rows, with their latents.
            batch: A block of them.
            index: The positions of the block's rows, (rows,).
            bar: The progress bar, which counts draws.

        Returns:
            ``RANKS`` and, if asked for, ``WEIGHTED``: (rows, quantities) each, NaN in a row of
            which a number is NaN; and ``{site: (rows,)}``, in nats.
        """
        trace = simulated.true_trace(batch, index)
        truth, ranked, continuous = self._quantities(trace, Trace(), None, len(index))
        ranked = ranked[0]
        lower = torch.zeros(truth.shape[1:], dtype=torch.float64, device=truth.device)
        ties = torch.zeros_like(lower)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        undefined = truth[0].isnan().any(1)
        for draws, weights in self._draws(simulated, batch, index):
            less, equal = _compared(draws, truth)
            undefined |= draws.isnan().any(2).any(0)
            lower, ties = lower + less.sum(0), ties + equal.sum(0)
            if self.weighted:
                parts.append((less, equal, weights))
            bar.update(len(draws) * len(index))
        # a continuous number that equals all draws is no draw: the end of a path, a constant
        ranked = ranked & ~(continuous & (ties == self.num_draws))
        noise = torch.rand_like(lower)

        def whole(less: Tensor, equal: Tensor, effective: Tensor | float) -> Tensor:
            uniform = (less + noise * (equal + 1)) / (effective + 1)
            found = (uniform * (self.num_draws + 1)).floor().clamp(0, self.num_draws)
            found = found.masked_fill(~ranked, UNRANKED)
            return found.masked_fill(undefined[:, None], torch.nan)

        result: dict[Any, Tensor] = {RANKS: whole(lower, ties, float(self.num_draws))}
        if self.weighted:
            less, equal, weights = (torch.cat(each) for each in zip(*parts, strict=True))
            shares = weights.double().softmax(0)[..., None]
            undefined |= shares.isnan().any(0)[:, 0]
            effective = 1 / shares.square().sum(0)
            lower, ties = ((effective * shares * each).sum(0) for each in (less, equal))
            result[WEIGHTED] = whole(lower, ties, effective)
        return {**result, **simulated.row_log_probs(trace)}

    def _draws(
        self, simulated: SimulatedRows, batch: Batch, index: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the quantities of some draws, (draws, rows, quantities), and their log-weights."""
        given = simulated.shared(index)
        remaining = self.num_draws
        while remaining > 0:
            count = min(self.count, remaining)
            for particles in self.runs.handlers(count, within=self.pair.plate):
                guide_trace, model_trace, dim = self._run(batch, given, particles)
                found, _, _ = self._quantities(model_trace, guide_trace, dim, len(index))
                weights = found[..., -1]
                if self.weighted:
                    weights = self._log_weights(batch, guide_trace, model_trace, particles)
                yield found, weights.expand(found.shape[:2])
            remaining -= count

    def _run(
        self, batch: Batch, given: dict[str, Tensor], particles: Particles | None
    ) -> tuple[Trace, Trace, int | None]:
        """Return traces of the guide and of the model on its draws, and the draws' dimension."""
        draws = self.latent_draws
        guide_trace = draws.guide_trace(batch, given, particles)
        values = draws.beside_guide(batch, given, guide_trace, particles)
        model = Substitute(values)(with_particles(self.pair.model, particles))
        trace = poutine.trace(model).get_trace(batch)
        return guide_trace, trace, None if particles is None else self.runs.dim

    def _log_weights(
        self, batch: Batch, guide_trace: Trace, model_trace: Trace, particles: Particles | None
    ) -> Tensor:
        """Return the log importance weights of some draws, (draws or 1, rows), in nats."""
        if self.latent_draws.enumerated:
            nesting, excluded = self.runs.nesting, self.runs.excluded
            return draw_given(
                self.pair, batch, nesting, guide_trace, particles, excluded
            ).log_weights()
        rows = next(iter(sites.with_role(model_trace, "data").values()))["value"].shape[0]
        dim = None if particles is None else self.runs.dim
        return Draw(
            model_trace, guide_trace, self.pair.plate, dim, rows, self.runs.excluded
        ).log_weights()

    def _quantities(
        self, model_trace: Trace, guide_trace: Trace, dim: int | None, rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the quantities, which of them are draws, and which of them are continuous.

        The first two are (draws, rows, quantities), the last (quantities,).
        """
        both = [_cells(model_trace.nodes[name], dim) for name in self._latents]
        draw = Draw(model_trace, guide_trace, self.pair.plate, dim, rows)
        likelihood = draw.log_likelihoods().detach()[..., None]
        count = max(len(likelihood), *(len(values) for values, _ in both))
        kind = torch.promote_types(likelihood.dtype, torch.get_default_dtype())
        values = [v.to(kind).expand(count, rows, -1) for v in (*(v for v, _ in both), likelihood)]
        unmasked = [marks.expand(count, rows, -1) for _, marks in both]
        unmasked.append(torch.ones_like(values[-1], dtype=torch.bool))
        continuous = [not sites.is_discrete(model_trace.nodes[name]) for name in self._latents]
        marks = [
            torch.full((v.shape[2],), each)
            for v, each in zip(values, [*continuous, False], strict=True)
        ]
        joined = torch.cat(values, -1)
        return joined, torch.cat(unmasked, -1), torch.cat(marks).to(joined.device)


def _compared(draws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return which draws are below the true values, and which are equal to them.

    The last quantity is a sum over cells, in which rounding is no difference: where the row says
    nothing of the latents, all draws have its value.

    Args:
        draws: (draws, rows, quantities).
        truth: (1, rows, quantities).
    """
    close = torch.zeros_like(truth)
    close[..., -1] = ROUNDING * (1 + truth[..., -1].abs())
    close = close.nan_to_num(0.0, 0.0, 0.0)
    equal = (draws == truth) | ((draws - truth).abs() < close)
    return (draws < truth) & ~equal, equal


def _cells(site: sites.Site, dim: int | None) -> tuple[Tensor, Tensor]:
    """Return the numbers of a latent that are ranked, and which of them are draws.

    Both are (draws, rows, numbers). A categorical variable has a number for each category, 1 where
    it has the category; of two, one is enough.
    """
    value, unmasked = (
        samples_first(each, site, dim) for each in (site["value"].detach(), _draws_of(site))
    )
    shape = (*value.shape[:2], -1)
    value, unmasked = value.reshape(shape), unmasked.reshape(shape)
    categories = _categories(site["fn"])
    if categories is None:
        return value, unmasked
    marked = value[..., None] == categories.to(value)
    every = unmasked[..., None].expand(marked.shape)
    return marked.reshape(shape), every.reshape(shape)


def _dimensions(site: sites.Site) -> list[str]:
    """Return the names of the numbers of a latent that are ranked, in the order of ``_cells``."""
    shape = tuple(samples_first(site["value"], site, None).shape[2:])
    places = [",".join(map(str, place)) for place in np.ndindex(shape)]
    categories = _categories(site["fn"])
    if categories is None:
        return places
    return [f"{place}={int(category)}" for place in places for category in categories]


def _draws_of(site: sites.Site) -> Tensor:
    """Return which cells of a latent are draws: not masked, and within the path of a row."""
    drawn, fn = sites.unmasked_cells(site), site["fn"]
    while not isinstance(fn, MarkovPath) and hasattr(fn, "base_dist"):
        fn = fn.base_dist
    if isinstance(fn, MarkovPath) and fn.lengths is not None:
        inside = torch.arange(fn.steps, device=drawn.device) < fn.lengths[..., None]
        over_state = (1,) * len(fn.first.event_shape)
        drawn = drawn & inside.reshape(*inside.shape, *over_state)
    return drawn


def _categories(fn: Any) -> Tensor | None:
    """Return the categories of a variable without an order that are ranked; else ``None``."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    if not isinstance(fn, dist.Categorical | AutoregressiveCategorical):
        return None
    support: Any = support_of(fn)
    count = int(torch.as_tensor(support.upper_bound).max()) + 1
    return torch.arange(1 if count == 2 else 0, count)
