"""How far the observed statistics lie outside the replicated ones, and whether that is chance.

    d_j(T)  = |T_j - median_j| / spread_j       distance of value j; the spread on T's side
    D(T)    = max_j d_j(T)                      the worst value of a statistic, anew for every T
    p       = (1 + #{s: D(T_s) >= D(T)}) / (S + 1)
    E_t     = (D_t - median) / spread           worst value of statistic t, on one scale for all
    p_adj_t = (1 + #{s: max_u E_u,s >= E_t}) / (S + 1)

T holds the values of a statistic in the data, T_s those in replicate s of S.

Why p is exact. Medians and spreads are computed from all S replicates and the observed value
together. If the model is right, the S + 1 data sets are exchangeable: every one of them is as
likely as any other to have the largest D. Hence P(p <= a) <= a for every a, without an assumption
about distributions. Likewise, the probability that any statistic at all has an adjusted p-value of
at most a is at most a, because the largest E of a replicate is taken over all statistics. The 1
counts the data as one of the S + 1; without it p could be 0.

Sources: Gelman, Meng & Stern (1996), section 2 (replicates, discrepancies); Westfall & Young
(1993), Resampling-based multiple testing, section 2.3 (the largest of many statistics, jointly);
Phipson & Smyth (2010), arXiv:1603.05766 (the 1 that is added).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """The p-values of one statistic.

    Attributes:
        p_value: Share of data sets, the observed one and the replicates, whose worst value lies at
            least as far out as that of the observed one.
        p_error: Monte Carlo standard error of ``p_value``.
        p_adjusted: Share of data sets of which any statistic lies at least as far out; it holds
            for all statistics together.
        worst: Position of the observed value that lies farthest out.
        each: p-value of every value by itself, (values,).
    """

    p_value: float
    p_error: float
    p_adjusted: float
    worst: int
    each: Tensor


@dataclass(frozen=True)
class RobustScale:
    """Center and spread of each column of values, the spread on either side by itself.

    Many statistics are skewed (a maximum has a long upper tail). With one spread for both sides, a
    value on the short side would never look far out.

    Attributes:
        median: (values,).
        above: Root mean square distance from the median of the values above it, (values,).
        below: Root mean square distance from the median of the values below it, (values,).
    """

    median: Tensor
    above: Tensor
    below: Tensor

    @classmethod
    def of(cls, values: Tensor, smallest_step: float = 0.0) -> Self:
        """Return the scale of each column.

        Args:
            values: (S + 1, values); NaN and infinite numbers do not count in the spreads.
            smallest_step: Lower limit of the spreads.

        Example:
            >>> RobustScale.of(torch.tensor([[0.0], [1.0], [2.0]])).median
            tensor([1.])
        """
        median = values.nanmedian(0).values
        shift = (values - median).nan_to_num(nan=0.0)
        finite = shift.masked_fill(~shift.isfinite(), 0.0)
        half = len(values) / 2  # values on either side of the median
        above = (finite.clamp(min=0).square().sum(0) / half).sqrt().clamp(min=smallest_step)
        below = (finite.clamp(max=0).square().sum(0) / half).sqrt().clamp(min=smallest_step)
        return cls(median, above, below)

    def signed_distance(self, values: Tensor) -> Tensor:
        """Return the distance from the median in spreads, negative below the median.

        Args:
            values: (data sets, values).

        Returns:
            (data sets, values); 0 for NaN and for a value equal to the median, infinite for a
            value off the median on a side without spread.
        """
        shift = values - self.median
        distance = shift / torch.where(shift >= 0, self.above, self.below)
        return torch.where((shift == 0) | shift.isnan(), 0.0, distance)


def paired_discrepancy(observed: Tensor, replicated: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a discrepancy into one observed value and S replicated ones.

    A discrepancy T(x, z) depends on the latents, so that the data have a different value of T for
    each draw z_s. T(x, z_s) and T(x_s, z_s) share what the draw z_s adds to both; only their
    difference says how well the model fits. The observed value returned is therefore the mean of
    T(x, z_s) over draws, and the replicated values are that mean plus the differences
    T(x_s, z_s) - T(x, z_s).

    Args:
        observed: T(x, z_s) of the data, (S, values).
        replicated: T(x_s, z_s) of the replicates, (S, values).

    Returns:
        (1, values) and (S, values).

    Example:
        >>> observed, replicated = torch.tensor([[1.0], [5.0]]), torch.tensor([[2.0], [6.0]])
        >>> paired_discrepancy(observed, replicated)[1].tolist()  # one more than the mean, 3
        [[4.0], [4.0]]
    """
    mean = observed.mean(0, keepdim=True)
    return mean, mean + (replicated - observed)


def verdicts(
    statistics: Sequence[tuple[Tensor, Tensor]], smallest_steps: Sequence[float] | None = None
) -> list[Verdict]:
    """Return the p-values of several statistics that are judged together.

    Args:
        statistics: Observed values, (1, values), and replicated values, (S, values), of each
            statistic. NaN counts as distance 0, in the data and in a replicate.
        smallest_steps: The smallest amount by which each statistic can change, 0 where it varies
            continuously. No spread is smaller. Otherwise, in a column that is almost always the
            same (a rare count whose maximum is nearly always 0), one step would be a great
            distance and hide the faults of all other columns.

    Example:
        >>> replicated = torch.arange(19.0)[:, None]
        >>> verdict, = verdicts([(torch.tensor([[100.0]]), replicated)])
        >>> verdict.p_value
        0.05
    """
    steps = smallest_steps or [0.0] * len(statistics)
    worst_values, worst_positions, each = [], [], []
    for (observed, replicated), step in zip(statistics, steps, strict=True):
        scale = RobustScale.of(torch.cat([replicated, observed]), step)
        of_data = scale.signed_distance(observed).abs()
        of_replicates = scale.signed_distance(replicated).abs()
        worst_values.append((of_data.amax(1), of_replicates.amax(1)))
        worst_positions.append(int(of_data[0].argmax()))
        each.append((1 + (of_replicates >= of_data).sum(0)).double() / (len(replicated) + 1))
    common = [_on_common_scale(observed, replicated) for observed, replicated in worst_values]
    largest = torch.stack([replicated for _, replicated in common]).amax(0)
    found = []
    for i, (observed, replicated) in enumerate(worst_values):
        p = _p_value(observed, replicated)
        adjusted = max(p, _p_value(common[i][0], largest))
        error = math.sqrt(p * (1 - p) / len(replicated))
        found.append(Verdict(p, error, adjusted, worst_positions[i], each[i]))
    return found


def _on_common_scale(observed: Tensor, replicated: Tensor) -> tuple[Tensor, Tensor]:
    """Return the worst values of a statistic, (1,) and (S,), on a scale shared by all statistics.

    The worst of 1000 features is larger than the worst of 2. In spreads from its own median, the
    worst value of one statistic can be compared with that of another.
    """
    observed, replicated = observed[:, None], replicated[:, None]
    scale = RobustScale.of(torch.cat([replicated, observed]))
    return scale.signed_distance(observed)[:, 0], scale.signed_distance(replicated)[:, 0]


def _p_value(observed: Tensor, replicated: Tensor) -> float:
    """Return the share of the S + 1 values that are at least as large as the observed one.

    Args:
        observed: (1,).
        replicated: (S,).
    """
    return (1 + int((replicated >= observed).sum())) / (len(replicated) + 1)
