"""Particles of a pair: all drawn in one run where the networks allow it, else in one run each.

    one run       value of a site in the row plate: (particles, ..., rows, event)
    one run each  value of a site in the row plate: (..., rows, event)

``ParticleRuns.probe`` decides. One run is many times faster, because every layer is called once
instead of P times; but it asks the pair to take one more dimension on the left of its plates. A
network that reads its dimensions from the left (batch normalization over dim 1, a convolution, a
``view(-1, ...)``) fails or, worse, mixes the particles without an error. So the pair is tried out
first: a few particles are drawn in one run, and then each of them is scored alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.handlers import EnumerateInParallel, Particles, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.core.row_plate import raise_plate_fault
from ppl_vae.data.rows import Batch, batch_rows
from ppl_vae.elbo.factors import OutsidePlateError, was_enumerated
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.one_by_one import (
    FixedValues,
    SummedDraw,
    combinations,
    shared_values,
    values_one_by_one,
)
from ppl_vae.elbo.training_terms import training_terms

PARTICLES = 64  # most particles of a row in one run: bounds the memory of a block of rows
TRIED = 3  # particles that a trial draws in one run and then scores alone
TOLERANCE = 1e-3  # relative and absolute, in nats: how far the two scores may lie apart

Scored = tuple[Mapping[str, sites.Site], Callable[[int], list[Tensor]]]


def particles_per_run(num_particles: int, most: int) -> int:
    """Return the particles of one run, where runs are as few and as even as a maximum allows.

    Args:
        num_particles: Particles in all.
        most: Largest number of particles in one run.

    Example:
        >>> particles_per_run(1000, 64), particles_per_run(65, 64), particles_per_run(5, 64)
        (63, 33, 5)
    """
    return math.ceil(num_particles / math.ceil(num_particles / most))


def with_particles(half: Any, particles: Particles | None) -> Any:
    """Return a model or guide whose sites are drawn once for each particle; as it is for ``None``.

    Args:
        half: The model or the guide.
        particles: The handler that adds the particles' dimension.
    """
    return half if particles is None else particles(half)


def plate_nesting(pair: Pair, batch: Batch) -> int:
    """Return the number of dimensions that the pair's plates take, found by one quiet run.

    The row plate at dim -1 alone gives 1; a plate at dim -3 gives 3. The particles' dimension and
    those of enumerated latents lie left of all of them.

    Raises:
        ValueError: If a row's site stands outside the row plate, or the plate is not at dim -1.
    """
    with pair.quiet_run():
        traces = sites.traces(pair, batch)
    raise_plate_fault(pair, *traces, batch)
    frames = [frame for trace in traces for frame in sites.plates(trace).values()]
    return max((-frame.dim for frame in frames if frame.dim is not None), default=0)


def draw_particles(
    pair: Pair,
    batch: Batch,
    nesting: int,
    particles: Particles | None,
    handler: Messenger,
    excluded: frozenset[str] = frozenset(),
    positions: Mapping[str, int] | None = None,
) -> Draw:
    """Run the guide on a batch, and the model on the guide's draws.

    Latents that ask to be summed are enumerated along dimensions left of the particles'.

    Args:
        pair: The pair.
        batch: The rows.
        nesting: Dimensions of the pair's plates, from ``plate_nesting``.
        particles: Adds the particles' dimension, just left of the plates'; ``None`` draws one
            particle, without a dimension.
        handler: Acts on the guide's draws. It stands outside the trace, which thus records the
            values that the handler leaves.
        excluded: Sites of the guide that are no part of the density of its draws.
        positions: Latents of the guide that have one of their values in all rows, by position in
            their support (``one_by_one``).
    """
    dim = None if particles is None else -1 - nesting
    first_enumerated = -1 - nesting if dim is None else dim - 1
    guide = FixedValues(positions or {})(with_particles(pair.guide, particles))
    guide = EnumerateInParallel()(guide)
    guide = EnumMessenger(first_available_dim=first_enumerated)(guide)
    model = EnumMessenger()(EnumerateInParallel()(with_particles(pair.model, particles)))
    with handler:
        guide_trace = poutine.trace(guide).get_trace(batch)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(batch)
    return Draw(model_trace, guide_trace, pair.plate, dim, batch_rows(batch), excluded)


def draw_given(
    pair: Pair,
    batch: Batch,
    nesting: int,
    guide_trace: Trace,
    particles: Particles | None = None,
    excluded: frozenset[str] = frozenset(),
) -> Draw:
    """Run the model on what the guide drew without enumeration.

    The latents that the model alone sums are enumerated; one that the guide draws too has the
    guide's value.

    Args:
        pair: The pair.
        batch: The rows.
        nesting: Dimensions of the pair's plates, from ``plate_nesting``.
        guide_trace: Trace of a plain run of the guide, with the particles' dimension if it has one.
        particles: Adds the particles' dimension; ``None`` for one particle, without a dimension.
        excluded: Sites of the guide that are no part of the density of its draws.
    """
    dim = None if particles is None else -1 - nesting
    first_enumerated = -1 - nesting if dim is None else dim - 1
    model = EnumerateInParallel()(with_particles(pair.model, particles))
    model = EnumMessenger(first_available_dim=first_enumerated)(model)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(batch)
    return Draw(model_trace, guide_trace, pair.plate, dim, batch_rows(batch), excluded)


@dataclass(frozen=True)
class ParticleRuns:
    """How a pair draws its particles: all in one run, or one run for each.

    Attributes:
        nesting: Dimensions of the pair's plates.
        vectorized: Whether all particles are drawn in one run.
        excluded: Sites of the guide that are no part of the density of its draws
            (``training_terms``).
        one_by_one: Latents of the guide that are summed one value at a time, ``{site: values}``.
    """

    nesting: int
    vectorized: bool
    excluded: frozenset[str] = frozenset()
    one_by_one: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, pair: Pair, batch: Batch, *, vectorized: bool) -> ParticleRuns:
        """Return how a pair draws its particles where the number of runs is given.

        Args:
            pair: The pair. Call the function inside ``Pair.quiet_run``.
            batch: A few rows.
            vectorized: Whether all particles are drawn in one run.
        """
        excluded, one_by_one = training_terms(pair, batch), values_one_by_one(pair, batch)
        return cls(plate_nesting(pair, batch), vectorized, excluded, one_by_one)

    @classmethod
    def probe(cls, pair: Pair, batch: Batch) -> ParticleRuns:
        """Find out how a pair can draw its particles, by a trial on a few rows.

        Call it inside ``Pair.quiet_run``, so that the trial leaves no trace.
        """
        runs = cls.of(pair, batch, vectorized=True)
        return replace(runs, vectorized=can_vectorize(pair, batch, runs.nesting))

    @property
    def dim(self) -> int | None:
        """The particles' dimension, counted from the right; ``None`` where each has its own run."""
        return -1 - self.nesting if self.vectorized else None

    def handlers(self, count: int, within: str | None = None) -> list[Particles | None]:
        """Return a handler for each run of the pair that is needed to draw ``count`` particles.

        Args:
            count: P, particles in all.
            within: Name of a plate: only its sites are drawn for each particle. All sites by
                default.

        Returns:
            One ``Particles`` handler for P particles, or P times ``None``: P plain runs.
        """
        if self.dim is None:
            return [None] * count
        return [Particles(count, self.dim, within)]

    def draws(
        self,
        pair: Pair,
        batch: Batch,
        count: int,
        *,
        share_globals: bool = False,
        handler: Messenger | None = None,
    ) -> Iterator[Draw]:
        """Run the pair until ``count`` particles are drawn; yield each run.

        Args:
            pair: The pair.
            batch: The rows.
            count: P, particles in all.
            share_globals: Whether all particles share one draw of the latents outside the row
                plate; else each particle has its own.
            handler: Acts on the guide's draws; only where all particles are drawn in one run.
        """
        shared: dict[str, Tensor] = {}
        for particles in self.handlers(count, pair.plate if share_globals else None):
            draw = self._draw(pair, batch, particles, handler, shared)
            yield draw
            if share_globals and not self.vectorized and not shared:
                in_guide = sites.sample_sites(draw.guide_trace).items()
                outside = {n: s for n, s in in_guide if not sites.in_plate(s, pair.plate)}
                shared = {name: site["value"] for name, site in outside.items()}

    def _draw(
        self,
        pair: Pair,
        batch: Batch,
        particles: Particles | None,
        handler: Messenger | None,
        shared: Mapping[str, Tensor],
    ) -> Draw:
        """Return one run of the pair, or the runs for all values of the latents that are summed.

        Args:
            pair: The pair.
            batch: The rows.
            particles: Adds the particles' dimension.
            handler: Acts on the guide's draws.
            shared: The draws of latents outside the row plate, where there are some already.
        """
        runs: list[Draw] = []
        values = dict(shared)
        for positions in combinations(self.one_by_one):
            acting = handler or Substitute(values)
            runs.append(
                draw_particles(
                    pair, batch, self.nesting, particles, acting, self.excluded, positions
                )
            )
            values = shared_values(runs[0], self.one_by_one)
        return SummedDraw.of(runs, self.one_by_one) if self.one_by_one else runs[0]


