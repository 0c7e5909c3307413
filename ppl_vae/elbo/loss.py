"""The loss of a batch and its gradient, by the pair's own Python.

    loss        -ELBO of a batch of B rows that stands for N rows, at a KL weight of 1, in nats
    gradient    of the loss at the given KL weight, by a surrogate that is differentiated

Row sites are scaled by N / B and latent sites by the KL weight (``core.handlers.TrainingScale``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.core.handlers import TrainingScale
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch
from ppl_vae.elbo.objectives import Objective, RowBound, loss_at_unit_weight

Gradients = list[Tensor | None]
"""One gradient for each parameter; ``None`` for a parameter that has no part in the loss."""


class BatchLoss:
    """The negative ELBO of a batch that stands for a whole data set, in nats.

    Args:
        pair: The pair.
        objective: What is estimated.
        rows: N, the number of rows of the data set.
    """

    def __init__(self, pair: Pair, objective: Objective, rows: int) -> None:
        self.pair, self.elbo, self.objective, self.rows = pair, objective.elbo, objective, rows
        self.scale = TrainingScale(rows, pair.plate)
        self.model: Any = self.scale(pair.model)
        self.guide: Any = self.scale(pair.guide)

    def __call__(self, batch: Batch, kl_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the loss, and the surrogate to differentiate.

        Args:
            batch: The rows.
            kl_weight: The weight of the latent sites, a scalar; ``None`` is 1.

        Returns:
            The loss at a KL weight of 1, whose value counts, and the surrogate, whose gradient is
            that of the loss at ``kl_weight``. Two scalars, in nats of the whole data set.
        """
        if isinstance(self.elbo, RowBound):
            return self.elbo.loss_and_surrogate(self.pair, batch, self.rows, kl_weight)
        weight = None if kl_weight is None else kl_weight.detach().requires_grad_()
        self.scale.kl_weight = weight
        loss, surrogate = self.objective.loss_and_surrogate(self.model, self.guide, batch)
        return (loss if weight is None else loss_at_unit_weight(loss, weight)), surrogate

    def loss(self, batch: Batch) -> float:
        """Return the loss at a KL weight of 1, without gradients."""
        self.scale.kl_weight = None
        if isinstance(self.elbo, RowBound):
            with torch.no_grad():
                return float(self.elbo.loss_and_surrogate(self.pair, batch, self.rows, None)[0])
        return self.objective.loss(self.model, self.guide, batch)


class LossAndGradient:
    """The loss of a batch and its gradient, by the pair's own Python.

    Args:
        pair: The pair.
        objective: What is minimized.
        rows: N, the number of rows of the data set that a batch stands for.
        parameters: The trainable parameters.
    """

    def __init__(
        self, pair: Pair, objective: Objective, rows: int, parameters: Sequence[Tensor]
    ) -> None:
        self.bound = BatchLoss(pair, objective, rows)
        self.parameters = list(parameters)

    def __call__(self, batch: Batch, kl_weight: Tensor | None) -> tuple[Tensor, Gradients]:
        """Run the pair and differentiate.

        Args:
            batch: The rows.
            kl_weight: The weight of the latent sites, a scalar; ``None`` is 1.

        Returns:
            The loss at a KL weight of 1, a scalar in nats of the whole data set, and the gradient
            of the loss at ``kl_weight``.
        """
        with torch.enable_grad():
            loss, surrogate = self.bound(batch, kl_weight)
            gradients = torch.autograd.grad(surrogate, self.parameters, allow_unused=True)
        return loss.detach(), list(gradients)
