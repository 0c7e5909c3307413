"""Which step runs: the eager one, the traced graph, or the graph compiled.

A rule of the steps to come decides before the first update; a traced step runs once it is proved
equal to the eager one, and only as long as it stays so. What it became is part of a fit's state.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor

from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.elbo.objectives import Objective
from ppl_vae.training.equivalence import (
    NOT_FINITE,
    difference_from_eager,
    difference_on_batch,
    state_restored,
)
from ppl_vae.training.step import EagerStep
from ppl_vae.training.traced_step import TracedStep

EAGER, TRACED, COMPILED = "eager", "traced", "compiled"
TRACED_FROM = 300  # steps to come that repay tracing and its proof
COMPILED_FROM = 8_000  # steps to come that repay the compiler
CHECKED_EVERY = 1000  # steps, where no code of the user's runs between epochs


def step_kind(requested: bool | str, steps: int) -> str:
    """The kind of step for so many steps to come.

    Calibrated by ``benchmarks/step.py``, whose last lines say after how many steps tracing and
    compiling are repaid; by sizes it hardly differs, since what is saved is Python's time.
    """
    if requested == "auto":
        return COMPILED if steps >= COMPILED_FROM else TRACED if steps >= TRACED_FROM else EAGER
    return COMPILED if requested else EAGER


class Stepper:
    """Updates the parameters from batches of rows.

    Args:
        pair: The pair.
        rows: The data.
        objective: What is minimized.
        parameters: The trainable parameters.
        optimizer: torch's, over these parameters.
        clip_norm: Largest global gradient norm; ``None`` leaves gradients alone.
        requested: ``True`` insists on a traced step, ``"auto"`` tries, ``False`` does not.
        batch_size: Rows of a step, but of the last one of an epoch.
        weighted: Whether the KL weight may differ from 1.
        watched: Whether code of the user's runs between steps or epochs.

    Attributes:
        kinds: Kind of step by the size of its batch.
        reason: Why they are what they are.
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
    ) -> None:
        self.pair, self.rows, self.requested = pair, rows, requested
        self.batch_size, self.weighted, self.watched = batch_size, weighted, watched
        self.derivative = LossAndGradient(pair, objective, len(rows), parameters)
        self.eager = EagerStep(self.derivative, optimizer, clip_norm)
        self.programs: dict[int, TracedStep] = {}
        self.kinds: dict[int, str] = {}
        self.reason, self.retraced = "", False

    @property
    def kind(self) -> str:
        """Kind of the step for whole batches."""
        return self.kinds.get(self.batch_size, EAGER)

    def plan(self, epochs: int) -> None:
        """Choose the kinds by the rule, for so many epochs to come."""
        whole, last = divmod(len(self.rows), self.batch_size)
        self.kinds = {self.batch_size: step_kind(self.requested, whole * epochs)}
        if last:  # one step an epoch, seldom worth a compiler
            insisted = self.requested is True and epochs < COMPILED_FROM
            chosen = step_kind("auto" if self.requested else False, epochs)
            self.kinds[last] = TRACED if insisted else chosen
        if self.requested == "auto":
            self.reason = f"{whole * epochs:,} steps to come"
        else:
            self.reason = f"compile={self.requested}"

    def prepare(self) -> None:
        """Trace, prove and compile what was chosen; fall back where that cannot be done.

        Raises:
            ValueError: Where ``compile=True`` and the step cannot be proved.
        """
        elbo = self.derivative.objective.elbo
        if self.derivative.objective.enumerates or elbo.vectorize_particles:
            with forked(0), state_restored(self.pair), contextlib.suppress(ValueError):
                self._eagerly(self._indices(self.batch_size)[0], 1.0)  # it guesses how plates nest
        for size in list(self.kinds):
            if self.kinds[size] != EAGER and size not in self.programs:
                with forked(0), state_restored(self.pair):
                    problem = self._make(size)
                if problem:
                    self._fall_back(problem)
                    return

    def __call__(self, index: Tensor, kl_weight: float) -> tuple[float, bool]:
        """Update once; returns what ``EagerStep`` returns."""
        program = self.programs.get(len(index))
        if program is not None:
            return program(index, kl_weight)
        batch = self.rows.take(index, self.derivative.parameters[0].device)
        return self.eager(batch, kl_weight if self.weighted else None)

    def complaint(self, index: Tensor, kl_weight: float, draws: Tensor) -> ValueError | None:
        """What Pyro's own checks say of a step that was not applied, drawn again."""
        if len(index) not in self.programs:
            return None
        torch.set_rng_state(draws)
        with state_restored(self.pair):
            try:
                self._eagerly(index, kl_weight)
            except ValueError as error:
                return error
        return None

    def _eagerly(self, index: Tensor, kl_weight: float) -> None:
        weight = torch.tensor(float(kl_weight)) if self.weighted else None
        self.derivative(self.rows.take(index, self.derivative.parameters[0].device), weight)

    def check(self, before: int, step: int) -> None:
        """Compare again at the end of an epoch, after the callbacks.

        Every epoch where code of the user's runs between steps; else once in ``CHECKED_EVERY``
        steps, since nothing but that code can have changed what the tracer saw.

        Args:
            before: The step that the epoch began with.
            step: The step that comes next.
        """
        if not self.watched and before // CHECKED_EVERY == step // CHECKED_EVERY:
            return
        for size, program in self.programs.items():
            index = (torch.arange(size) + step) % len(self.rows)  # other rows at every check
            args = program, self.derivative, self.pair, self.rows, index
            try:
                difference = difference_on_batch(*args, seed=step % 2**32)
            except ValueError:  # of Pyro's checks: the next step will say what happened
                return
            if difference == NOT_FINITE:
                return
            if difference and self.retraced:
                self._fall_back(f"at step {step} {difference}")
            elif difference:
                self.retraced = True
                self.programs.clear()
                self.prepare()
            if difference:
                return

    def state(self) -> dict[str, Any]:
        """What a snapshot keeps."""
        return {"kinds": sorted(self.kinds.items()), "reason": self.reason,
                "retraced": self.retraced}  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        """Go on with the kinds of a snapshot."""
        self.kinds = dict(state["kinds"])
        self.reason, self.retraced = state["reason"], state["retraced"]

    def _make(self, size: int) -> str:
        """Make and prove the program of a size; returns what prevents it, or ``""``."""
        indices = self._indices(size)
        args = self.derivative, self.eager.optimizer, self.eager.limit, self.rows, indices[0]
        try:
            program = TracedStep(*args, weighted=self.weighted)
        except Exception as error:  # whatever the pair's Python does to the tracer
            return f"it cannot be traced: {_first_line(error)}"
        self.programs[size] = program
        difference = self._proved(program, indices)
        if self.kinds[size] == COMPILED and not difference:
            try:
                program.compile(indices[0])
                wrong = self._proved(program, indices)
                if wrong:
                    raise RuntimeError(f"what it made is not the traced step: {wrong}")
            except Exception as error:  # no compiler, or one that fails
                program.interpret()
                self.kinds[size] = TRACED
                self.reason = f"the compiler failed: {_first_line(error)}"
                warnings.warn(
                    f"compile: {self.reason}; the traced graph runs instead, which is slower",
                    stacklevel=2,
                )
        return difference

    def _proved(self, program: TracedStep, indices: list[Tensor]) -> str:
        return difference_from_eager(program, self.derivative, self.pair, self.rows, indices)

    def _indices(self, size: int) -> list[Tensor]:
        """Two batches: the first rows of the data, and the last, from the end."""
        return [torch.arange(size), torch.arange(len(self.rows)).flip(0)[:size]]

    def _fall_back(self, problem: str) -> None:
        """Run the eager step from here on, and say why."""
        if self.requested is True:
            raise ValueError(
                f"compile: the traced step is not the eager one: {problem}; what changes between "
                'steps must be a buffer that is updated in place; or pass compile="auto"'
            )
        self.programs.clear()
        self.kinds = dict.fromkeys(self.kinds, EAGER)
        self.reason = f"the traced step is not the eager one: {problem}"
        warnings.warn(f"compile: {self.reason}; the eager step runs instead", stacklevel=2)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