def can_vectorize(pair: Pair, batch: Batch, nesting: int) -> bool:
    """Return whether a pair gives the same numbers with all particles in one run.

    The numbers are the importance weights of the rows, and the terms outside the row plate.

    Args:
        pair: The pair.
        batch: A few rows.
        nesting: Dimensions of the pair's plates.
    """
    first_values = dict.fromkeys(values_one_by_one(pair, batch), 0)

    def run(values: Mapping[str, Tensor], particles: Particles | None) -> Scored:
        with Substitute(values):
            draw = draw_particles(
                pair, batch, nesting, particles, Messenger(), positions=first_values
            )
        drawn = {**sites.sample_sites(draw.model_trace), **sites.sample_sites(draw.guide_trace)}
        # (particles, rows) and (particles,); (1, ...) where all particles have the same number
        terms = [draw.log_weights(), *draw.global_terms().values()]
        return drawn, lambda particle: [term[particle if len(term) > 1 else 0] for term in terms]

    return runs_agree(run, nesting)


def runs_agree(
    run: Callable[[Mapping[str, Tensor], Particles | None], Scored], nesting: int
) -> bool:
    """Return whether particles drawn in one run have the scores that each of them has alone.

    A few particles are drawn in one run. Then the pair runs once more for each particle, without
    the particles' dimension and with all latents held at the values that the particle had. If the
    networks keep particles apart, each particle has the same log-probabilities in both runs; if a
    network mixes particles, or cannot take their dimension at all, the scores differ or the first
    run fails. Where a value cannot be scored again (a flow without an inverse raises ``KeyError``),
    nothing speaks against drawing in one run.

    Args:
        run: Runs the pair with latents held at given values, ``{site: value}``, and with a handler
            for the particles (``None`` for one particle). It returns the sites of the run by name,
            and a function from a particle's position (0 in a run of one particle) to the particle's
            log-probabilities.
        nesting: Dimensions of the pair's plates.

    Raises:
        OutsidePlateError: If a site stands outside a plate of a summed latent.
    """
    try:
        drawn, scores = run({}, Particles(TRIED, -1 - nesting))
        together = [scores(particle) for particle in range(TRIED)]
    except OutsidePlateError:  # a fault of the pair, with particles and without
        raise
    except Exception:  # a network may raise anything when it meets one more dimension
        return False
    for particle in range(TRIED):
        values = {
            name: select_particle(site["value"], site, particle, nesting)
            for name, site in drawn.items()
            if not site["is_observed"] and not was_enumerated(site)
        }
        try:
            alone = run(values, None)[1](0)
        except KeyError:
            return True
        for one, many in zip(alone, together[particle], strict=True):
            if not torch.allclose(one, many.expand(one.shape), TOLERANCE, TOLERANCE, True):
                return False
    return True


