"""The offsets of a block of rows that maximize each row's bound, by steps of Adam on all at once.

    w_p     = p(x, z_p) / q(z_p given x),  z_p ~ q    p = 1 ... P; q: the guide, moved by the offset
    ELBO    = E 1/P sum_p log w_p                     a row's bound in the first half of the steps
    IWAE_P  = E log 1/P sum_p w_p                     and in the second half, in nats
    slope   = sum_p s_p dlog w_p/dz_p dz_p            s_p = 1/P, then (w_p / sum w)^2

The ELBO leads there from afar, where one particle would have all the weight. Its optimum is narrow,
unless it is the posterior: weights have heavy tails, and k-hat is high. The importance-weighted
bound then makes q cover the posterior.

The slopes flow through the draws alone, so that their noise vanishes as q nears the posterior.
Where that is impossible (a flow without an inverse, a latent that is summed, networks that take one
particle at a time) the plain gradients of the bounds are taken.

Sources: Burda, Grosse & Salakhutdinov (2016), section 3, arXiv:1509.00519 (the bound); Roeder, Wu &
Duvenaud (2017), arXiv:1703.09194; Tucker et al. (2019), section 4, arXiv:1810.04152 (the slopes).
"""

from __future__ import annotations

import contextlib
import math
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

BETAS = (0.9, 0.95)  # slopes get a hundred times smaller on the way: old ones are forgotten soon
JUDGED = 400  # draws of a row that say whether its offset is worse than none
LUCKY = 0.3  # standard error of log p from which a high value may be a single lucky draw
COVERING_FROM = 0.5  # part of the steps after which the importance-weighted bound is maximized
LEAST_SLOPE = 1e-3  # nats per standard deviation: smaller slopes make smaller steps


