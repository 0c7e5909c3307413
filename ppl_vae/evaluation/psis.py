"""How far importance weights can be trusted: the shape of their largest ones.

    w_(1) >= ... >= w_(M) > u = w_(M+1),   M = ceil(min(S/5, 3 sqrt(S)))
    w - u ~ generalized Pareto(k, sigma)          k above 0.7: too heavy a tail for a mean

Sources: Vehtari, Simpson, Gelman, Yao & Gabry (2024), section 2.4 and appendix C,
arXiv:1507.02646; Zhang & Stephens (2009), section 3 (the fit of k).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEWEST = 25  # draws below which a tail has too few members to have a shape
THRESHOLD = 0.7


def tail_length(num_samples: int) -> int:
    """M, the largest weights that make the tail of so many."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_k(largest: Tensor) -> Tensor:
    """Shape of the tail of each row's weights.

    Args:
        largest: The M + 1 largest log-weights of every row, (M + 1, rows), falling, in nats.

    Returns:
        k-hat, (rows,).
    """
    largest = largest.double()
    weights = (largest - largest[0]).exp()
    return _generalized_pareto((weights[:-1] - weights[-1]).flip(0).T)


def _generalized_pareto(exceedances: Tensor) -> Tensor:
    """The posterior mean of k, (rows,), for exceedances (rows, M) in rising order.

    Those of 0, ties with the cutoff, are no part of the tail; fewer than five leave k infinite.
    """
    above = exceedances > 0
    count = above.sum(1).clamp(min=5).double()
    first = exceedances.shape[1] - count.long()
    places = 30 + int(math.sqrt(exceedances.shape[1]))
    rank = (first + (count / 4 + 0.5).long() - 1).clamp(min=0)
    quartile = exceedances.gather(1, rank[:, None]).clamp(min=1e-300)
    highest = exceedances[:, -1:].clamp(min=1e-300)
    steps = torch.arange(1, places + 1, dtype=torch.double, device=exceedances.device)
    b = (1 - (places / (steps - 0.5)).sqrt()) / (3 * quartile) + 1 / highest
    k = torch.empty_like(b)  # (rows, places)
    for i in range(places):  # one place at a time: memory of the exceedances alone
        k[:, i] = torch.log1p(-b[:, i, None] * exceedances).sum(1) / count
    profile = count[:, None] * ((-b / k).log() - k - 1)
    b = (profile.softmax(1) * b).sum(1)
    k = torch.log1p(-b[:, None] * exceedances).sum(1) / count
    k = (k * count + 5.0) / (count + 10.0)  # ten draws' worth of prior at 0.5
    return torch.where(above.sum(1) < 5, math.inf, k)


class WeightSums:
    """Sums over the weights of a block of rows, taken in as they come.

    Args:
        num_samples: S, weights to come for each row.
        rows: Rows of the block.
    """

    def __init__(self, num_samples: int, rows: int) -> None:
        self.num_samples, self.seen = num_samples, 0
        self.total = torch.full((rows,), -math.inf, dtype=torch.double)
        self.squares = self.total.clone()
        self.lowest = torch.full((rows,), math.inf, dtype=torch.double)
        self.elbo = torch.zeros(rows, dtype=torch.double)
        self.kept = tail_length(num_samples) + 1
        self.largest = torch.empty(0, rows, dtype=torch.double)
        self.precision = 0.0

    def add(self, log_weights: Tensor, elbo: Tensor) -> None:
        """Take in log-weights and the ELBO's terms, (particles, rows) each."""
        self.precision = torch.finfo(log_weights.dtype).eps
        values = log_weights.detach().to("cpu", torch.double)
        self.seen += len(values)
        self.total = torch.logaddexp(self.total, values.logsumexp(0))
        self.squares = torch.logaddexp(self.squares, (2 * values).logsumexp(0))
        self.lowest = torch.minimum(self.lowest, values.amin(0))
        self.elbo += elbo.detach().to("cpu", torch.double).sum(0)
        together = torch.cat([self.largest, values])
        self.largest = together.topk(min(self.kept, len(together)), 0).values

    def result(self) -> dict[str, Tensor]:
        """``log_prob``, ``elbo``, ``ess`` and ``k_hat``, (rows,) each."""
        shape = torch.full_like(self.total, math.nan)
        if self.num_samples >= FEWEST:
            highest = self.largest[0]
            rounding = (1000 * self.precision * highest.abs().clamp(min=1.0)).clamp(max=0.01)
            alike = highest - self.lowest <= rounding
            ties = highest == self.largest[-1]  # as many as the tail is long: it has no shape
            shape = torch.where(ties, math.nan, pareto_k(self.largest))
            shape = torch.where(alike, -math.inf, shape)
            shape = torch.where(highest == -math.inf, math.nan, shape)
        return {
            "log_prob": self.total - math.log(self.seen),
            "elbo": self.elbo / self.seen,
            "ess": (2 * self.total - self.squares).exp(),
            "k_hat": shape,
        }
