"""How far the observed statistics lie outside the replicated ones, and whether that is chance.

    d_j(T)  = |T_j - median_j| / spread_j       spread on T's side of the median
    D(T)    = max_j d_j(T)                      a statistic's worst value, chosen anew for every T
    p       = (1 + #{s: D(T_s) >= D(T)}) / (S + 1)
    E_t     = (D_t - median) / spread           a statistic beside the others
    p_adj_t = (1 + #{s: max_u E_u,s >= E_t}) / (S + 1)

Medians and spreads are of all S replicates and the observed value together, so that under the
model every ordering of the S + 1 is as likely: p is then no smaller than it should be, exactly,
and so is the chance that any statistic at all has an adjusted p below a level.

Sources: Gelman, Meng & Stern (1996), section 2 (replicates, discrepancies); Westfall & Young
(1993), Resampling-based multiple testing, section 2.3 (the largest of many, jointly); Phipson &
Smyth (2010), arXiv:1603.05766 (the 1 that is added).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """What is found of one statistic.

    Attributes:
        p_value: Share of replicates that lie as far out as the data.
        p_error: Its Monte Carlo standard error.
        p_adjusted: Share of replicates any of whose statistics lies as far out.
        worst: Position of the observed value that lies farthest out.
        each: p of every value by itself, (values,).
    """

    p_value: float
    p_error: float
    p_adjusted: float
    worst: int
    each: Tensor


@dataclass(frozen=True)
class RobustScale:
    """Median and spread on either side, of each column."""

    median: Tensor
    above: Tensor
    below: Tensor

    @classmethod
    def of(cls, values: Tensor, grain: float = 0.0) -> RobustScale:
        """Of (S + 1, values); NaN is left out, and no spread is below the grain."""
        median = values.nanmedian(0).values
        shift = (values - median).nan_to_num(nan=0.0)
        finite = shift.masked_fill(~shift.isfinite(), 0.0)
        count = len(values) / 2
        above = (finite.clamp(min=0).square().sum(0) / count).sqrt().clamp(min=grain)
        below = (finite.clamp(max=0).square().sum(0) / count).sqrt().clamp(min=grain)
        return cls(median, above, below)

    def signed(self, values: Tensor) -> Tensor:
        """Distance from the median in spreads; 0 where there is none, or no number."""
        shift = values - self.median
        far = shift / torch.where(shift >= 0, self.above, self.below)
        return torch.where((shift == 0) | shift.isnan(), 0.0, far)


def paired_discrepancy(seen: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """A discrepancy, T(x, z_s) of the data beside T(x_s, z_s), as a statistic beside replicates.

    What both have in common in a draw cancels: the replicated values are the mean of the observed
    ones plus the differences.

    Args:
        seen: (S, values).
        made: (S, values).
    """
    middle = seen.mean(0, keepdim=True)
    return middle, middle + (made - seen)


def verdicts(
    statistics: Sequence[tuple[Tensor, Tensor]], grains: Sequence[float] | None = None
) -> list[Verdict]:
    """Judge several statistics together.

    Args:
        statistics: Of each, the observed values, (1, values), and the replicated ones,
            (S, values). NaN is nowhere far out, in the data and in a replicate alike.
        grains: The smallest step of each, 0 where it has none: a column that hardly ever leaves
            one value would else make every step off it a great distance.
    """
    observed, replicated, each, worst = [], [], [], []
    for (seen, made), grain in zip(statistics, grains or [0.0] * len(statistics), strict=True):
        scale = RobustScale.of(torch.cat([made, seen]), grain)
        theirs, ours = scale.signed(made).abs(), scale.signed(seen).abs()
        observed.append(ours.amax(1))
        replicated.append(theirs.amax(1))
        each.append((1 + (theirs >= ours).sum(0)).double() / (len(made) + 1))
        worst.append(int(ours[0].argmax()))
    ranks = [_beside(seen, made) for seen, made in zip(observed, replicated, strict=True)]
    largest = torch.stack([made for _, made in ranks]).amax(0)
    found = []
    for i, (seen, made) in enumerate(zip(observed, replicated, strict=True)):
        p = _share(made, seen)
        adjusted = max(p, _share(largest, ranks[i][0]))
        error = math.sqrt(p * (1 - p) / len(made))
        found.append(Verdict(p, error, adjusted, worst[i], each[i]))
    return found


def _beside(seen: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Worst values on a scale that all statistics share: (1,) observed, (S,) replicated."""
    scale = RobustScale.of(torch.cat([made, seen])[:, None])
    return scale.signed(seen[:, None])[:, 0], scale.signed(made[:, None])[:, 0]


def _share(made: Tensor, seen: Tensor) -> float:
    """Of replicates at least as large as what was observed, which counts as one of them."""
    return (1 + int((made >= seen).sum())) / (len(made) + 1)
