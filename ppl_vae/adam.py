"""Adam's update as operations on tensors; its state is that of torch's optimizer.

    g <- g + l p;   m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
    p <- (1 - lr d) p - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

with weight decay l (Adam's) or d (AdamW's).

Sources: Kingma & Ba (2015), Adam, arXiv:1412.6980; Loshchilov & Hutter (2019), decoupled weight
decay, arXiv:1711.05101.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

RATE, ROOT, KEPT, FIRST, SECOND, EPS, DECAY = range(7)  # columns of the rates


class Adam:
    """Adam's update as operations on tensors; its state is that of torch's optimizer.

    Whatever a scheduler may change is computed for each step and given as a tensor.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: list[Tensor], group: list[int]
    ) -> None:
        self.optimizer, self.parameters, self.group = optimizer, parameters, group
        states = [self._begun(parameter) for parameter in parameters]
        keys = ("exp_avg", "exp_avg_sq", "step")
        self.state: list[Tensor] = [state[key] for key in keys for state in states]
        firsts = [group.index(number) for number in sorted(set(group))]
        self.counts = dict(
            zip(sorted(set(group)), (states[i]["step"] for i in firsts), strict=True)
        )

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Adam | None:
        """For Adam and AdamW without variants, over ordinary parameters; else ``None``."""
        if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
            return None
        variants = ("amsgrad", "maximize", "capturable", "differentiable")
        plain = all(
            isinstance(group["lr"], float) and not any(group[name] for name in variants)
            for group in optimizer.param_groups
        )
        if not plain or len({(p.dtype, p.device) for p in parameters}) != 1:
            return None
        number = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        if any(id(p) not in number for p in parameters):
            return None
        adam = cls(optimizer, parameters, [number[id(p)] for p in parameters])
        steps = adam.state[2 * len(parameters) :]
        for index, count in adam.counts.items():
            own = [s for s, g in zip(steps, adam.group, strict=True) if g == index]
            if any(step.item() != count.item() for step in own):
                return None
        return adam

    def zeros(self) -> list[Tensor]:
        """A state of zeros."""
        return [torch.zeros_like(tensor) for tensor in self.state]

    def rates(self) -> Tensor:
        """What the next update multiplies by, (groups, 7)."""
        rows = []
        for number, group in enumerate(self.optimizer.param_groups):
            step = self.counts[number].item() + 1 if number in self.counts else 1.0
            (first, second), lr, decay = group["betas"], group["lr"], group["weight_decay"]
            rate, root = lr / (1 - first**step), 1 / math.sqrt(1 - second**step)
            decoupled = isinstance(self.optimizer, torch.optim.AdamW) or group.get(
                "decoupled_weight_decay", False
            )
            kept, l2 = (1 - lr * decay, 0.0) if decoupled else (1.0, decay)
            rows.append((rate, root, kept, first, second, group["eps"], l2))
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
            spread = new_square.sqrt() * row[ROOT] + row[EPS]
            new = row[KEPT] * p - row[RATE] * new_average / spread
            p.copy_(torch.where(sound, new, p))
            average.copy_(torch.where(sound, new_average, average))
            square.copy_(torch.where(sound, new_square, square))
            count.copy_(torch.where(sound, count + 1, count))

    def _begun(self, parameter: Tensor) -> dict[str, Any]:
        """The optimizer's state of a parameter, as torch begins it."""
        state: dict[str, Any] = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state
