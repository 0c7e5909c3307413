"""Updates of optimizers as operations on tensors, so that a compiled step can contain them.

Adam and AdamW, with gradient g, first moment m, second moment v, step count t and weight decay l
(added to the gradient) or d (decoupled):

    g <- g + l p;   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
    p <- (1 - lr d) p - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

RMSprop, centered:

    g <- g + l p;   m <- a m + (1 - a) g;   v <- a v + (1 - a) g^2
    p <- p - lr g / (sqrt(v - m^2) + eps)

The states are the tensors of torch's own optimizer, updated in place, so that
``optimizer.state_dict()`` is right at any time and a fit can change from a compiled step to an
eager one.

Everything that changes between steps, such as a scheduled learning rate or the bias corrections
1 - b^t, is computed with Python's numbers outside of the compiled step, and is passed to the step
as a small tensor of rates. Inside the step a number would be frozen to the value that it had when
the step was traced. In double precision outside, b^t costs nothing and does not lose digits.

Sources: Kingma & Ba (2015), Adam, arXiv:1412.6980; Loshchilov & Hutter (2019), decoupled weight
decay, arXiv:1711.05101; Graves (2013), section 4.2, arXiv:1308.0850 (centered RMSprop).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

# Columns of the rates, (groups, 7): step size; factor of the root of the second moment; factor of
# the parameter itself (decoupled decay); decay rates of the two moments; eps; decay added to g.
STEP_SIZE, ROOT_FACTOR, SHRINKAGE, FIRST_DECAY, SECOND_DECAY, EPS, L2 = range(7)

UNSUPPORTED = ("amsgrad", "momentum", "maximize", "capturable", "differentiable")
"""Settings of torch's optimizers that must be off."""


