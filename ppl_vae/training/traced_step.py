"""One update as one call of a program on tensors: gather, loss, gradient, clipping, optimizer.

    x = data[index];   loss, g = graph(parameters, constants, x, w);   g <- g min(1, c / |g|)

Nothing moves where the loss or |g| is not finite. The program owns no tensor: called with copies,
it leaves the pair alone, which is how it is proved.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.compiled.inductor import compile_graph
from ppl_vae.compiled.tracing import trace_graph
from ppl_vae.data.rows import Rows, as_tuple, in_form_of
from ppl_vae.elbo.loss import Gradients, LossAndGradient
from ppl_vae.training.optimizers import TensorUpdate
from ppl_vae.training.step import apply_gradients


class TracedStep:
    """The traced step for batches of one size.

    Args:
        derivative: Of the pair.
        optimizer: torch's.
        limit: Largest global gradient norm.
        rows: The data; a gather from memory on the parameters' device joins the program.
        index: Positions of any batch of this size, (rows,).
        weighted: Whether the KL weight is an input.

    Raises:
        Exception: Whatever stops the tracer, where the pair's Python reads computed values.
    """

    def __init__(
        self,
        derivative: LossAndGradient,
        optimizer: torch.optim.Optimizer,
        limit: float,
        rows: Rows,
        index: Tensor,
        *,
        weighted: bool,
    ) -> None:
        self.parameters, self.optimizer, self.limit = derivative.parameters, optimizer, limit
        self.rows, self.weighted = rows, weighted
        self.device = self.parameters[0].device
        self.gathers = all(
            isinstance(f.array, Tensor) and f.array.device == self.device for f in rows.fields
        )
        batch = rows.take(index, self.device)
        weight = torch.tensor(0.5, device=self.device) if weighted else None
        derivative(batch, weight)  # an ELBO's first run also guesses how plates nest

        def differentiate(*inputs: Tensor) -> list[Tensor]:
            given = in_form_of(batch, inputs)
            loss, gradients = derivative(given, inputs[-1] if weighted else None)
            self.moved = [g is not None for g in gradients]
            return [loss, *(g for g in gradients if g is not None)]

        inputs = [*as_tuple(batch), *([] if weight is None else [weight])]
        self.graph = trace_graph(differentiate, inputs, self.parameters)
        self.casts = torch.is_autocast_enabled(self.device.type)
        self.interpret()

    def interpret(self) -> None:
        """Run the traced graph, as a new program does, operation by operation."""
        self.update: TensorUpdate | None = None
        self.held = [*self.parameters, *self.graph.constants]
        self.function: Callable[..., list[Tensor]] = self._step

    def compile(self, index: Tensor) -> None:
        """Let inductor compile the step, and run the optimizer's update in it where it is known.

        Args:
            index: Positions of any batch of this size, (rows,).

        Raises:
            Exception: Whatever stops inductor; ``interpret`` is the way back.
        """
        on_cpu = self.device.type == "cpu"
        self.update = (
            TensorUpdate.of(self.optimizer, self._moved(self.parameters)) if on_cpu else None
        )
        state = [] if self.update is None else [*self.update.state, self.update.rates()]
        with torch.no_grad(), self._without_autocast():
            batch = self._batch(index, 1.0)
            self.function = compile_graph(self._step, [*self.held, *state], batch)
        self.held += state[:-1]

    def __call__(self, index: Tensor, kl_weight: float | None) -> tuple[float, bool]:
        """Update once from the rows at ``index``; returns what ``EagerStep`` returns."""
        batch = self._batch(index, 1.0 if kl_weight is None else kl_weight)
        if self.update is not None:
            (report,) = self._run([*self.held, self.update.rates(), *batch])
            loss, norm = report.tolist()
            return loss, math.isfinite(loss) and math.isfinite(norm)
        found = self._run([*self.held, *batch])
        gradients = self._spread(found[1:])
        return found[0].item(), apply_gradients(
            self.optimizer, self.parameters, found[0], gradients, self.limit
        )

    def derivative(
        self,
        parameters: Sequence[Tensor],
        constants: Sequence[Tensor],
        index: Tensor,
        kl_weight: float,
        *,
        interpreted: bool,
    ) -> tuple[Tensor, Gradients]:
        """Loss and gradient at copies of the state, without moving the pair.

        Args:
            parameters: Values of the parameters.
            constants: Copies of the graph's constants, which change as the step changes them.
            index: Positions of the rows.
            kl_weight: The weight of the latent sites.
            interpreted: Whether to run the traced graph where a compiler's work stands for it.

        Returns:
            The loss and the gradient.
        """
        batch = self._batch(index, kl_weight)
        if interpreted:
            with torch.no_grad(), self._without_autocast():
                found = self._differentiated(parameters, constants, batch)
            return found[0], self._spread(found[1:])
        if self.update is None:
            found = self._run([*parameters, *constants, *batch])
            return found[0], self._spread(found[1:])
        zeros, rates = self.update.zeros(), self.update.halving()
        copies = [p.clone() for p in parameters]
        (report,) = self._run([*copies, *constants, *zeros, rates, *batch])
        factor = 2 * max(1.0, (report[1].item() + 1e-6) / self.limit)  # of a gradient in bounds
        return report[0], self._spread([m * factor for m in zeros[: len(zeros) // 3]])

    @property
    def is_compiled(self) -> bool:
        """Whether a compiler's work runs."""
        return self.function != self._step

    def _batch(self, index: Tensor, kl_weight: float) -> list[Tensor]:
        """What changes from step to step: the rows, or the data and their positions; the weight."""
        weight = [torch.tensor(kl_weight, device=self.device)] if self.weighted else []
        if not self.gathers:
            return [*as_tuple(self.rows.take(index, self.device)), *weight]
        arrays: list[Any] = [field.array for field in self.rows.fields]
        return [*arrays, self.rows.positions_in_data(index).to(self.device), *weight]

    def _run(self, inputs: list[Tensor]) -> list[Tensor]:
        with torch.no_grad(), self._without_autocast():
            return self.function(*inputs)

    def _without_autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The casts stand in the graph already."""
        if self.casts:
            return torch.autocast(self.device.type, enabled=False)
        return contextlib.nullcontext()

    def _moved(self, values: Sequence[Any]) -> list[Any]:
        return list(itertools.compress(values, self.moved))

    def _spread(self, gradients: Sequence[Tensor]) -> Gradients:
        rest = iter(gradients)
        return [next(rest) if moved else None for moved in self.moved]

    def _differentiated(
        self, parameters: Sequence[Tensor], constants: Sequence[Tensor], batch: list[Tensor]
    ) -> list[Tensor]:
        """Loss and gradients as operations on tensors, the gather first."""
        rest = iter(batch)
        fields = _next(rest, len(self.rows.fields))
        if self.gathers:
            positions = next(rest)
            fields = [array.index_select(0, positions) for array in fields]
        found: list[Tensor] = self.graph.module(*parameters, *constants, *fields, *rest)
        return found

    def _step(self, *inputs: Tensor) -> list[Tensor]:
        """The step as operations on its inputs alone."""
        rest = iter(inputs)
        parameters = _next(rest, len(self.parameters))
        constants = _next(rest, len(self.graph.constants))
        state = [] if self.update is None else _next(rest, len(self.update.state))
        rates = None if self.update is None else next(rest)
        loss, *gradients = self._differentiated(parameters, constants, list(rest))
        if self.update is None or rates is None:
            return [loss, *gradients]
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        if self.limit < math.inf:
            factor = (self.limit / (norm + 1e-6)).clamp(max=1.0)
            gradients = [g * factor for g in gradients]
        sound = loss.isfinite() & norm.isfinite()
        self.update.update(self._moved(parameters), gradients, state, rates, sound)
        return [torch.stack([loss, norm.to(loss.dtype)])]


def _next(rest: Iterator[Tensor], count: int) -> list[Tensor]:
    return list(itertools.islice(rest, count))
