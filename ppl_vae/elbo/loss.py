"""The loss of a batch, the ELBO beside it, and the gradient, by the pair's own Python.

    training loss   what is minimized, at the given KL weight, for a batch of B rows that stands
                    for N rows, in nats
    -ELBO           of the unscaled model and guide: a KL weight of 1, no scale of the user's, no
                    term of the guide that is no part of its draws' density (``training_terms``),
                    no loss of a user's class
    gradient        of the training loss, by a surrogate that is differentiated

Row sites are scaled by N / B and latent sites by the KL weight (``core.handlers.TrainingScale``).
Where nothing but the KL weight makes the training loss differ from -ELBO, one run of the pair gives
both. Elsewhere the pair runs a second time for the ELBO, in evaluation mode and without gradients:
under a loss of the user's, a scale or a term of the guide, and where the guide relaxes a latent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.core.blocks import PROBE_ROWS
from ppl_vae.core.handlers import TrainingScale
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, map_batch
from ppl_vae.elbo.objectives import Objective, RowBound, loss_at_unit_weight
from ppl_vae.elbo.training_terms import training_terms

Gradients = list[Tensor | None]
"""One gradient for each parameter; ``None`` for a parameter that has no part in the loss."""


class BatchLoss:
    """Training loss and negative ELBO of a batch that stands for a whole data set, in nats.

    Args:
        pair: The pair.
        objective: What is estimated.
        rows: N, the number of rows of the data set.
    """

    def __init__(self, pair: Pair, objective: Objective, rows: int) -> None:
        self.pair, self.elbo, self.objective, self.rows = pair, objective.elbo, objective, rows
        self.plain = objective.of_pyro
        self.scale = TrainingScale(rows, pair.plate)
        self.unscaled = TrainingScale(rows, pair.plate, own_scales=False)
        self.model: Any = self.scale(pair.model)
        self.guide: Any = self.scale(pair.guide)
        self._training_terms: frozenset[str] | None = None

    def __call__(self, batch: Batch, kl_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the losses, and the surrogate to differentiate.

        Args:
            batch: The rows.
            kl_weight: The weight of the latent sites, a scalar; ``None`` is 1.

        Returns:
            The losses, (2,): minus the ELBO, and the training loss at ``kl_weight``. The surrogate,
            a scalar, whose gradient is that of the training loss. In nats of the whole data set.
        """
        if isinstance(self.elbo, RowBound):
            negative_elbo, loss, surrogate = self.elbo.losses_and_surrogate(
                self.pair, batch, self.rows, kl_weight
            )
            if self.objective.relaxes:
                with self.pair.evaluating():
                    negative_elbo = self.negative_elbo(batch)
            return torch.stack([negative_elbo.detach(), loss.detach()]), surrogate
        weight = None if kl_weight is None else kl_weight.detach().requires_grad_()
        self.scale.kl_weight = weight
        self.scale.scaled.clear()
        loss, surrogate = self.objective.loss_and_surrogate(self.model, self.guide, batch)
        differs = self.objective.is_derived or self.scale.scaled or self.training_terms(batch)
        if differs or self.objective.relaxes:
            with self.pair.evaluating():
                negative_elbo = self.negative_elbo(batch)
        else:
            negative_elbo = loss if weight is None else loss_at_unit_weight(loss, weight)
        return torch.stack([negative_elbo.detach(), loss.detach()]), surrogate

    def negative_elbo(self, batch: Batch) -> Tensor:
        """Return minus the ELBO of the unscaled model and guide, a scalar without gradients."""
        with torch.no_grad():
            if isinstance(self.elbo, RowBound):
                return self.elbo.losses_and_surrogate(self.pair, batch, self.rows, None)[0]
            guide: Callable[..., Any] = self.pair.guide
            if terms := self.training_terms(batch):
                guide = poutine.block(guide, hide=list(terms))
            model, guide = self.unscaled(self.pair.model), self.unscaled(guide)
            return self.plain.loss(model, guide, batch)

    def training_terms(self, batch: Batch) -> frozenset[str]:
        """Return the guide's sites that are no part of the ELBO; found at the first call.

        None is told where the guide runs under its ELBO alone, and not as its sites are drawn;
        ``lint`` says so.
        """
        if self._training_terms is None:
            self._training_terms = frozenset()
            with contextlib.suppress(Exception), self.pair.quiet_run():
                few_rows = map_batch(batch, lambda field: field[:PROBE_ROWS])
                self._training_terms = training_terms(self.pair, few_rows)
        return self._training_terms


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
            The losses, (2,), in nats of the whole data set: minus the ELBO, and the training loss
            at ``kl_weight``. The gradient of the training loss.
        """
        with torch.enable_grad():
            losses, surrogate = self.bound(batch, kl_weight)
            gradients = torch.autograd.grad(surrogate, self.parameters, allow_unused=True)
        return losses, list(gradients)