class TensorUpdate(ABC):
    """The update of one of torch's optimizers, as operations on tensors.

    Args:
        optimizer: One of torch's.
        parameters: The parameters to update.
        group: For each parameter, the number of its parameter group.

    Attributes:
        state: All first moments, then all second moments, one of each for each parameter.
        steps: How often each parameter was updated; ``count`` counts on.
        counts: ``{group: step count of its first parameter}``.
    """

    optimizers: ClassVar[tuple[type, ...]]
    """Classes of torch's optimizers that this class stands for."""

    moments: ClassVar[tuple[str, ...]]
    """Keys of the moments in torch's state: the running mean of the gradient first."""

    def __init__(self, optimizer: Optimizer, parameters: list[Tensor], group: list[int]) -> None:
        self.optimizer, self.parameters, self.group = optimizer, parameters, group
        states = [self._state_of(parameter) for parameter in parameters]
        self.state: list[Tensor] = [s[key] for key in self.moments for s in states]
        self.steps: list[Tensor] = [s["step"] for s in states]
        self.counts = {n: states[group.index(n)]["step"] for n in sorted(set(group))}

    @classmethod
    def of(cls, optimizer: Optimizer, parameters: list[Tensor]) -> TensorUpdate | None:
        """Return the update of an optimizer; ``None`` where torch's optimizer must do it.

        An update is known for Adam, AdamW and centered RMSprop, with learning rates that are
        numbers, without the settings in ``UNSUPPORTED``, over parameters of one dtype and device
        that all belong to the optimizer, and where all parameters of a group have been updated
        equally often.
        """
        kind = next((k for k in cls.__subclasses__() if type(optimizer) in k.optimizers), None)
        plain = all(
            isinstance(group.get("lr"), float)
            and not any(group.get(name) for name in UNSUPPORTED)
            and group.get("centered", True)
            for group in optimizer.param_groups
        )
        if kind is None or not plain or len({(p.dtype, p.device) for p in parameters}) != 1:
            return None
        number = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        if any(id(p) not in number for p in parameters):
            return None
        update = kind(optimizer, parameters, [number[id(p)] for p in parameters])
        expected = [update.counts[group] for group in update.group]
        equal = all(s.item() == e.item() for s, e in zip(update.steps, expected, strict=True))
        return update if equal else None

    def dry_run_rates(self) -> Tensor:
        """Return hyperparameters for a dry run, (groups, 7).

        From a state of zeros, one update leaves 0.5 * gradient in the first moment, which is how
        the gradient is read out of a compiled step (``TracedStep.derivative``).
        """
        rates = torch.zeros_like(self.rates(1)[0])
        rates[:, FIRST_DECAY] = 0.5
        return rates

    def rates(self, updates: int) -> Tensor:
        """Return what the next updates multiply by, (updates, groups, 7), as the columns say.

        Read from the optimizer's parameter groups at every call, so that a scheduler or a user who
        changes a learning rate is followed.

        Args:
            updates: How many updates are to come.
        """
        groups = []
        for number, group in enumerate(self.optimizer.param_groups):
            done = self.counts[number].item() if number in self.counts else 0.0
            groups.append([self._rates(group, done + i) for i in range(1, updates + 1)])
        return torch.tensor(groups, dtype=self.parameters[0].dtype).transpose(0, 1).contiguous()

    def update(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        state: list[Tensor],
        rates: Tensor,
        finite: Tensor,
    ) -> None:
        """Update parameters and state in place, where ``finite`` is true.

        The condition is a ``torch.where`` in every assignment instead of an ``if``, because a
        graph of tensor operations cannot branch.

        Args:
            parameters: Parameters to update.
            gradients: Their gradients.
            state: Like the attribute ``state``.
            rates: From ``rates``, (groups, 7).
            finite: Whether to update, a scalar of bool.
        """
        n = len(parameters)
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            first, second = state[i], state[n + i]
            row = rates[self.group[i]]
            gradient = g + row[L2] * p
            new_first = first + (1 - row[FIRST_DECAY]) * (gradient - first)
            decay = row[SECOND_DECAY]
            new_second = decay * second + (1 - decay) * gradient * gradient
            new = self._updated(p, gradient, new_first, new_second, row)
            p.copy_(torch.where(finite, new, p))
            first.copy_(torch.where(finite, new_first, first))
            second.copy_(torch.where(finite, new_second, second))

    def count(self, updates: int) -> None:
        """Add updates that were made to the optimizer's step counts, which no update changes.

        The counts are no part of the compiled step: each of them would be another tensor that every
        call takes.

        Args:
            updates: How many were made.
        """
        with torch.no_grad():
            for step in self.steps:
                step.add_(updates)

    @abstractmethod
    def _rates(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        """Return a parameter group's row of the rates for update number ``step``, from 1."""

    @abstractmethod
    def _updated(self, p: Tensor, g: Tensor, first: Tensor, second: Tensor, row: Tensor) -> Tensor:
        """Return the parameter after the update, from the updated moments and a row of rates."""

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        """Return the optimizer's state of a parameter, begun as torch begins it where empty."""
        state: dict[str, Any] = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for key in self.moments:
                state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


class Adam(TensorUpdate):
    """The update of Adam and AdamW."""

    optimizers = (torch.optim.Adam, torch.optim.AdamW)
    moments = ("exp_avg", "exp_avg_sq")

    def _rates(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        (first, second), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        step_size, root = lr / (1 - first**step), 1 / math.sqrt(1 - second**step)
        is_adamw = isinstance(self.optimizer, torch.optim.AdamW)
        decoupled = is_adamw or group.get("decoupled_weight_decay", False)
        shrinkage, l2 = (1 - lr * decay, 0.0) if decoupled else (1.0, decay)
        return step_size, root, shrinkage, first, second, group["eps"], l2

    def _updated(self, p: Tensor, g: Tensor, first: Tensor, second: Tensor, row: Tensor) -> Tensor:
        root = second.sqrt() * row[ROOT_FACTOR] + row[EPS]
        return row[SHRINKAGE] * p - row[STEP_SIZE] * first / root


class RMSprop(TensorUpdate):
    """The update of centered RMSprop without momentum."""

    optimizers = (torch.optim.RMSprop,)
    moments = ("grad_avg", "square_avg")

    def _rates(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        alpha = group["alpha"]
        return group["lr"], 1.0, 1.0, alpha, alpha, group["eps"], group["weight_decay"]

    def _updated(self, p: Tensor, g: Tensor, first: Tensor, second: Tensor, row: Tensor) -> Tensor:
        variance = (second - first * first).clamp(min=0.0)  # rounding may give less than 0
        return p - row[STEP_SIZE] * g / (variance.sqrt() + row[EPS])
