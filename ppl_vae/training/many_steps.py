"""Many compiled steps in one call, so that Python runs once for all of them.

A small step takes 0.15 ms, and the Python around it another 0.05 ms: the call, the positions of the
batch, the rates of the optimizer, the reading of the loss. Made in one call, the steps share it.
The result is that of single steps bit for bit (``TracedStep.many``).

A call is kept short, because Ctrl-C and snapshots act between calls. How many steps it makes is
measured; the numbers of the fit do not depend on it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from torch import Tensor

from ppl_vae.training.stepper import Stepper

LONGEST = 0.05  # seconds of one call
FIRST = 16  # steps of an epoch's first call, by which the later ones are measured
MOST = 512  # steps of one call
FEWEST = 30  # steps of a call below which the copy of the weights costs more than the call saves


class ManySteps:
    """Makes the first steps of what is left of an epoch, as many as one call should.

    Args:
        stepper: Has the compiled steps.
    """

    def __init__(self, stepper: Stepper) -> None:
        self.stepper, self.count = stepper, FIRST

    def __call__(
        self, batches: Sequence[Tensor], position: int, kl_weight: Callable[[int], float]
    ) -> list[list[float]]:
        """Update once for each of some batches; return the losses of each of the updates.

        Args:
            batches: The rows of every step of the epoch, (rows,) each.
            position: The place of the next batch.
            kl_weight: Returns the KL weight of the step that is a number of steps ahead.

        Returns:
            As many losses as updates were made, (2,) each. None are made where the next batch is
            the last of its size, where steps are so long that a call of many gains nothing, where
            the step is not compiled as a whole, or where the next step fails: the caller makes that
            step alone then.
        """
        size = len(batches[position])
        step = self.stepper.traced_steps.get(size)
        if step is None or not step.runs_many or self.count < FIRST:
            return []
        following = itertools.islice(batches, position, position + self.count)
        alike = list(itertools.takewhile(lambda batch: len(batch) == size, following))
        if len(alike) < 2:
            return []
        start = time.perf_counter()
        losses = step.many(alike, [kl_weight(i) for i in range(len(alike))])
        count = int(LONGEST * len(alike) / max(time.perf_counter() - start, 1e-9))
        self.count = min(count, MOST) if count >= FEWEST else 0
        return losses
