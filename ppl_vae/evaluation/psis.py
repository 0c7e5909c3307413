"""Reliability of importance weights: the shape k of the tail that the largest weights form.

    w_(1) >= ... >= w_(M) > u = w_(M+1),   M = ceil(min(S/5, 3 sqrt(S)))      of S weights of a row
    w - u ~ generalized Pareto(k, sigma)

The mean of the weights estimates the likelihood. With k above 0.5 the weights have no variance, and
with k above 1 no mean. S draws make the mean reliable up to k = 1 - 1/log10(S), and no feasible S
does above 0.7: the threshold on k-hat is the smaller of the two.

Sources: Vehtari, Simpson, Gelman, Yao & Gabry (2024), sections 2.4 and 3.2.4, appendix C,
arXiv:1507.02646; Zhang & Stephens (2009), section 3 (the fit of k).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

FEWEST = 25  # draws below which the tail has too few weights to estimate a shape
THRESHOLD = 0.7  # k-hat above which an estimate is not reliable at any number of draws


def tail_length(num_samples: int) -> int:
    """Return M, how many of the largest weights form the tail.

    Args:
        num_samples: S, weights in all.

    Example:
        >>> tail_length(25), tail_length(1000)
        (5, 95)
    """
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def k_threshold(num_samples: int) -> float:
    """Return the k-hat above which a mean of S weights is not reliable: min(1 - 1/log10(S), 0.7).

    Source: Vehtari et al. (2024), equation 13, arXiv:1507.02646.

    Args:
        num_samples: S, weights in all. Below 25 there is no k-hat, and the threshold is that of 25.

    Example:
        >>> k_threshold(100), round(k_threshold(1000), 2), k_threshold(5000)
        (0.5, 0.67, 0.7)
    """
    return min(1 - 1 / math.log10(max(num_samples, FEWEST)), THRESHOLD)


def standard_error(ess: Any, num_samples: int) -> Any:
    """Return the standard error of log 1/S sum w, in nats, from the effective number of draws.

    The variance of the mean of S weights, relative to its square, is (S / ESS - 1) / S; to first
    order that is the variance of its logarithm. Where k-hat is above its threshold the true error
    is larger, as the largest weights have not been drawn yet.

    Args:
        ess: Effective numbers of draws, a number or an array.
        num_samples: S.

    Example:
        >>> print(standard_error(4646.0, 5000).round(4))
        0.0039
    """
    return np.sqrt(np.maximum(1 / np.asarray(ess) - 1 / num_samples, 0.0))


def pareto_k(largest: Tensor) -> Tensor:
    """Return the shape k-hat of the tail of each row's weights, by Zhang and Stephens' estimate.

    The estimate is a posterior mean over a grid of values b = k / sigma: for each b the likelihood
    gives the best k, and the likelihoods are the weights of the mean. A prior worth ten draws pulls
    k towards 0.5 (Vehtari et al., appendix C). Exceedances w - u of 0 are ties with the cutoff u
    and no part of the tail; fewer than five exceedances above 0 leave k infinite.

    Args:
        largest: The M + 1 largest log-weights of every row, (M + 1, rows), in falling order, in
            nats.

    Returns:
        k-hat, (rows,), in double precision; infinite for fewer than five weights above the smallest
        one.
    """
    largest = largest.double()
    weights = (largest - largest[0]).exp()
    exceedances = (weights[:-1] - weights[-1]).flip(0).T  # w - u, (rows, M), in rising order
    above = exceedances > 0
    count = above.sum(1).clamp(min=5).double()
    first = exceedances.shape[1] - count.long()
    grid_size = 30 + int(math.sqrt(exceedances.shape[1]))
    rank = (first + (count / 4 + 0.5).long() - 1).clamp(min=0)
    quartile = exceedances.gather(1, rank[:, None]).clamp(min=1e-300)
    highest = exceedances[:, -1:].clamp(min=1e-300)
    steps = torch.arange(1, grid_size + 1, dtype=torch.double, device=exceedances.device)
    b = (1 - (grid_size / (steps - 0.5)).sqrt()) / (3 * quartile) + 1 / highest
    k = torch.empty_like(b)  # (rows, grid size)
    for i in range(grid_size):  # one value at a time, in the memory of the exceedances alone
        k[:, i] = torch.log1p(-b[:, i, None] * exceedances).sum(1) / count
    profile = count[:, None] * ((-b / k).log() - k - 1)
    b = (profile.softmax(1) * b).sum(1)
    k = torch.log1p(-b[:, None] * exceedances).sum(1) / count
    k = (k * count + 5.0) / (count + 10.0)
    return torch.where(above.sum(1) < 5, math.inf, k)


class WeightSums:
    """Sums over the weights of a block of rows, updated part by part in constant memory.

    Only the sums and the M + 1 largest weights of each row are stored, in double precision on the
    CPU, so that the memory grows with the square root of the number of samples.

    Args:
        num_samples: S, weights of each row in all parts together.
        rows: Rows of the block.
        draws_discrete: Whether a discrete latent of the rows is drawn. Equal weights then do not
            show that the weights are exact: a class that the guide never draws leaves no sign.

    Attributes:
        count: Weights of each row so far.
        total: log sum w, (rows,), in nats.
        squares: log sum w^2, (rows,), in nats.
        lowest: The smallest log-weight, (rows,), in nats.
        elbo: Sum of the ELBO's terms, (rows,), in nats.
        largest: The largest log-weights, (at most M + 1, rows), in falling order, in nats.
        precision: Rounding error of the weights' dtype, relative.
    """

    def __init__(self, num_samples: int, rows: int, *, draws_discrete: bool = False) -> None:
        self.num_samples, self.count = num_samples, 0
        self.draws_discrete = draws_discrete
        self.total = torch.full((rows,), -math.inf, dtype=torch.double)
        self.squares = self.total.clone()
        self.lowest = torch.full((rows,), math.inf, dtype=torch.double)
        self.elbo = torch.zeros(rows, dtype=torch.double)
        self.tail = tail_length(num_samples) + 1
        self.largest = torch.empty(0, rows, dtype=torch.double)
        self.precision = 0.0

    def add(self, log_weights: Tensor, elbo: Tensor) -> None:
        """Update the sums with more weights.

        Args:
            log_weights: (particles, rows), in nats.
            elbo: Terms whose average is the ELBO, (particles, rows), in nats.
        """
        self.precision = torch.finfo(log_weights.dtype).eps
        values = log_weights.detach().to("cpu", torch.double)
        self.count += len(values)
        self.total = torch.logaddexp(self.total, values.logsumexp(0))
        self.squares = torch.logaddexp(self.squares, (2 * values).logsumexp(0))
        self.lowest = torch.minimum(self.lowest, values.amin(0))
        self.elbo += elbo.detach().to("cpu", torch.double).sum(0)
        if self.num_samples >= FEWEST:  # below there is no shape to estimate
            together = torch.cat([self.largest, values])
            self.largest = together.topk(min(self.tail, len(together)), 0).values

    def result(self) -> dict[str, Tensor]:
        """Return ``log_prob``, ``elbo``, ``ess`` and ``k_hat``, (rows,) each.

        k-hat is ``-inf`` where all weights agree to rounding, so that there is no tail, and no
        discrete latent is drawn. It is NaN for fewer than 25 samples, where the largest weights are
        ties, and where all weights are 0.
        """
        shape = torch.full_like(self.total, math.nan)
        if self.num_samples >= FEWEST:
            highest = self.largest[0]
            rounding = (1000 * self.precision * highest.abs().clamp(min=1.0)).clamp(max=0.01)
            all_equal = highest - self.lowest <= rounding
            ties = highest == self.largest[-1]  # the whole tail is one value: it has no shape
            shape = torch.where(ties, math.nan, pareto_k(self.largest))
            shape = torch.where(all_equal, math.nan if self.draws_discrete else -math.inf, shape)
            shape = torch.where(highest == -math.inf, math.nan, shape)
        return {
            "log_prob": self.total - math.log(self.count),
            "elbo": self.elbo / self.count,
            "ess": (2 * self.total - self.squares).exp(),
            "k_hat": shape,
        }