class OffsetSearch:
    """The search for the offsets of a block of rows that maximize each row's bound.

    Args:
        pair: The model and the refined guide.
        refined: The refined guide.
        rows: The data.
        num_particles: P, draws of a row's latents in a step.

    A guide that stays in its family maximizes the ELBO in all steps: its gap is asked for.
    """

    def __init__(self, pair: Pair, refined: RefinedGuide, rows: Rows, num_particles: int) -> None:
        self.pair, self.refined, self.num_particles = pair, refined, num_particles
        self.covering_from = COVERING_FROM if refined.widen else 1.0
        self.graphs: dict[bool, Callable[..., list[Tensor]]] = {}  # by whether they are covering
        self.size = 0  # rows that the graphs take
        with quiet_look(pair, rows) as few_rows:
            with self._acting(self._zeros(few_rows)):
                self.runs = ParticleRuns.probe(pair, few_rows)
                summed = any(draw.has_enumerated for draw in self._draws(few_rows))
            self.through_draws = self.runs.vectorized and not summed
            try:
                self._gradient(few_rows, self._zeros(few_rows), covering=False)
            except Exception:  # a flow without an inverse, for example
                self.through_draws = False

    def offsets(self, batch: Batch, steps: int, lr: float, bar: Any) -> Offsets:
        """Return the offsets of the rows of a batch, 0 where that is better.

        Args:
            batch: The rows.
            steps: Steps of Adam.
            lr: Length of the first steps; it falls to 0 over the second half of them.
            bar: The progress bar, which counts steps.
        """
        offsets = self._zeros(batch)
        optimizer = torch.optim.Adam(
            offsets.values(), lr, betas=BETAS, eps=LEAST_SLOPE, maximize=True
        )
        for step in range(steps):
            slopes = self.gradient(batch, offsets, covering=step >= self.covering_from * steps)
            optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
            for offset, slope in zip(offsets.values(), slopes, strict=True):
                offset.grad = slope.nan_to_num(0.0, 0.0, 0.0)
            optimizer.step()
            bar.update()
        return self._where_not_worse(batch, offsets)

    def gradient(self, batch: Batch, offsets: Offsets, *, covering: bool) -> list[Tensor]:
        """Return the gradient of the sum of all rows' bounds by the offsets, with new draws.

        Args:
            batch: The rows.
            offsets: Their offsets.
            covering: Whether the bound is the importance-weighted one, else the ELBO.
        """
        if covering not in self.graphs or batch_rows(batch) != self.size:
            return self._gradient(batch, offsets, covering=covering)
        return self.graphs[covering](*offsets.values(), *as_tuple(batch))[1:]

    def trace(self, batch: Batch) -> None:
        """Record both gradients as graphs for batches of this size; once.

        Args:
            batch: Rows on which graph and gradient are compared, from the same random numbers.
        """
        if not self.size:
            self.size = batch_rows(batch)
            for covering in (False, True) if self.refined.widen else (False,):
                self._trace(batch, covering)

    def _trace(self, batch: Batch, covering: bool) -> None:
        """Record a gradient as a graph, and use the graph if it is the gradient."""
        offsets = self._zeros(batch)

        def function(*given: Tensor) -> list[Tensor]:
            named = dict(zip(offsets, given, strict=False))
            fields = in_form_of(batch, given[len(offsets) :])
            gradient = self._gradient(fields, named, covering=covering)
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
            self.graphs[covering] = partial(graph.module, *graph.constants)

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

    def _gradient(self, batch: Batch, offsets: Offsets, *, covering: bool) -> list[Tensor]:
        """Return the gradient by the pair's own Python."""
        detached = DetachedDraws(self.pair.plate) if self.through_draws else None
        with torch.enable_grad():
            leaves = {name: offset.detach().requires_grad_() for name, offset in offsets.items()}
            with self._acting(leaves):
                draws = self._draws(batch, detached)
            log_weights = torch.cat([draw.log_weights() for draw in draws])  # (particles, rows)
            if covering:
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

    def _where_not_worse(self, batch: Batch, offsets: Offsets) -> Offsets:
        """Return the offsets, and 0 for the rows that are better without.

        From ``JUDGED`` draws with the offsets and as many without, by the same random numbers: a
        row's offset stays if it made the ELBO or the importance-weighted bound higher, and did not
        make log p lower by more than three standard errors. A guide that follows one mode of the
        posterior has a good ELBO and a good k-hat, but a log p without the other modes, which a
        wider guide had found. A log p of few effective draws is no evidence. NaN is worse.
        """
        seed, runs = int(torch.randint(2**31, ())), math.ceil(JUDGED / self.num_particles)
        judged = []
        for acting in (self._zeros(batch), offsets):
            with forked(seed), self._acting(acting), pyro.validation_enabled(False):
                draws = [self._draws(batch) for _ in range(runs)]
            each = [torch.cat([draw.log_weights() for draw in run]) for run in draws]
            judged.append(torch.stack(each))  # (runs, particles, rows)
        before, after = judged
        elbo_gain = (after - before).mean((0, 1))
        bound_gain = (after.logsumexp(1) - before.logsumexp(1)).mean(0)
        (before_log_p, before_error), (after_log_p, after_error) = map(_log_p, judged)
        error = torch.hypot(before_error, after_error)
        lost = (before_error < LUCKY) & (before_log_p - after_log_p > 3 * error)
        covers = ((elbo_gain > 0) | (bound_gain > 0)) & ~lost
        good = covers if self.refined.widen else elbo_gain > 0
        return {
            name: torch.where(good.reshape(-1, *(1,) * (offset.ndim - 1)), offset, 0.0)
            for name, offset in offsets.items()
        }


def _log_p(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's log p up to a constant and its standard error, (rows,), in nats.

    Args:
        log_weights: (runs, particles, rows).
    """
    flat = log_weights.flatten(0, 1)
    return flat.logsumexp(0), (2 * flat).logsumexp(0).sub(2 * flat.logsumexp(0)).exp().sqrt()
