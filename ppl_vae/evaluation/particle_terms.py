"""Numbers of some particles for a block of rows, as their log-weights: eager, traced, or compiled.

    terms(batch)["log_weights"]        (particles, rows), in nats

A large job calls one function, on blocks of one shape, many times. It is then worth a graph: the
pair's Python is written down once as tensor operations, the graph is compared with the pair itself
on blocks from all over the data, and it is compiled where the number of calls repays the compiler.
Where tracing fails, or the comparison does, the pair's own Python runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from ppl_vae.compiled.few_channels import FewChannels
from ppl_vae.compiled.graphs import compile_graph, trace_graph
from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import forked
from ppl_vae.core.supports import reaches_outside
from ppl_vae.data.rows import (
    Batch,
    Rows,
    as_tuple,
    batch_rows,
    evenly_spaced,
    in_form_of,
    map_batch,
)
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import ParticleRuns
from ppl_vae.elbo.points import point_latents

TRACED_FROM = 100  # calls from which tracing is repaid
COMPILED_FROM = 500  # calls from which the compiler is repaid, too
COMPARED_BLOCKS = 4  # blocks on which a graph is compared with the pair

Terms = dict[str, Tensor]  # (particles, rows, ...) each, in nats, by name


class ParticleTerms:
    """A function from a batch of rows to the terms of P particles for each row.

    Args:
        pair: The pair.
        rows: The data.
        count: P, particles drawn by one call; a pair that draws nothing runs with one.
        measure: The terms of one run of the pair, by name; (1, rows, ...) where all particles have
            the same. The log-weights and the ELBO's terms by default.

    Attributes:
        runs: How the pair draws its particles.
        points: Latents of the rows that the guide gives as a point: no term of theirs is a weight.
        kind: What a call runs: "eager" (the pair's own Python), "traced" or "compiled".
        size: Rows that the graph takes; 0 without a graph.
        draws_discrete: Whether a discrete latent of the rows is drawn and not summed.
        draws_nothing: Whether no latent at all is drawn: every call returns the same terms.
        outside: Names of the latents outside the row plate, which the weights leave out.
        narrow: Names of the latents whose guide draws only a part of the prior's support.
    """

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        count: int,
        measure: Callable[[Draw], Terms] | None = None,
    ) -> None:
        self.pair, self.rows, self.count = pair, rows, count
        self.measure = measure or weights_and_elbo
        with quiet_look(pair, rows) as few_rows:
            self.runs = ParticleRuns.probe(pair, few_rows)
            self.points = point_latents(pair, few_rows)
            draw = next(self.runs.draws(pair, few_rows, 2))
        self.draws_discrete, self.draws_nothing = draw.draws_discrete, draw.draws_nothing
        if self.draws_nothing:
            self.count = 1
        self.outside = [
            name
            for name, site in sites.sample_sites(draw.model_trace).items()
            if sites.role(site) == "latent" and not sites.in_plate(site, pair.plate)
        ]
        prior, drawn = (sites.sample_sites(t) for t in (draw.model_trace, draw.guide_trace))
        self.narrow = [
            name
            for name in sites.with_role(draw.guide_trace, "latent")
            if name in prior and reaches_outside(prior[name]["fn"], drawn[name]["fn"])
        ]
        self.function: Callable[..., list[Tensor]] | None = None
        self.constants: list[Tensor] = []
        self.names: list[str] = []
        self.forms: list[tuple[torch.dtype, torch.Size]] = []
        self.size = 0
        self.kind = "eager"

    def __call__(self, batch: Batch) -> Terms:
        """Draw P particles for every row, by the graph if there is one for this many rows.

        The last block of the data is often shorter than the graph's size. Its rows are repeated up
        to that size, and the surplus is cut off; below half the size the pair's own Python runs.
        So it does on numbers of another dtype than the graph's, whose memory a graph would misread,
        and on sequences that are padded to another number of steps.
        """
        count = batch_rows(batch)
        if self.function is None or count * 2 < self.size or _forms(batch) != self.forms:
            return self.eager(batch)
        if count < self.size:
            repeated = torch.arange(self.size) % count
            batch = map_batch(batch, lambda field: field[repeated.to(field.device)])
        outputs = self.function(*self.constants, *as_tuple(batch))
        return {name: value[:, :count] for name, value in zip(self.names, outputs, strict=True)}

    def eager(self, batch: Batch) -> Terms:
        """Draw P particles for every row by the pair's own Python; returns what a call returns."""
        draws = self.runs.draws(self.pair, batch, self.count)
        parts = [self.measure(draw) for draw in draws]
        if len(parts) > 1:
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        # a term of one particle is that of all: nothing is drawn, or it is an exact expectation
        return {
            name: value.expand(self.count, *value.shape[1:]) if len(value) == 1 else value
            for name, value in parts[0].items()
        }

    def prepare(
        self, size: int, calls: int, requested: bool | str, work: int | None = None
    ) -> None:
        """Trace the function, and compile it, where the calls to come repay it.

        Args:
            size: Rows in a block.
            calls: Calls to come.
            requested: ``True`` for a graph at any number of calls, ``"auto"`` for one where it is
                repaid, ``False`` for none.
            work: As many calls as the compiler sees in them, where a call has but a part of the
                arithmetic that ``COMPILED_FROM`` assumes; all of them by default.
        """
        wanted = requested is True or (requested == "auto" and calls >= TRACED_FROM)
        if not wanted or not self.runs.vectorized:
            return
        first = self._take(torch.arange(size))
        self.forms = _forms(first)

        def function(*fields: Tensor) -> list[Tensor]:
            terms = self.eager(in_form_of(first, fields))
            self.names = list(terms)
            return list(terms.values())

        with pyro_lock(), forked(0), self.pair.evaluating():
            try:
                with FewChannels():
                    graph = trace_graph(function, as_tuple(first), ())
            except Exception:  # the pair's Python may do anything to the tracer
                return
            self.constants, self.size = graph.constants, size
            if not self._use_if_equal(graph.module, "traced", 1000 * graph.precision):
                return
            if requested is True or (calls if work is None else work) >= COMPILED_FROM:
                with contextlib.suppress(Exception):  # no compiler, or one that fails
                    compiled = compile_graph(graph.module, graph.constants, list(as_tuple(first)))
                    self._use_if_equal(compiled, "compiled", 30 * graph.precision**0.5)

    def _use_if_equal(
        self, function: Callable[..., list[Tensor]], kind: str, tolerance: float
    ) -> bool:
        """Use a graph for all later calls if its results equal the pair's; return whether they do.

        Args:
            function: The graph, traced or compiled.
            kind: The new value of ``kind``.
            tolerance: Relative difference that rounding explains.
        """
        before, self.function = self.function, function
        equal = self._equals_eager(tolerance)
        self.function, self.kind = (function, kind) if equal else (before, self.kind)
        return equal

    def _equals_eager(self, tolerance: float) -> bool:
        """Return whether the graph equals the pair, on blocks from all over the data.

        Graph and pair draw the same random numbers. The tolerance is relative to the largest value
        of a block, as sums over many cells are rounded on that scale.
        """
        starts = evenly_spaced(len(self.rows) - self.size + 1, COMPARED_BLOCKS).unique()
        for seed, start in enumerate(starts.tolist()):
            batch = self._take(torch.arange(start, start + self.size))
            # unchecked: a row on which the pair overflows is NaN in both
            with forked(seed), pyro.validation_enabled(False):
                expected = self.eager(batch)
            with forked(seed):
                got = self(batch)
            for name, by_pair in expected.items():
                by_graph = got[name]
                spread = tolerance * max(1.0, float(by_pair.nan_to_num(0.0, 0.0, 0.0).abs().max()))
                if not torch.allclose(by_graph, by_pair, tolerance, spread, equal_nan=True):
                    return False
        return True

    def _take(self, index: Tensor) -> Batch:
        """Return the rows at some positions, on the pair's device."""
        return self.rows.take(index, self.pair.device())


def _forms(batch: Batch) -> list[tuple[torch.dtype, torch.Size]]:
    """Return the dtype of each field, and the shape of its rows."""
    return [(field.dtype, field.shape[1:]) for field in as_tuple(batch)]


def weights_and_elbo(draw: Draw) -> Terms:
    """Return the log-weights of a run and, where they differ, the terms whose average is the ELBO.

    The ELBO's terms, under the name "elbo", are there where a latent is summed.
    """
    terms = {"log_weights": draw.log_weights()}
    return {**terms, "elbo": draw.log_ratios()} if draw.has_enumerated else terms
