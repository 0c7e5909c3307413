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

    def __call__(self, batch: Batch, kl_weight: float | None) -> float:
        """Update once; returns the loss at a KL weight of 1, in nats of the whole data set.

        A loss that is not finite is returned and not applied.

        Args:
            batch: The rows of this step.
            kl_weight: The weight of the latent sites; ``None`` is 1.
        """
        weight = None if kl_weight is None else torch.tensor(float(kl_weight), requires_grad=True)
        self.scale.kl_weight = weight
        self.optimizer.zero_grad(set_to_none=True)
        loss, surrogate = self.objective.loss_and_surrogate(self.model, self.guide, batch)
        value: float = (loss if weight is None else unweighted(loss, weight)).item()
        if not math.isfinite(value):
            return value
        surrogate.backward()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return value


def held_out_loss(pair: Pair, objective: Objective, rows: int) -> Any:
    """The unweighted loss of a batch that stands for ``rows`` rows, as a function of the batch."""
    scale = Scale(rows, pair.plate)
    model, guide = scale(pair.model), scale(pair.guide)
    return lambda batch: objective.loss(model, guide, batch)
