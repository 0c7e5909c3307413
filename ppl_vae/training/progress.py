"""How far a fit has come: the part of a fit's state that is neither weights nor an optimizer's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ppl_vae.saving.metrics import Metrics


@dataclass
class Progress:
    """How far a fit has come; a snapshot stores every attribute under its name.

    Attributes:
        order_before: State of the order's generator before this epoch's order is drawn.
        epoch: The epoch at hand, from 1.
        step: Updates done in the whole fit.
        position: Batches done in this epoch.
        total: Sum over this epoch's batches of minus the ELBO times rows; both stand for the whole
            data set, in nats.
        objective_total: The same sum of the training loss.
        seen: Rows of this epoch's batches so far.
        records: The record of the fit, a row for each epoch that ended.
        best_epoch: Epoch of the best held-out ELBO, 0 before there is one.
        best_elbo: That ELBO, in nats per row.
    """

    order_before: Tensor
    epoch: int = 1
    step: int = 0
    position: int = 0
    total: float = 0.0
    objective_total: float = 0.0
    seen: int = 0
    records: Metrics = field(default_factory=Metrics)
    best_epoch: int = 0
    best_elbo: float = -math.inf

    def count(self, losses: Sequence[float], rows: int) -> None:
        """Note an update that was made from some rows.

        Args:
            losses: Minus the ELBO, and the training loss, in nats of the whole data set.
            rows: The rows of the batch.
        """
        self.total += losses[0] * rows
        self.objective_total += losses[1] * rows
        self.step += 1
        self.position += 1
        self.seen += rows


def shown_elbo(row: dict[str, float], measure: str) -> str:
    """Return the words of the progress bar: the held-out ``measure``, or else that of training."""
    held_out = row["validation_elbo"]
    name, value = ("", row["elbo"]) if math.isnan(held_out) else ("held-out ", held_out)
    return f"{name}{measure} {value:.2f} nats/row"


def are_finite(tensors: dict[str, Tensor]) -> bool:
    """Return whether all weights are finite."""
    return all(bool(value.isfinite().all()) for value in tensors.values())
