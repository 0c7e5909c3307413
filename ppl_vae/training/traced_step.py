"""One update of the parameters from one batch, by one function of tensors alone: the traced step.

    x = data[index];   losses, g = graph(parameters, constants, x, w);   g <- g min(1, c / |g|)
    parameters, state <- the optimizer's update by g, where losses and |g| are finite

losses is minus the ELBO, and the training loss whose gradient is g (``elbo.loss``). w is the KL
weight, c the largest gradient norm (``clipping.py``). A traced step that is not compiled runs the
graph operation by operation and leaves the update to torch's optimizer. A compiled one is a single
function that gathers the rows, computes loss and gradient, clips, and updates the parameters and
the optimizer's state in place (for the optimizers of ``optimizers.py``, on a CPU).

The function takes every tensor as an input. Called with copies of parameters, constants and state,
it changes the copies and leaves the pair alone: that is how ``equivalence.py`` compares a traced
step with the eager one without disturbing a fit.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppl_vae.compat import of_torch
from ppl_vae.compiled.double import run_in_double
from ppl_vae.compiled.few_channels import FewChannels
from ppl_vae.compiled.graphs import compile_graph, trace_graph
from ppl_vae.compiled.layout import copy_with_strides, forms_of, write_back
from ppl_vae.core.world import same_bits
from ppl_vae.data.rows import Rows, as_tuple, in_form_of
from ppl_vae.elbo.loss import Gradients
from ppl_vae.training.clipping import clip_factor
from ppl_vae.training.diagnosis import first_line
from ppl_vae.training.eager_step import EagerStep
from ppl_vae.training.optimizers import TensorUpdate


class CompiledStepError(RuntimeError):
    """Compiled code raised, which the traced graph may not: a memory layout, a full memory."""


class TracedStep:
    """The traced step for batches of one size.

    Args:
        eager: The eager step, whose loss and gradient are traced. Its optimizer and its largest
            norm of the gradient are those of the traced step.
        rows: The data. Where its arrays are tensors on the parameters' device, gathering the
            batch's rows is part of the traced step.
        index: Positions of any batch of this size, (rows,), to trace with.
        weighted: Whether the KL weight is an input; else it is 1.
        updates: Whether the optimizer's update is a part of the compiled step, where it is known.

    Raises:
        Exception: Whatever stops the tracer, usually because the pair's Python reads a value.

    Attributes:
        graph: The traced graph of loss and gradient.
        gathers: Whether gathering the rows is part of the step.
        update: The optimizer's update in the compiled step; ``None`` where torch's optimizer does
            the update, or where another step makes it.
        device: The parameters' device.
        changed: The pair's buffers that a compiled step changes; ``None`` before its first step.
        bare: The compiled code of ``many``, ``None`` where steps are made one by one.
    """

    def __init__(
        self, eager: EagerStep, rows: Rows, index: Tensor, *, weighted: bool, updates: bool = True
    ) -> None:
        self.eager, self.rows, self.weighted, self.updates = eager, rows, weighted, updates
        derivative, self.parameters = eager.derivative, eager.derivative.parameters
        self.device = self.parameters[0].device
        self.gathers = all(
            isinstance(f.array, Tensor) and f.array.device == self.device for f in rows.fields
        )
        batch = rows.take(index, self.device)
        weight = torch.tensor(0.5, device=self.device) if weighted else None
        derivative(batch, weight)  # run once so that Pyro's ELBO sets max_plate_nesting

        def differentiate(*inputs: Tensor) -> list[Tensor]:
            """Return the losses and the gradients that exist; inputs are fields and the weight."""
            kl_weight = inputs[-1] if weighted else None
            losses, gradients = derivative(in_form_of(batch, inputs), kl_weight)
            self.has_gradient = [g is not None for g in gradients]
            return [losses, *(g for g in gradients if g is not None)]

        inputs = [*as_tuple(batch), *([] if weight is None else [weight])]
        with FewChannels():
            self.graph = trace_graph(differentiate, inputs, self.parameters)
        self.autocasts = torch.is_autocast_enabled(self.device.type)
        self.interpret()

    def interpret(self) -> None:
        """Run the traced graph operation by operation from now on, as a new traced step does."""
        self.update: TensorUpdate | None = None
        self.bare: Callable[[list[Tensor]], list[Tensor]] | None = None
        self.changed: list[Tensor] | None = None
        self.held = [*self.parameters, *self.graph.constants]
        self.function: Callable[..., list[Tensor]] = self._step

    def compile(self, index: Tensor) -> None:
        """Compile the step with inductor, together with the optimizer's update where it is known.

        Args:
            index: Positions of any batch of this size, (rows,).

        Raises:
            Exception: Whatever stops inductor; call ``interpret`` then.
        """
        inside = self.updates and self.device.type == "cpu"
        trained = list(itertools.compress(self.parameters, self.has_gradient))
        self.update = TensorUpdate.of(self.eager.optimizer, trained) if inside else None
        state = [] if self.update is None else [*self.update.state, self.update.rates(1)[0]]
        with torch.no_grad(), self._without_autocast():
            batch = self._batch_inputs(index, 1.0)
            compiled = compile_graph(self._step, [*self.held, *state], batch)
        self.function, self.numbers, self.bare = compiled, compiled.numbers, compiled.bare
        self.held += state[:-1]
        self.forms = forms_of(self.held)

    @property
    def runs_many(self) -> bool:
        """Whether ``many`` can run: the gather of the rows and the update must be compiled too."""
        return self.bare is not None and self.update is not None and self.gathers

    def many(self, indices: Sequence[Tensor], kl_weights: Sequence[float]) -> list[list[float]]:
        """Update once from each of some batches, in one call; the bits are those of single calls.

        A copy of everything that a step changes is taken before. Where a step is not applied, or
        the code raises, weights, generator and all else are as they were in front of that step: the
        caller makes it alone, and meets what is wrong with it.

        Args:
            indices: Positions of the rows of every batch, (rows,) each, of one size.
            kl_weights: The KL weight of every step.

        Returns:
            The losses, (2,), of every update that was made, in order.
        """
        before, generator = [tensor.clone() for tensor in self.held], torch.get_rng_state()
        made = len(indices)
        try:
            self._check_forms(self.held)
            numbers = self.chain(self.held, indices, kl_weights)
            finite = [all(map(math.isfinite, of_step)) for of_step in numbers]
            made = finite.index(False) if False in finite else made
        except Exception:  # the step alone raises again, and is explained
            self.bare, made = None, 0
        if made < len(indices):
            for tensor, value in zip(self.held, before, strict=True):
                write_back(tensor, value)
            torch.set_rng_state(generator)
            numbers = self.chain(self.held, indices[:made], kl_weights[:made]) if made else []
        assert self.update is not None
        self.update.count(made)
        return [of_step[:-1] for of_step in numbers]

    def chain(
        self, held: list[Tensor], indices: Sequence[Tensor], kl_weights: Sequence[float]
    ) -> list[list[float]]:
        """Run the compiled code once for each of some batches, on the pair or on copies.

        Args:
            held: Parameters, constants and the optimizer's state; they change as the steps go on.
            indices: Positions of the rows of every batch, (rows,) each, of one size.
            kl_weights: The KL weight of every step.

        Returns:
            The losses and the factor of the clipping, (3,), of every step.
        """
        assert self.bare is not None
        assert self.update is not None
        rates = self.update.rates(len(indices)).unbind()
        places = self.rows.positions_in_data(torch.cat(list(indices))).view(len(indices), -1)
        changing: list[Any] = [rates, places.unbind()]
        if self.weighted:
            changing.append(torch.tensor(kl_weights).unbind())
        fixed, arrays = [*self.numbers, *held], [field.array for field in self.rows.fields]
        with torch.no_grad(), self._without_autocast():
            of_steps: list[list[Any]] = [
                [*fixed, own_rates, *arrays, *others]
                for own_rates, *others in zip(*changing, strict=True)
            ]
            found = of_torch.called_in_turn(self.bare, of_steps)
            torch.autograd.graph.increment_version(held)
        numbers: list[list[float]] = torch.stack(found).tolist()
        return numbers

    def __call__(self, index: Tensor, kl_weight: float | None) -> tuple[list[float], bool]:
        """Update once from the rows at ``index``, (rows,); returns what ``EagerStep`` returns.

        Raises:
            CompiledStepError: Where the compiled code raises; weights and the optimizer's state are
                as they were before.
        """
        batch = self._batch_inputs(index, 1.0 if kl_weight is None else kl_weight)
        if self.update is not None:
            (losses_and_factor,) = self._run_or_undo([self.update.rates(1)[0], *batch])
            numbers: list[float] = losses_and_factor.tolist()
            applied = all(map(math.isfinite, numbers))
            self.update.count(int(applied))
            return numbers[:-1], applied
        losses, gradients = self._differentiated(batch)
        return losses.tolist(), self.eager.apply(losses, gradients)

    def gradient(self, index: Tensor, kl_weight: float) -> tuple[Tensor, Gradients]:
        """Return losses, (2,), and gradients of the rows at ``index``, of a step without an update.

        Raises:
            CompiledStepError: Where the compiled code raises; buffers are as they were before.
        """
        return self._differentiated(self._batch_inputs(index, kl_weight))

    def _differentiated(self, batch: list[Tensor]) -> tuple[Tensor, Gradients]:
        """Run a step that holds no update; return losses, and a gradient or ``None`` each."""
        results = self._run_or_undo(batch)
        return results[0], self._in_place_of_none(results[1:])

    def derivative(
        self,
        parameters: Sequence[Tensor],
        constants: Sequence[Tensor],
        index: Tensor,
        kl_weight: float,
        *,
        interpreted: bool,
        double: bool = False,
    ) -> tuple[Tensor, Gradients]:
        """Return loss and gradient at copies of the state, without changing the pair.

        A compiled step with an update in it returns no gradient: it returns losses and the factor
        of the clipping, and changes parameters. The gradient is read out of the optimizer's state
        instead. The step runs on copies of the parameters, on a state of zeros, and on the rates of
        ``TensorUpdate.dry_run_rates``, under which the first moment becomes

            m <- 0 + (1 - 0.5) (g - 0) = g / 2

        where g is the gradient after clipping. So g = 2 m; the clipping is undone by its factor,
        which the step returns. The other rates are 0, so the copies of the
        parameters become useless, and nothing reads them. What is compared is thus the very code
        that updates the parameters, not a second compilation. The trick needs an optimizer whose
        state begins with a running mean of the gradient (Adam's ``exp_avg``, centered RMSprop's
        ``grad_avg``); it breaks for an optimizer without one, which is why ``TensorUpdate`` knows
        no other. Where the loss is not finite, or the factor is NaN, nothing is updated and no
        gradient can be read; the comparison looks at the eager step's first.

        Args:
            parameters: Values of the parameters.
            constants: Copies of the graph's constants; they change as the step changes buffers.
            index: Positions of the rows, (rows,).
            kl_weight: The weight of the latent sites.
            interpreted: Whether to run the traced graph also where a compiled step exists.
            double: Whether to run the traced graph in double precision.

        Returns:
            The losses, (2,), minus the ELBO and the training loss, in nats of the whole data set;
            and the gradient for each parameter.
        """
        batch = self._batch_inputs(index, kl_weight)
        if interpreted:
            with torch.no_grad(), self._without_autocast():
                results = self._losses_and_gradients(parameters, constants, batch, double)
            return results[0], self._in_place_of_none(results[1:])
        if self.update is None:
            results = self._run([*parameters, *constants, *batch])
            return results[0], self._in_place_of_none(results[1:])
        state, rates = list(map(torch.zeros_like, self.update.state)), self.update.dry_run_rates()
        copies = list(map(copy_with_strides, parameters))
        (losses_and_factor,) = self._run([*copies, *constants, *state, rates, *batch])
        losses, factor = losses_and_factor[:-1], losses_and_factor[-1].item()
        first_moments = state[: len(state) // 2]
        return losses, self._in_place_of_none([2 * m / factor for m in first_moments])

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code runs."""
        return self.function != self._step

    def _batch_inputs(self, index: Tensor, kl_weight: float) -> list[Tensor]:
        """Return the inputs that change from step to step.

        They are the batch's fields, or the data's arrays and the positions to gather; then the KL
        weight, where the step has one.
        """
        weight = [torch.tensor(kl_weight, device=self.device)] if self.weighted else []
        if not self.gathers:
            return [*as_tuple(self.rows.take(index, self.device)), *weight]
        arrays: list[Any] = [field.array for field in self.rows.fields]
        return [*arrays, self.rows.positions_in_data(index).to(self.device), *weight]

    def _run(self, inputs: list[Tensor]) -> list[Tensor]:
        """Call the step's function; raise ``CompiledStepError`` where compiled code raises."""
        with torch.no_grad(), self._without_autocast():
            if not self.is_compiled:
                return self.function(*inputs)
            self._check_forms(inputs)
            try:
                return self.function(*inputs)
            except Exception as error:
                raise CompiledStepError(first_line(error)) from error

    def _run_or_undo(self, inputs: list[Tensor]) -> list[Tensor]:
        """Call the step's function on the pair itself, and undo what it changed where it raises.

        Copies of everything before every step would cost as much as the step. All tensors are
        copied before a compiled step's first call alone, which is when compiled code that does not
        fit its inputs raises. Later calls copy the buffers that the first call changed (those of
        batch normalization). The other tensors that a compiled step changes are the parameters and
        the optimizer's state, and it changes these last: every update needs the norm of the whole
        gradient, after which nothing is left that could raise.

        Args:
            inputs: What follows the tensors that the step holds.
        """
        if not self.is_compiled:
            return self._run([*self.held, *inputs])
        before = [(t, t.clone()) for t in (self.held if self.changed is None else self.changed)]
        try:
            results = self._run([*self.held, *inputs])
        except CompiledStepError:
            for tensor, value in before:
                write_back(tensor, value)
            raise
        if self.changed is None:
            constants = before[len(self.parameters) :][: len(self.graph.constants)]
            self.changed = [t for t, value in constants if not same_bits(t, value)]
        return results

    def _check_forms(self, tensors: Sequence[Tensor]) -> None:
        """Raise ``CompiledStepError`` where a tensor has another form than the code was made for.

        The code reads memory without looking, and a callback can give a parameter other memory.
        """
        if forms_of(tensors[: len(self.forms)]) != self.forms:
            words = "a parameter or buffer has another shape, strides or dtype than it had"
            raise CompiledStepError(words)

    def _without_autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Turn autocast off: the graph holds its conversions already, as operations."""
        if self.autocasts:
            return torch.autocast(self.device.type, enabled=False)
        return contextlib.nullcontext()

    def _in_place_of_none(self, gradients: Sequence[Tensor]) -> Gradients:
        """Return one gradient for each parameter, ``None`` for a parameter without one."""
        remaining = iter(gradients)
        return [next(remaining) if has else None for has in self.has_gradient]

    def _losses_and_gradients(
        self, parameters: Sequence[Tensor], constants: Sequence[Tensor], batch: list[Tensor],
        double: bool = False,
    ) -> list[Tensor]:  # fmt: skip
        """Gather the rows and run the graph: the losses and the gradients that exist."""
        remaining = iter(batch)
        fields = _take(remaining, len(self.rows.fields))
        if self.gathers:
            positions = next(remaining)
            fields = [array.index_select(0, positions) for array in fields]
        run = partial(run_in_double, self.graph.module) if double else self.graph.module
        results: list[Tensor] = run(*parameters, *constants, *fields, *remaining)
        return results

    def _step(self, *inputs: Tensor) -> list[Tensor]:
        """Run the step as operations on its inputs alone.

        Args:
            *inputs: Parameters, constants, then (with an update) the optimizer's state and
                rates, then the batch's inputs.

        Returns:
            Without an update: the losses and the gradients. With an update: one tensor, (3,), of
            the losses and the factor of the clipping; parameters and state are changed in place,
            except where a loss or the factor is not finite.
        """
        remaining = iter(inputs)
        parameters = _take(remaining, len(self.parameters))
        constants = _take(remaining, len(self.graph.constants))
        if self.update is None:
            return self._losses_and_gradients(parameters, constants, list(remaining))
        state, rates = _take(remaining, len(self.update.state)), next(remaining)
        losses, *gradients = self._losses_and_gradients(parameters, constants, list(remaining))
        factor = clip_factor(gradients, self.eager.limit)
        if self.eager.limit < math.inf:
            gradients = [g * factor for g in gradients]
        finite = losses.isfinite().all() & factor.isfinite()
        trained = list(itertools.compress(parameters, self.has_gradient))
        self.update.update(trained, gradients, state, rates, finite)
        return [torch.cat([losses, factor.to(losses.dtype).reshape(1)])]


def _take(tensors: Iterator[Tensor], count: int) -> list[Tensor]:
    """Return the next tensors of an iterator."""
    return list(itertools.islice(tensors, count))