def select_particle(
    value: Tensor, site: sites.Site, particle: int, nesting: int, event_dim: int | None = None
) -> Tensor:
    """Return one particle's part of a site's value, in the shape of a run without particles.

    Args:
        value: The site's value, or a tensor laid out like it (a log-probability, a mask), from a
            run with particles.
        site: The site, from the same run.
        particle: Position of the particle.
        nesting: Dimensions of the pair's plates.
        event_dim: Dimensions of one event in ``value``; those of the site's distribution by
            default, 0 for a log-probability.

    Returns:
        The part, without the particles' dimension and without the dimensions of size 1 that Pyro
        put between that dimension and the site's own plates. A value without a particles' dimension
        (one draw for all particles) is returned as it is.
    """
    event = site["fn"].event_dim if event_dim is None else event_dim
    position = value.ndim - event - 1 - nesting
    if position < 0:
        return value
    value = value.select(position, particle if value.shape[position] > 1 else 0)
    plates = [f.dim for f in site["cond_indep_stack"] if f.name != Particles.NAME]
    own_dims = event + max((-dim for dim in plates if dim is not None), default=0)
    shape = value.shape[value.ndim - own_dims :]
    # dimensions of enumerated latents hold values of their own and must stay
    return value.reshape(shape) if value.numel() == shape.numel() else value
