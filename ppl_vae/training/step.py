"""The eager step: one update of the parameters from one batch, by the pair's own Python.

g = d loss / d parameters;   g <- g min(1, clip_norm / |g|);   optimizer.step()
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ppl_vae.data.rows import Batch
from ppl_vae.elbo.loss import Gradients, LossAndGradient


class EagerStep:
    """Runs the pair under the objective and updates the parameters.

    Args:
        derivative: Loss and gradient of the pair.
        optimizer: One of torch's, over the derivative's parameters.
        clip_norm: Largest norm of the gradient of all parameters together; ``None`` leaves
            gradients alone.
    """

    def __init__(
        self, derivative: LossAndGradient, optimizer: torch.optim.Optimizer, clip_norm: float | None
    ) -> None:
        self.derivative, self.optimizer = derivative, optimizer
        self.limit = math.inf if clip_norm is None else clip_norm

    def __call__(self, batch: Batch, kl_weight: float | None) -> tuple[float, bool]:
        """Update the parameters once.

        Args:
            batch: The rows of this step.
            kl_weight: The weight of the latent sites; ``None`` is 1.

        Returns:
            The loss at a KL weight of 1, in nats of the whole data set, and whether the update
            was applied. It is not applied where the loss or the gradient is not finite.
        """
        weight = None if kl_weight is None else torch.tensor(float(kl_weight))
        loss, gradients = self.derivative(batch, weight)
        return loss.item(), apply_gradients(
            self.optimizer, self.derivative.parameters, loss, gradients, self.limit
        )


def apply_gradients(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    loss: Tensor,
    gradients: Gradients,
    limit: float,
) -> bool:
    """Clip the gradient and let the optimizer update the parameters.

    Args:
        optimizer: One of torch's.
        parameters: The parameters.
        loss: The loss, a scalar.
        gradients: One gradient for each parameter, or ``None`` where a parameter has no part.
        limit: Largest norm of all gradients together; ``math.inf`` leaves gradients alone.

    Returns:
        Whether the update was applied: not where the loss or the gradient is not finite.
    """
    norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        return False
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else _laid_out_like(parameter, gradient)
    if limit < math.inf:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return True


def _laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the strides of its parameter, copied where they differ.

    A compiler on a CUDA device may compute a matrix product in a padded matrix and return a view
    of it. torch's fused optimizers take only gradients that lie in memory as their parameters do.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)
