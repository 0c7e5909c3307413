"""The gradient of a pair's training loss, drawn again and again on one batch: mean, noise, time.

    g_1, ..., g_n       gradients of the loss per row, each from draws of its own
    m                   their mean
    V                   the trace of their covariance: the expected squared distance of g from E[g]

All are vectors over the parameters of a group, the model's or the guide's.

Source: Welford (1962), doi:10.1080/00401706.1962.10490022 (mean and variance in one pass).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.elbo.objectives import Objective

Groups = dict[str, Tensor]
"""A gradient by group of parameters, ``"model"`` and ``"guide"``: one vector each."""


class Moments:
    """Mean and variance of vectors that come one after another.

    Attributes:
        count: n, the number of vectors.
        mean: m, their mean, in double precision.

    Example:
        >>> moments = Moments()
        >>> for number in (1.0, 3.0):
        ...     moments.add(torch.tensor([number]))
        >>> moments.mean, moments.variance
        (tensor([2.], dtype=torch.float64), 2.0)
    """

    def __init__(self) -> None:
        self.count, self._squares = 0, 0.0
        self.mean = torch.zeros((), dtype=torch.float64)

    def add(self, vector: Tensor) -> None:
        """Take one more vector into account."""
        vector = vector.detach().to("cpu", torch.float64)
        self.count += 1
        step = vector - self.mean
        self.mean = self.mean + step / self.count
        self._squares += float(step @ (vector - self.mean))

    @property
    def variance(self) -> float:
        """V, the trace of the covariance of one vector; 0 where there is a single vector."""
        return self._squares / max(1, self.count - 1)

    @property
    def variance_of_mean(self) -> float:
        """V / n, the expected square of the distance of the mean from the expectation."""
        return self.variance / self.count


class Estimator:
    """A pair with an objective, whose gradient is drawn on one batch.

    Args:
        pair: The pair.
        objective: What is minimized.
        rows: N, the rows of the data set that the batch stands for.
        batch: The rows.

    Attributes:
        parameters: The trainable parameters on which the pair's log-probabilities depend, by group.
            A network that only predicts a baseline is trained on a loss of its own, and left out.
        moments: Of the gradients so far, by group.
        seconds: Time of each gradient so far.
    """

    def __init__(self, pair: Pair, objective: Objective, rows: int, batch: Batch) -> None:
        self.pair, self.objective, self.rows, self.batch = pair, objective, rows, batch
        self.parameters = _parameters(pair, batch)
        every = [p for group in self.parameters.values() for p in group]
        # the ELBO beside the loss, which a relaxed guide needs a second run for, is not asked for
        self._gradient = LossAndGradient(pair, replace(objective, relaxes=False), rows, every)
        self.moments = {group: Moments() for group in self.parameters}
        self.seconds: list[float] = []

    def draw(self) -> None:
        """Draw the gradient once, as a fit does."""
        start = time.perf_counter()
        _, gradients = self._gradient(self.batch, None)
        if gradients[0] is not None and gradients[0].device.type != "cpu":
            torch.accelerator.synchronize(gradients[0].device)
        self.seconds.append(time.perf_counter() - start)
        for group, vector in self.by_group(gradients).items():
            self.moments[group].add(vector / self.rows)

    def forget(self) -> None:
        """Forget the draws so far, of which the first takes longer than others."""
        self.moments = {group: Moments() for group in self.parameters}
        self.seconds = []

    def by_group(self, gradients: list[Tensor | None]) -> Groups:
        """Return gradients of all parameters as one vector for each group; 0 where there is none.

        Args:
            gradients: One for each parameter, the groups one after the other.
        """
        left, vectors = list(gradients), {}
        for group, parameters in self.parameters.items():
            own = [
                (torch.zeros_like(p) if g is None else g).flatten()
                for p, g in zip(parameters, left, strict=False)
            ]
            left = left[len(parameters) :]
            vectors[group] = torch.cat(own)
        return vectors

    @property
    def milliseconds(self) -> float:
        """Median time of one gradient."""
        return 1000 * float(np.median(self.seconds))


def _parameters(pair: Pair, batch: Batch) -> dict[str, list[Tensor]]:
    """Return the trainable parameters on which the log-probabilities of a pair depend, by group.

    Args:
        pair: The pair, in the modes in which it is trained.
        batch: Some rows.
    """
    with torch.enable_grad():
        model_trace, guide_trace = sites.traces(pair, batch)
        total = torch.as_tensor(model_trace.log_prob_sum() + guide_trace.log_prob_sum())
    trainable: Mapping[str, Tensor] = pair.trainable()
    gradients = torch.autograd.grad(total, list(trainable.values()), allow_unused=True)
    groups: dict[str, list[Tensor]] = {}
    for (name, parameter), gradient in zip(trainable.items(), gradients, strict=True):
        if gradient is not None:
            groups.setdefault(name.partition(".")[0], []).append(parameter)
    return groups
