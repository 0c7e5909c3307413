"""The eager step: one update of the parameters from one batch.

g = d surrogate / d parameters;   g <- g min(1, clip_norm / |g|);   optimizer.step()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.handlers import Scale
from ppl_vae.objectives import Objective, unweighted
from ppl_vae.pair import Pair
from ppl_vae.rows import Batch


class EagerStep:
    """Runs the pair under the objective and moves the parameters.

    Args:
        pair: The pair.
        objective: What is minimized.
        rows: N, rows of the data set that a batch stands for.
        parameters: The trainable parameters.
        optimizer: torch's, over these parameters.
        clip_norm: Largest global gradient norm; ``None`` leaves gradients alone.
    """

    def __init__(
        self,
        pair: Pair,
        objective: Objective,
        rows: int,
        parameters: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
    ) -> None:
        self.objective = objective
        self.scale = Scale(rows, pair.plate)
        self.model: Any = self.scale(pair.model)
        self.guide: Any = self.scale(pair.guide)
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.clip_norm = clip_norm

    def __call__(self, batch: Batch, kl_weight: float | None) -> tuple[float, bool]:
        """Update once.

        Args:
            batch: The rows of this step.
            kl_weight: The weight of the latent sites; ``None`` is 1.

        Returns:
            The loss at a KL weight of 1, in nats of the whole data set, and whether the update
            was applied: not where the loss or the gradient is not finite.
        """
        weight = None if kl_weight is None else torch.tensor(float(kl_weight), requires_grad=True)
        self.scale.kl_weight = weight
        self.optimizer.zero_grad(set_to_none=True)
        loss, surrogate = self.objective.loss_and_surrogate(self.model, self.guide, batch)
        value: float = (loss if weight is None else unweighted(loss, weight)).item()
        if not math.isfinite(value):
            return value, False
        surrogate.backward()
        limit = math.inf if self.clip_norm is None else self.clip_norm
        if not self._clip(limit):
            self.optimizer.zero_grad(set_to_none=True)
            return value, False
        self.optimizer.step()
        return value, True

    def _clip(self, limit: float) -> bool:
        """Bound the global norm of the gradient; whether it is finite."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if limit < math.inf:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, limit, norm)
        return math.isfinite(norm.item())


def held_out_loss(pair: Pair, objective: Objective, rows: int) -> Any:
    """The unweighted loss of a batch that stands for ``rows`` rows, as a function of the batch."""
    scale = Scale(rows, pair.plate)
    model, guide = scale(pair.model), scale(pair.guide)
    return lambda batch: objective.loss(model, guide, batch)
