"""The offsets of a block of rows that maximize each row's bound, by steps of Adam on all at once.

    w_p  = p(x, z_p) / q(z_p given x),  z_p ~ q       p = 1 ... P; q: the guide, moved by the offset
    L    = log 1/P sum_p w_p                          each row's bound, in nats
    dL   = sum_p s_p^2 dlog w_p/dz_p dz_p             s_p = w_p / sum w, the share of a particle

The gradient flows through the draws alone, so that its noise vanishes as q nears the posterior.
Where that is impossible (a flow without an inverse, a latent that is summed, networks that take one
particle at a time) the plain gradient of L is taken.

Source: Tucker et al. (2019), section 4, arXiv:1810.04152.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.compiled.graphs import trace_graph
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.handlers import DetachedDraws
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows, in_form_of
from ppl_vae.elbo.gradients import gradient_through_draws
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import ParticleRuns
from ppl_vae.elbo.refined_guide import RefinedGuide

Offsets = dict[str, Tensor]
"""``{site: (rows, plates inside the rows..., numbers)}``, as the refined guide takes them."""

JUDGED = 8  # estimates of its bound that say whether a row's offset is better than none
TIGHT_FROM = 1.0
LEAST_SLOPE = 1e-3  # nats per standard deviation: smaller slopes make smaller steps


class OffsetSearch:
    """The search for the offsets of a block of rows that maximize each row's bound.

    Args:
        pair: The model and the refined guide.
        refined: The refined guide.
        rows: The data.
        num_particles: P, draws of a row's latents in a step.
    """

    def __init__(self, pair: Pair, refined: RefinedGuide, rows: Rows, num_particles: int) -> None:
        self.pair, self.refined, self.num_particles = pair, refined, num_particles
        self.graph: Callable[..., list[Tensor]] | None = None
        self.size = 0  # rows that the graph takes
        self.tight = False
        with quiet_look(pair, rows) as few_rows:
            with self._acting(self._zeros(few_rows)):
                self.runs = ParticleRuns.probe(pair, few_rows)
            self.through_draws = self.runs.vectorized
            try:
                self._gradient(few_rows, self._zeros(few_rows))
            except Exception:  # a flow without an inverse, or a latent that is summed
                self.through_draws = False

    def offsets(self, batch: Batch, steps: int, lr: float, bar: Any) -> Offsets:
        """Return the offsets of the rows of a batch, 0 where no offset is better.

        Args:
            batch: The rows.
            steps: Steps of Adam.
            lr: Length of the first steps; it falls to 0 over the second half of them.
            bar: The progress bar, which counts steps.
        """
        offsets = self._zeros(batch)
        optimizer = torch.optim.Adam(offsets.values(), lr, eps=LEAST_SLOPE, maximize=True)
        for step in range(steps):
            self.tight = step >= TIGHT_FROM * steps
            optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
            for offset, slope in zip(offsets.values(), self.gradient(batch, offsets), strict=True):
                offset.grad = slope.nan_to_num(0.0, 0.0, 0.0)
            optimizer.step()
            bar.update()
        return self._where_better(batch, offsets)

    def gradient(self, batch: Batch, offsets: Offsets) -> list[Tensor]:
        """Return the gradient of the sum of all rows' bounds by the offsets, with new draws."""
        if self.graph is None or batch_rows(batch) != self.size:
            return self._gradient(batch, offsets)
        return self.graph(*offsets.values(), *as_tuple(batch))[1:]

    def trace(self, batch: Batch) -> None:
        """Record the gradient as a graph for batches of this size, if the graph is the gradient.

        Args:
            batch: Rows on which both are compared, from the same random numbers.
        """
        if self.size:
            return
        self.size = batch_rows(batch)
        offsets = self._zeros(batch)

        def function(*given: Tensor) -> list[Tensor]:
            named = dict(zip(offsets, given, strict=False))
            gradient = self._gradient(in_form_of(batch, given[len(offsets) :]), named)
            return [gradient[0].new_zeros(()), *gradient]  # the first gets marks of bad arguments

        inputs = [*offsets.values(), *as_tuple(batch)]
        try:
            with forked(0):
                graph = trace_graph(function, inputs, ())
            with forked(0), pyro.validation_enabled(False):
                expected = function(*inputs)[1:]
            with forked(0):
                got = graph.module(*graph.constants, *inputs)[1:]
        except Exception:  # the pair's Python may do anything to the tracer
            return
        tolerance = 1000 * graph.precision
        if all(
            map(
                partial(torch.allclose, rtol=tolerance, atol=tolerance, equal_nan=True),
                got,
                expected,
            )
        ):
            self.graph = partial(graph.module, *graph.constants)

    def _zeros(self, batch: Batch) -> Offsets:
        """Return offsets of 0 for the rows of a batch."""
        count, named = batch_rows(batch), zip(self.refined.sites, self.refined.offsets, strict=True)
        return {name: offset.new_zeros(count, *offset.shape[1:]) for name, offset in named}

    @contextlib.contextmanager
    def _acting(self, offsets: Offsets) -> Iterator[None]:
        """Make a context in which the refined guide has these offsets for the rows it is given."""
        self.refined.batch_offsets = offsets
        try:
            yield
        finally:
            self.refined.batch_offsets = None

    def _gradient(self, batch: Batch, offsets: Offsets) -> list[Tensor]:
        """Return the gradient by the pair's own Python."""
        detached = DetachedDraws(self.pair.plate) if self.through_draws else None
        with torch.enable_grad():
            leaves = {name: offset.detach().requires_grad_() for name, offset in offsets.items()}
            with self._acting(leaves):
                draws = self._draws(batch, detached)
            log_weights = torch.cat([draw.log_weights() for draw in draws])  # (particles, rows)
            if self.tight:
                bound, share = log_weights.logsumexp(0).sum(), log_weights.softmax(0).detach()
            else:
                bound, share = log_weights.mean(0).sum(), None
            if detached is not None:
                bound = gradient_through_draws(bound, detached, draws[0], share)
            return list(torch.autograd.grad(bound, list(leaves.values())))

    def _draws(self, batch: Batch, detached: DetachedDraws | None = None) -> list[Draw]:
        """Return the runs of the pair that draw P particles, with latents of all rows shared."""
        return list(
            self.runs.draws(
                self.pair, batch, self.num_particles, share_globals=True, handler=detached
            )
        )

    def _where_better(self, batch: Batch, offsets: Offsets) -> Offsets:
        """Return the offsets of those rows whose bound they raise, and 0 for the others."""
        seed = int(torch.randint(2**31, ()))
        bounds = []
        for each in (self._zeros(batch), offsets):
            with forked(seed), self._acting(each), pyro.validation_enabled(False):
                runs = [self._draws(batch) for _ in range(JUDGED)]
            weights = [torch.cat([draw.log_weights() for draw in run]) for run in runs]
            bounds.append(torch.stack([each.logsumexp(0) for each in weights]).mean(0))
        better = bounds[1] > bounds[0]  # no where either is NaN
        return {
            name: torch.where(better.reshape(-1, *(1,) * (offset.ndim - 1)), offset, 0.0)
            for name, offset in offsets.items()
        }
