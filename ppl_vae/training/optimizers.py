"""Optimizers' updates as operations on tensors; their states are those of torch's optimizers.

Adam and AdamW, with weight decay l or d:

    g <- g + l p;   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
    p <- (1 - lr d) p - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

RMSprop, centered:

    g <- g + l p;   m <- a m + (1 - a) g;   v <- a v + (1 - a) g^2
    p <- p - lr g / (sqrt(v - m^2) + eps)

Sources: Kingma & Ba (2015), Adam, arXiv:1412.6980; Loshchilov & Hutter (2019), decoupled weight
decay, arXiv:1711.05101; Graves (2013), section 4.2, arXiv:1308.0850 (centered RMSprop).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

RATE, ROOT, KEPT, FIRST, SECOND, EPS, DECAY = range(7)  # columns of the rates


class TensorUpdate(ABC):
    """An optimizer's update. Whatever a scheduler may change is given to it as a tensor.

    Args:
        optimizer: torch's.
        parameters: Those that move.
        group: For each of them, the number of its group.
    """

    kinds: ClassVar[tuple[type, ...]]
    variants: ClassVar[tuple[str, ...]]  # settings that must be off
    keys: ClassVar[tuple[str, ...]]  # of torch's state: the running mean of the gradient first

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: list[Tensor], group: list[int]
    ) -> None:
        self.optimizer, self.parameters, self.group = optimizer, parameters, group
        states = [self._begun(parameter) for parameter in parameters]
        self.state: list[Tensor] = [state[key] for key in (*self.keys, "step") for state in states]
        firsts = [group.index(number) for number in sorted(set(group))]
        self.counts = dict(
            zip(sorted(set(group)), (states[i]["step"] for i in firsts), strict=True)
        )

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> TensorUpdate | None:
        """The update of an optimizer that is known here, without variants, over ordinary
        parameters; else ``None``.
        """  # noqa: D205  one sentence
        for kind in cls.__subclasses__():
            if type(optimizer) in kind.kinds:
                return kind._of(optimizer, parameters)
        return None

    @classmethod
    def _of(cls, optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> TensorUpdate | None:
        plain = all(
            isinstance(group["lr"], float)
            and not any(group[name] for name in cls.variants)
            and group.get("centered", True)
            for group in optimizer.param_groups
        )
        if not plain or len({(p.dtype, p.device) for p in parameters}) != 1:
            return None
        number = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        if any(id(p) not in number for p in parameters):
            return None
        update = cls(optimizer, parameters, [number[id(p)] for p in parameters])
        steps = update.state[len(cls.keys) * len(parameters) :]
        for index, count in update.counts.items():
            own = [s for s, g in zip(steps, update.group, strict=True) if g == index]
            if any(step.item() != count.item() for step in own):
                return None
        return update

    def zeros(self) -> list[Tensor]:
        """A state of zeros."""
        return [torch.zeros_like(tensor) for tensor in self.state]

    def halving(self) -> Tensor:
        """Rates under which the first of the state becomes half the gradient, begun at zeros."""
        rates = torch.zeros_like(self.rates())
        rates[:, FIRST] = 0.5
        return rates

    def rates(self) -> Tensor:
        """What the next update multiplies by, (groups, 7)."""
        rows = []
        for number, group in enumerate(self.optimizer.param_groups):
            step = self.counts[number].item() + 1 if number in self.counts else 1.0
            rows.append(self._rates(group, step))
        return torch.tensor(rows, dtype=self.parameters[0].dtype)

    def update(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        state: list[Tensor],
        rates: Tensor,
        sound: Tensor,
    ) -> None:
        """Move in place, where it is sound."""
        n = len(parameters)
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            average, square, count = state[i], state[n + i], state[2 * n + i]
            row = rates[self.group[i]]
            slope = g + row[DECAY] * p
            new_average = average + (1 - row[FIRST]) * (slope - average)
            new_square = row[SECOND] * square + (1 - row[SECOND]) * slope * slope
            new = self._moved(p, slope, new_average, new_square, row)
            p.copy_(torch.where(sound, new, p))
            average.copy_(torch.where(sound, new_average, average))
            square.copy_(torch.where(sound, new_square, square))
            count.copy_(torch.where(sound, count + 1, count))

    @abstractmethod
    def _rates(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        """A group's row of the rates, in the order of their columns."""

    @abstractmethod
    def _moved(
        self, p: Tensor, slope: Tensor, average: Tensor, square: Tensor, row: Tensor
    ) -> Tensor:
        """The parameter after the update."""

    def _begun(self, parameter: Tensor) -> dict[str, Any]:
        """The optimizer's state of a parameter, as torch begins it."""
        state: dict[str, Any] = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for key in self.keys:
                state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


class Adam(TensorUpdate):
    """Adam's and AdamW's."""

    kinds = (torch.optim.Adam, torch.optim.AdamW)
    variants = ("amsgrad", "maximize", "capturable", "differentiable")
    keys = ("exp_avg", "exp_avg_sq")

    def _rates(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        (first, second), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        rate, root = lr / (1 - first**step), 1 / math.sqrt(1 - second**step)
        decoupled = isinstance(self.optimizer, torch.optim.AdamW) or group.get(
            "decoupled_weight_decay", False
        )
        kept, l2 = (1 - lr * decay, 0.0) if decoupled else (1.0, decay)
        return rate, root, kept, first, second, group["eps"], l2

    def _moved(
        self, p: Tensor, slope: Tensor, average: Tensor, square: Tensor, row: Tensor
    ) -> Tensor:
        spread = square.sqrt() * row[ROOT] + row[EPS]
        return row[KEPT] * p - row[RATE] * average / spread


class RMSprop(TensorUpdate):
    """Centered RMSprop's, without momentum."""

    kinds = (torch.optim.RMSprop,)
    variants = ("momentum", "maximize", "capturable", "differentiable")
    keys = ("grad_avg", "square_avg")

    def _rates(self, group: dict[str, Any], step: float) -> tuple[float, ...]:
        alpha = group["alpha"]
        return group["lr"], 1.0, 1.0, alpha, alpha, group["eps"], group["weight_decay"]

    def _moved(
        self, p: Tensor, slope: Tensor, average: Tensor, square: Tensor, row: Tensor
    ) -> Tensor:
        variance = (square - average * average).clamp(min=0.0)  # rounding may lead below
        return p - row[RATE] * slope / (variance.sqrt() + row[EPS])
