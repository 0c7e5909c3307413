"""Log-weights of a few particles for a block of rows: as the pair runs, traced, or compiled.

    log_weights, elbo = chunk(batch)        (particles, rows) each, in nats

A large job calls one function of one shape many times, so that it is worth a graph: written down
once, compared with the pair itself on blocks from all over the data, and compiled where that is
repaid. Where the comparison fails, or tracing does, the pair runs as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from ppl_vae.compiled.inductor import compile_graph
from ppl_vae.compiled.tracing import trace_graph
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows, in_form_of, map_batch
from ppl_vae.elbo.weights import Draw, can_vectorize, draw_particles, plate_nesting

PARTICLES = 64  # of a row in one chunk
TRACED_FROM, COMPILED_FROM = 100, 2_000  # calls that repay tracing, and the compiler
COMPARED = 4  # blocks on which a graph is compared with the pair

Result = tuple[Tensor, Tensor]


class LogWeights:
    """A function of batches of rows.

    Args:
        pair: The pair.
        rows: The data.
        count: P, particles a call.
    """

    def __init__(self, pair: Pair, rows: Rows, count: int) -> None:
        self.pair, self.rows, self.count = pair, rows, count
        with quiet_look(pair, rows) as few:
            self.nesting = plate_nesting(pair, few)
            self.vectorized = can_vectorize(pair, few, self.nesting)
        self.function: Callable[..., list[Tensor]] | None = None
        self.constants: list[Tensor] = []
        self.size = 0
        self.kind = "eager"

    def __call__(self, batch: Batch) -> Result:
        """Draw P particles for every row."""
        count = batch_rows(batch)
        if self.function is None or count * 2 < self.size:
            return self.eager(batch)
        if count < self.size:  # the last block, repeated to the size of the others
            batch = map_batch(batch, lambda field: _repeated(field, self.size))
        found = self.function(*self.constants, *as_tuple(batch))
        return found[0][:, :count], found[-1][:, :count]

    def eager(self, batch: Batch) -> Result:
        """The same by the pair's own Python."""
        if self.vectorized:
            one = draw_particles(self.pair, batch, count=self.count, nesting=self.nesting)
            log_weights, elbo = _result(one)
            if len(log_weights) == self.count:
                return log_weights, elbo
            return log_weights.expand(self.count, -1), elbo.expand(self.count, -1)  # no draw in it
        runs = [
            _result(draw_particles(self.pair, batch, count=None, nesting=self.nesting))
            for _ in range(self.count)
        ]
        return torch.cat([run[0] for run in runs]), torch.cat([run[1] for run in runs])

    def prepare(self, size: int, calls: int, requested: bool | str) -> None:
        """Trace and compile where so many calls on ``size`` rows are to come."""
        wanted = requested is True or (requested == "auto" and calls >= TRACED_FROM)
        if not wanted or not self.vectorized:
            return
        first = self._take(torch.arange(size))

        def function(*fields: Tensor) -> list[Tensor]:
            log_weights, elbo = self.eager(in_form_of(first, fields))
            return [log_weights] if elbo is log_weights else [log_weights, elbo]

        with pyro_lock(), forked(0), self.pair.evaluating():
            try:
                graph = trace_graph(function, as_tuple(first), ())
            except Exception:  # whatever the pair's Python does to the tracer
                return
            self.constants, self.size = graph.constants, size
            if not self._proved(graph.module, "traced", 1000 * graph.precision):
                return
            if requested is True or calls >= COMPILED_FROM:
                with contextlib.suppress(Exception):  # no compiler, or one that fails
                    made = compile_graph(graph.module, graph.constants, list(as_tuple(first)))
                    self._proved(made, "compiled", 30 * graph.precision**0.5)

    def _proved(self, function: Callable[..., list[Tensor]], kind: str, tolerance: float) -> bool:
        """Use a function if it is the pair, on blocks from all over the data, with its draws."""
        before = self.function
        self.function = function
        if self._agrees(tolerance):
            self.kind = kind
            return True
        self.function = before
        return False

    def _agrees(self, tolerance: float) -> bool:
        starts = torch.linspace(0, len(self.rows) - self.size, COMPARED).long().unique()
        for seed, start in enumerate(starts.tolist()):
            batch = self._take(torch.arange(start, start + self.size))
            with forked(seed):
                right = self.eager(batch)
            with forked(seed):
                got = self(batch)
            for ours, theirs in zip(got, right, strict=True):
                spread = tolerance * max(1.0, float(theirs.abs().max()))
                if not torch.allclose(ours, theirs, rtol=tolerance, atol=spread, equal_nan=True):
                    return False
        return True

    def _take(self, index: Tensor) -> Batch:
        return self.rows.take(index, self.pair.device())


def _result(one: Draw) -> Result:
    log_weights = one.log_weights()
    if not one.is_summed:
        return log_weights, log_weights
    terms = torch.broadcast_tensors(*one.terms(closed=False).values())
    return log_weights, torch.stack(terms).sum(0).expand_as(log_weights)


def _repeated(field: Tensor, size: int) -> Tensor:
    return field[torch.arange(size, device=field.device) % len(field)]
