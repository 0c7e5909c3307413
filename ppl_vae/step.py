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
from ppl_vae.objectives import Objective, RowBound, unweighted
from ppl_vae.pair import Pair
from ppl_vae.rows import Batch

Gradients = list[Tensor | None]


class Bound:
    """The negative ELBO of a batch that stands for a whole data set, in nats.

    Args:
        pair: The pair.
        objective: What is estimated.
        rows: N, rows of the data set.
    """

    def __init__(self, pair: Pair, objective: Objective, rows: int) -> None:
        self.pair, self.elbo, self.objective, self.rows = pair, objective.elbo, objective, rows
        self.scale = Scale(rows, pair.plate)
        self.model: Any = self.scale(pair.model)
        self.guide: Any = self.scale(pair.guide)

    def __call__(self, batch: Batch, kl_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Loss at a KL weight of 1, and the surrogate whose gradient is that of the weighted one.

        Args:
            batch: The rows.
            kl_weight: The weight of the latent sites, a scalar; ``None`` is 1.
        """
        if isinstance(self.elbo, RowBound):
            return self.elbo.loss_and_surrogate(self.pair, batch, self.rows, kl_weight)
        weight = None if kl_weight is None else kl_weight.detach().requires_grad_()
        self.scale.kl_weight = weight
        loss, surrogate = self.objective.loss_and_surrogate(self.model, self.guide, batch)
        return (loss if weight is None else unweighted(loss, weight)), surrogate

    def loss(self, batch: Batch) -> float:
        """The unweighted loss alone, without gradients."""
        if isinstance(self.elbo, RowBound):
            with torch.no_grad():
                return float(self.elbo.loss_and_surrogate(self.pair, batch, self.rows, None)[0])
        return self.objective.loss(self.model, self.guide, batch)


class Derivative:
    """The loss of a batch and its gradient, by the pair's own Python.

    Args:
        pair: The pair.
        objective: What is minimized.
        rows: N, rows of the data set that a batch stands for.
        parameters: The trainable parameters.
    """

    def __init__(
        self, pair: Pair, objective: Objective, rows: int, parameters: Sequence[Tensor]
    ) -> None:
        self.objective, self.bound = objective, Bound(pair, objective, rows)
        self.parameters = list(parameters)

    def __call__(self, batch: Batch, kl_weight: Tensor | None) -> tuple[Tensor, Gradients]:
        """Run the pair.

        Args:
            batch: The rows.
            kl_weight: The weight of the latent sites, a scalar; ``None`` is 1.

        Returns:
            The loss at a KL weight of 1, in nats of the whole data set, and the gradient of the
            weighted one; ``None`` for a parameter that does not take part.
        """
        with torch.enable_grad():
            loss, surrogate = self.bound(batch, kl_weight)
            gradients = torch.autograd.grad(surrogate, self.parameters, allow_unused=True)
        return loss.detach(), list(gradients)


class EagerStep:
    """Runs the pair under the objective and moves the parameters.

    Args:
        derivative: Of the pair.
        optimizer: torch's, over its parameters.
        clip_norm: Largest global gradient norm; ``None`` leaves gradients alone.
    """

    def __init__(
        self, derivative: Derivative, optimizer: torch.optim.Optimizer, clip_norm: float | None
    ) -> None:
        self.derivative, self.optimizer = derivative, optimizer
        self.limit = math.inf if clip_norm is None else clip_norm

    def __call__(self, batch: Batch, kl_weight: float | None) -> tuple[float, bool]:
        """Update once.

        Args:
            batch: The rows of this step.
            kl_weight: The weight of the latent sites; ``None`` is 1.

        Returns:
            The loss at a KL weight of 1, in nats of the whole data set, and whether the update
            was applied: not where the loss or the gradient is not finite.
        """
        weight = None if kl_weight is None else torch.tensor(float(kl_weight))
        loss, gradients = self.derivative(batch, weight)
        return loss.item(), apply(
            self.optimizer, self.derivative.parameters, loss, gradients, self.limit
        )


def apply(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    loss: Tensor,
    gradients: Gradients,
    limit: float,
) -> bool:
    """Bound the global norm of the gradient and move; not where something is not finite."""
    norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        return False
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if limit < math.inf:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return True
