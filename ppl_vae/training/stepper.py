"""The stepper: chooses between the eager, the traced and the compiled step, and runs the choice.

    eager       the pair's own Python, every step                        nothing to prepare
    traced      one graph of tensor operations, run operation by         a fraction of a second to
                operation                                                 a few seconds
    compiled    that graph and the optimizer's update, compiled           about ten seconds

How the stepper chooses: before the first update, by the number of steps to come (``step_kind``).
Steps differ in rounding, so that a choice by measured times would make a fit depend on the machine.

How the stepper stays right: a traced step freezes what the tracer could not see change, such as a
number of Python's or a draw of numpy's. So a traced step is compared with the eager one before it
is used (``prepare``), and again as the fit goes on (``check``): after the callbacks of every epoch
where the user's code runs between epochs, else once in ``CHECKED_EVERY`` steps. A first difference
that appears during a fit traces the step again, because a callback may rightly change the pair
once, at some epoch. A second one ends the traced step.

Large graphs, of a loop over a sequence say, take minutes to compile: only if the user insists.

How the stepper falls back: where a step cannot be traced, or differs from the eager one, the eager
step runs and a warning says why; under ``compile=True`` that is an error. Where only compiled code
fails or differs, at any time of a fit, the traced step runs uncompiled and a warning says why.

What was chosen is stored with a run and restored when it is resumed: a resumed fit has fewer steps
to come, and would choose otherwise.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ppl_vae.core.pair import Pair
from ppl_vae.core.rounds import Rounds, rounds
from ppl_vae.core.seeding import forked
from ppl_vae.core.threads import threads_for
from ppl_vae.core.world import World
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.loss import Gradients, LossAndGradient
from ppl_vae.elbo.objectives import Objective
from ppl_vae.training.agreement import kinds_of_all
from ppl_vae.training.batches import check_batch_size, layer_refusing_one_row, shard_sizes
from ppl_vae.training.diagnosis import first_line
from ppl_vae.training.eager_step import EagerStep
from ppl_vae.training.equivalence import (
    difference_from_eager,
    difference_on_batch,
    many_differ,
    state_restored,
)
from ppl_vae.training.like_lengths import batches_of_epoch
from ppl_vae.training.shards import ShardedStep
from ppl_vae.training.traced_step import CompiledStepError, TracedStep

KINDS = EAGER, TRACED, COMPILED = "eager", "traced", "compiled"
TRACED_FROM = 300  # steps to come after which tracing and its comparison are repaid
COMPILED_FROM = 8_000  # steps to come after which the compiler is repaid
LARGEST_COMPILED = 4_000  # operations of a graph; the compiler needs minutes for more
CHECKED_EVERY = 1000  # steps between comparisons, where no code of the user's runs between epochs


def step_kind(requested: bool | str, steps: int) -> str:
    """Return the kind of step for a number of steps to come.

    The limits were measured by ``benchmarks/step.py``, whose last lines say after how many steps
    tracing and compiling are repaid. The sizes of a pair hardly matter, because the time that is
    saved is Python's.

    Args:
        requested: The argument ``compile`` of ``fit``.
        steps: Steps to come.

    Example:
        >>> step_kind("auto", 100), step_kind("auto", 1000), step_kind(True, 100)
        ('eager', 'traced', 'compiled')
    """
    if requested == "auto":
        return COMPILED if steps >= COMPILED_FROM else TRACED if steps >= TRACED_FROM else EAGER
    return COMPILED if requested else EAGER


class Stepper:
    """Updates the parameters from batches of rows, by the kind of step that pays.

    Args:
        pair: The pair.
        rows: The data.
        objective: What is minimized.
        parameters: The trainable parameters.
        optimizer: One of torch's, over these parameters.
        clip_norm: Largest norm of the gradient of all parameters together; ``None`` leaves
            gradients alone.
        requested: ``True`` insists on a compiled step, ``"auto"`` chooses by the number of steps
            to come, ``False`` runs the eager step.
        batch_size: Rows of every batch, except perhaps the last one of an epoch, which has the
            remaining rows, or one row more (see ``batches.py``).
        weighted: Whether the KL weight may differ from 1.
        watched: Whether the user's code runs between steps or epochs.
        shards: V, the shards of a batch; 1 for steps of whole batches.
        seed: Seeds the noise of shards.
        team: The processes that share the shards; it decides nothing that the fit depends on.

    Attributes:
        kinds: ``{rows of a batch or of a shard: kind of step}``; the last batch of an epoch may
            have a kind of its own.
        reason: Why the kinds are what they are, for the history.
        traced_steps: ``{rows of a batch: traced step}``, for the kinds that are not eager.
        joins_last: Whether a last row of an epoch joins the batch before it.
        retraced: Whether the step was traced again after a difference appeared.
        threads: Threads of torch's that the fit runs on; ``None`` for all that torch has.
        sharded: Makes the updates from shards; ``None`` where a batch is not cut.
    """

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        objective: Objective,
        parameters: list[Tensor],
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
        *,
        requested: bool | str,
        batch_size: int,
        weighted: bool,
        watched: bool,
        shards: int = 1,
        seed: int | None = None,
        team: World | None = None,
    ) -> None:
        self.pair, self.rows, self.requested = pair, rows, requested
        self.objective, self.optimizer = objective, optimizer
        self.batch_size, self.weighted, self.watched = batch_size, weighted, watched
        self.derivative = LossAndGradient(pair, objective, len(rows), parameters)
        self.eager = EagerStep(self.derivative, optimizer, clip_norm)
        self.traced_steps: dict[int, TracedStep] = {}
        self.kinds: dict[int, str] = {}
        self.reason, self.retraced, self.joins_last = "", False, False
        self.threads: int | None = None
        self.shards, self.team = shards, World() if team is None else team
        self.sharded: ShardedStep | None = None
        if shards > 1:
            assert seed is not None
            self.sharded = ShardedStep(
                pair, self.eager, self._gradient, self._interpret,
                shards=shards, seed=seed, team=self.team,
            )  # fmt: skip

    @property
    def kind(self) -> str:
        """Kind of step for batches of ``batch_size`` rows, or for their largest shards."""
        return self.kinds.get(shard_sizes(self.batch_size, self.shards)[0], EAGER)

    def plan(self, epochs: int) -> None:
        """Choose the kinds of step for a number of epochs to come.

        The last batch of an epoch may be smaller. A graph holds for one size, so the smaller batch
        needs a traced step of its own, which runs once an epoch and so seldom repays a compiler.

        Raises:
            ValueError: If every batch has one row, and batch normalization refuses that.
        """
        whole_batches, last_rows = divmod(len(self.rows), self.batch_size)
        fewest = 2 * self.shards  # with fewer rows, a shard has one row or none
        if 0 < last_rows < fewest or self.batch_size < fewest:
            layer = layer_refusing_one_row(self.pair, self._run_one_row)
            check_batch_size(len(self.rows), self.batch_size, layer, self.shards)
            self.joins_last = bool(layer) and 0 < last_rows < fewest
        if self.joins_last:
            whole_batches, last_rows = whole_batches - 1, self.batch_size + last_rows
        steps = whole_batches * epochs
        requested = self.requested if self.rows.trim is None else False  # lengths vary
        insisted = requested is True and epochs < COMPILED_FROM
        chosen = step_kind("auto" if requested else False, epochs)
        of_last = shard_sizes(last_rows, self.shards)
        of_whole = shard_sizes(self.batch_size, self.shards)
        self.kinds = dict.fromkeys(of_last, TRACED if insisted else chosen)
        self.kinds = {
            **dict.fromkeys(of_whole, step_kind(requested, steps)),
            **{size: kind for size, kind in self.kinds.items() if size not in of_whole},
        }
        self.reason = f"compile={self.requested}"
        if self.requested == "auto":
            self.reason = f"the fit has {steps:,} steps of whole batches"
            if requested is False:
                self.reason = "batches of sequences have different numbers of steps"
        # The first call lets Pyro's ELBO set max_plate_nesting; the first step tells of any error.
        rows = torch.arange(self.batch_size)
        with contextlib.suppress(Exception), forked(0), state_restored(self.pair):
            self.threads = threads_for(lambda: self.run_eagerly(rows, 1.0))

    def batches(self, generator: torch.Generator) -> list[Tensor]:
        """Draw an epoch's order of the rows, and cut it into batches, (rows,) each."""
        return batches_of_epoch(self.rows, self.batch_size, self.joins_last, generator)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return math.ceil(len(self.rows) / self.batch_size) - self.joins_last

    def prepare(self) -> None:
        """Trace, compare and compile the chosen steps; fall back where that cannot be done.

        Weights, buffers and random generators are as they were afterwards.

        Raises:
            ValueError: Under ``compile=True``, where a traced step differs from the eager one.
        """
        for size in list(self.kinds):
            if self.kinds[size] != EAGER and size not in self.traced_steps:
                with forked(0), state_restored(self.pair):
                    problem = self._make(size)
                if problem:
                    self._fall_back(problem)
                    break
        self._agree()
        if self.sharded is not None:
            first_rows = torch.arange(max(self.kinds))
            self.sharded.prepare(lambda: self.run_eagerly(first_rows, 1.0))

    def rounds(self) -> contextlib.AbstractContextManager[Rounds | None]:
        """Make a context for the steps of an epoch, in which all ranks make the same steps."""
        if self.sharded is None:
            return contextlib.nullcontext()
        self.sharded.remember()
        return rounds(self.team, self.sharded.sizes, self.sharded.device, "the steps of an epoch")

    def step_of_shards(
        self, index: Tensor, kl_weight: float, step: int, each: Rounds, pressed: list[bool]
    ) -> tuple[list[float], bool]:
        """Update once from the shards of the rows at ``index``; see ``ShardedStep``."""
        assert self.sharded is not None
        return self.sharded(index, kl_weight, step, each, pressed)

    def __call__(
        self, index: Tensor, kl_weight: float, rng_state: Tensor | None = None
    ) -> tuple[list[float], bool]:
        """Update once; where compiled code raises, by the traced graph from now on, with a warning.

        Args:
            index: The rows of the step, (rows,).
            kl_weight: Its KL weight.
            rng_state: State of torch's generator when the step began, from which the traced graph
                draws again where compiled code raises; ``None`` draws on.

        Returns:
            What ``EagerStep`` returns.
        """
        traced_step = self.traced_steps.get(len(index))
        if traced_step is not None:
            try:
                return traced_step(index, kl_weight)
            except CompiledStepError as error:
                self._interpret(len(index), f"the compiled step failed: {error}")
            if rng_state is not None:
                torch.set_rng_state(rng_state)
            return traced_step(index, kl_weight)
        batch = self.rows.take(index, self.derivative.parameters[0].device)
        return self.eager(batch, kl_weight if self.weighted else None)

    def check(self, first_step: int, next_step: int) -> None:
        """Compare the traced steps with the eager one again, at the end of an epoch.

        The comparison runs after the callbacks. Other rows are compared at every check.

        Args:
            first_step: The step that the epoch began with.
            next_step: The step that comes next.
        """
        if not self.watched and first_step // CHECKED_EVERY == next_step // CHECKED_EVERY:
            return
        problem = next(filter(None, self.team.texts(self._problem(next_step), "a check")), "")
        self._agree()
        if problem:
            self._trace_again_once(problem)

    def _problem(self, next_step: int) -> str:
        """Return words for the first traced step that is not the eager one any more, or ``""``."""
        for size, traced_step in self.traced_steps.items():
            index = (torch.arange(size) + next_step) % len(self.rows)
            try:
                difference = difference_on_batch(traced_step, index, seed=next_step % 2**32)
            except CompiledStepError as error:
                self._interpret(size, f"the compiled step failed: {error}")
                continue
            except ValueError:  # not finite, or refused by Pyro's checks: the next step will raise
                return ""
            if difference:
                return f"at step {next_step} {difference}"
        return ""

    def _agree(self) -> None:
        """Take the kinds of step that every rank can run: kinds differ in rounding."""
        for size, kind, reason in kinds_of_all(self.team, self.kinds, self.reason):
            if KINDS.index(kind) >= KINDS.index(self.kinds[size]):
                continue
            self.kinds[size], self.reason = kind, reason
            if kind == EAGER:
                self.traced_steps.pop(size, None)
            else:
                self.traced_steps[size].interpret()

    def state(self) -> dict[str, Any]:
        """Return what a run and a snapshot store."""
        return {"kinds": sorted(self.kinds.items()), "reason": self.reason,
                "retraced": self.retraced, "threads": self.threads}  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.kinds = dict(state["kinds"])
        self.reason, self.retraced = state["reason"], state["retraced"]
        self.threads = state.get("threads")  # an older run took what torch had

    def _gradient(self, index: Tensor, kl_weight: float) -> tuple[Tensor, Gradients]:
        """Return losses, (2,), and gradients of a shard's rows, by the kind of step that runs."""
        traced_step = self.traced_steps.get(len(index))
        if traced_step is not None:
            return traced_step.gradient(index, kl_weight)
        return self.run_eagerly(index, kl_weight)

    def run_eagerly(self, index: Tensor, kl_weight: float) -> tuple[Tensor, Gradients]:
        """Return losses, (2,), and gradients by the pair's own Python, errors included."""
        weight = torch.tensor(float(kl_weight)) if self.weighted else None
        batch = self.rows.take(index, self.derivative.parameters[0].device)
        return self.derivative(batch, weight)

    def _run_one_row(self) -> None:
        """Compute the loss of one row; weights, buffers and generators stay as they are."""
        with forked(0), state_restored(self.pair):
            self.run_eagerly(torch.arange(1), 1.0)

    def _make(self, size: int) -> str:
        """Trace, compare and compile the step for batches of a size.

        Returns words for what prevents a traced step, or ``""``.
        """
        indices = self._first_and_last_rows(size)
        try:
            traced_step = TracedStep(
                self.eager, self.rows, indices[0],
                weighted=self.weighted, updates=self.sharded is None,
            )  # fmt: skip
        except Exception as error:  # whatever the pair's Python does to the tracer
            return f"it cannot be traced: {first_line(error)}"
        self.traced_steps[size] = traced_step
        difference = difference_from_eager(traced_step, indices)
        operations = len(traced_step.graph.module.graph.nodes)
        large = operations > LARGEST_COMPILED  # a loop over time is unrolled in a graph
        if large and self.kinds[size] == COMPILED and self.requested == "auto":
            self.kinds[size] = TRACED
            self.reason = f"a graph of {operations:,} operations would take minutes to compile"
        if self.kinds[size] == COMPILED and not difference:
            try:
                traced_step.compile(indices[0])
                wrong = difference_from_eager(traced_step, indices)
                if wrong:
                    raise RuntimeError(f"the compiled step differs from the traced one: {wrong}")
                if traced_step.runs_many and many_differ(traced_step, 2 * indices):
                    traced_step.bare = None  # steps are made one by one
            except CompiledStepError as error:
                self._interpret(size, f"the compiled step failed: {error}")
            except Exception as error:  # no compiler, or a compiler that fails
                self._interpret(size, f"the compiler failed: {first_line(error)}")
        return difference

    def _interpret(self, size: int, reason: str) -> None:
        """Run the traced graph instead of compiled code from now on, with a warning."""
        self.traced_steps[size].interpret()
        self.kinds[size], self.reason = TRACED, reason
        warnings.warn(f"compile: {reason}; the traced graph runs, which is slower", stacklevel=2)

    def _first_and_last_rows(self, size: int) -> list[Tensor]:
        """Return the positions of two batches, (size,) each: the first rows and the last rows."""
        return [torch.arange(size), torch.arange(len(self.rows)).flip(0)[:size]]

    def _trace_again_once(self, problem: str) -> None:
        """Trace the steps again after a first difference; run the eager step after a second."""
        if self.retraced:
            self._fall_back(problem)
        else:
            self.retraced = True
            self.traced_steps.clear()
            self.prepare()

    def _fall_back(self, problem: str) -> None:
        """Run the eager step from now on, with a warning; raise under ``compile=True``."""
        if self.requested is True:
            raise ValueError(
                f"compile: the traced step is not the eager one: {problem}; what changes between "
                'steps must be a buffer that is updated in place; or pass compile="auto"'
            )
        self.traced_steps.clear()
        self.kinds = dict.fromkeys(self.kinds, EAGER)
        self.reason = f"the traced step is not the eager one: {problem}"
        warnings.warn(f"compile: {self.reason}; the eager step runs instead", stacklevel=2)
