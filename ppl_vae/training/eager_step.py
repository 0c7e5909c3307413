"""One update of the parameters from one batch, by the pair's own Python.

    g = d loss / d parameters;   g <- g min(1, c / |g|);   optimizer.step()

c is the largest gradient norm (``clipping.py``). The update is left out where the loss or the
gradient is not finite. ``traced_step.py`` has the faster step, which is compared with this one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppl_vae.data.rows import Batch
from ppl_vae.elbo.loss import Gradients, LossAndGradient
from ppl_vae.training.clipping import clip_factor


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

    def __call__(self, batch: Batch, kl_weight: float | None) -> tuple[list[float], bool]:
        """Update the parameters once.

        Args:
            batch: The rows of this step.
            kl_weight: The weight of the latent sites; ``None`` is 1.

        Returns:
            The losses, minus the ELBO and the training loss, in nats of the whole data set; and
            whether the update was applied (see ``apply``).
        """
        weight = None if kl_weight is None else torch.tensor(float(kl_weight))
        losses, gradients = self.derivative(batch, weight)
        return losses.tolist(), self.apply(losses, gradients)

    def apply(self, losses: Tensor, gradients: Gradients) -> bool:
        """Clip the gradient and let the optimizer update the parameters.

        Args:
            losses: Minus the ELBO, and the training loss, (2,).
            gradients: One gradient for each parameter, or ``None`` where a parameter has no part.

        Returns:
            Whether the update was applied: not where a loss or the gradient is not finite, or
            where the square of a number of the clipped gradient is not.
        """
        parameters = self.derivative.parameters
        present = [g for g in gradients if g is not None]
        norm, factor = torch.nn.utils.get_total_norm(present), 1.0
        if not math.isfinite(norm.item()):  # the squares of finite numbers may overflow
            factor = clip_factor(present, self.limit).item()
        if not (all(map(math.isfinite, losses.tolist())) and math.isfinite(factor)):
            return False
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out_like(parameter, gradient)
        if factor < 1:
            for parameter in parameters:
                parameter.grad = None if parameter.grad is None else parameter.grad * factor
        elif self.limit < math.inf:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.limit, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return True


def _laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the strides of its parameter, copied where they differ.

    A compiler on a CUDA device may compute a matrix product in a padded matrix and return a view
    of it. torch's fused optimizers take only gradients that lie in memory as their parameters do.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)
