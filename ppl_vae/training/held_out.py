"""The ELBO of held-out rows: a point of the learning curve, and the number that is reported.

Both are averages over passes through the held-out rows, with one draw of the latents for each row
in a pass. A point of the curve is a single pass, with the same random numbers in every epoch, so
that epochs can be compared. The reported number has passes of its own.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from ppl_vae.core.blocks import mean_loss
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.linting.linter import lint_pair

PASSES = 10  # passes over the held-out rows behind the reported ELBO


@dataclass(frozen=True)
class HeldOut:
    """Measures the ELBO of held-out rows.

    Attributes:
        rows: The held-out rows.
        bound: Estimates minus the ELBO of a batch that stands for the training rows, in nats.
        seed: Seed of the fit; ``None`` draws from the global generators.
    """

    rows: Rows
    bound: BatchLoss
    seed: int | None

    def on_curve(self) -> float:
        """Return the ELBO from one pass, in nats per row, from the same draws in every epoch."""
        return self._one_pass(1)

    def afresh(self) -> tuple[float, float]:
        """Return the ELBO from new draws, and its standard error, in nats per row.

        The best number of a learning curve is the largest of many noisy estimates, and so too
        large on average. The draws here have had no part in choosing the epoch.
        """
        estimates = [self._one_pass(2 + number) for number in range(PASSES)]
        return statistics.mean(estimates), statistics.stdev(estimates) / math.sqrt(PASSES)

    def fault(self) -> str:
        """Return what ``lint`` says of the held-out rows, to go on a sentence; "" for no fault."""
        faults = lint_pair(self.bound.pair, self.rows, elbo=None, kl_weight=1.0, seed=0).errors
        return f": {faults[0]}" if faults else ""

    def _one_pass(self, number: int) -> float:
        """Return the ELBO from one draw for every row, in nats per row."""

        def loss(batch: Batch) -> float:
            return float(self.bound.negative_elbo(batch))

        seed = child(self.seed, number)
        return -mean_loss(self.bound.pair, self.rows, loss, seed=seed) / self.bound.rows
