"""Tests of whether ranks are uniform: one for each quantity, and which way the ranks lean.

    u_i = (r_i + v_i) / (S + 1),   v_i ~ Uniform(0, 1)      uniform on (0, 1) if ranks are uniform
    n_i = Phi^-1(u_i)                                       then standard normal, exactly
    shift   sqrt(n) mean(n_i)                    ~ Normal(0, 1)
    spread  sum_i (n_i - mean)^2                 ~ chi^2 with n - 1 degrees of freedom
    shape   the count of ranks below each k      (``ppl_vae.uniform_counts``)
    p       min(1, 3 min(p_shift, p_spread, p_shape))       Bonferroni over the three

The p-values of all quantities are adjusted by Holm's method, which holds whatever the quantities
have to do with one another: all of them pass a correct guide with probability 0.95 or more.

Sources: Talts et al. (2018), arXiv:1804.06788, section 4.2 (what a shape of the ranks means); Cook,
Gelman & Rubin (2006), Validation of software for Bayesian models, JCGS 15(3) (normal scores);
Holm (1979), A simple sequentially rejective multiple test procedure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ppl_vae.uniform_counts import RankCounts

LEVEL = 0.05
"""Probability, at most, that anything at all is flagged of a correct guide."""

LIKELIHOOD = "log p(x | z)"
"""Name of the quantity that sees the data, as the site of its line."""

TESTS = 3
FEWEST = 2  # rows without which nothing can be said


@dataclass(frozen=True)
class Quantity:
    """What is ranked: a dimension of a latent, one of its categories, or the log-likelihood.

    Attributes:
        site: Name of the latent, or ``LIKELIHOOD``.
        dimension: Position in a row's value, as ``"3"`` or ``"0,3"``; of a category ``"=2"`` or
            ``"3=2"``; empty where there is a single one.
    """

    site: str
    dimension: str

    @property
    def name(self) -> str:
        """The name of its column of ranks: ``z[3]``."""
        return f"{self.site}[{self.dimension}]" if self.dimension else self.site


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted for their number by Holm's method; NaN do not count.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values, kind="stable")[: int(np.isfinite(p_values).sum())]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def uniformity_of(
    ranks: pd.DataFrame, quantities: list[Quantity], num_draws: int, seed: int | None
) -> pd.DataFrame:
    """Return the tests of ranks, a line for each quantity: the frame of ``GuideCalibration``.

    Args:
        ranks: Rows x quantities, whole numbers from 0 to S; missing where a row has none.
        quantities: What is ranked, in the order of the columns.
        num_draws: S.
        seed: Seeds the numbers that make ranks continuous.
    """
    random = np.random.default_rng(seed)
    counts: dict[int, RankCounts] = {}
    lines = []
    for place in range(len(quantities)):
        own = ranks.iloc[:, place].dropna().to_numpy(dtype=np.int64)
        noise = random.random(len(ranks))[: len(own)]
        if len(own) not in counts and len(own) >= FEWEST:
            counts[len(own)] = RankCounts(len(own), num_draws)
        lines.append(_tests(own, noise, counts.get(len(own))))
    table = pd.DataFrame(lines, columns=["p_value", "p_leaning", "direction"])
    adjusted = holm(table["p_value"].to_numpy(dtype=float))
    flagged = np.nan_to_num(adjusted, nan=1.0) <= LEVEL
    # the leaning itself must be beyond chance, by the threshold that the quantity was flagged by
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(table["p_value"] > 0, adjusted / table["p_value"], len(table))
    leans = flagged & (table["p_leaning"] * factor <= LEVEL)
    latent = np.array([quantity.site != LIKELIHOOD for quantity in quantities])
    return pd.DataFrame(
        {
            "site": [quantity.site for quantity in quantities],
            "dimension": [quantity.dimension for quantity in quantities],
            "p_value": table["p_value"].astype(float),
            "p_adjusted": adjusted,
            "flagged": flagged,
            "direction": np.where(leans & latent, table["direction"], ""),
        }
    )


def _tests(
    ranks: np.ndarray, noise: np.ndarray, counts: RankCounts | None
) -> tuple[float, float, str]:
    """Return the p-value of one quantity, that of its leaning, and which way it leans.

    Args:
        ranks: (rows,) whole numbers from 0 to S.
        noise: (rows,) uniform numbers from 0 to 1.
        counts: What uniform ranks do; ``None`` for too few rows.
    """
    if counts is None:
        return math.nan, math.nan, ""
    scores = _normal_scores(ranks, noise, counts.num_draws)
    shift = len(ranks) ** 0.5 * float(scores.mean())
    p_shift = math.erfc(abs(shift) / 2**0.5)
    freedom = len(ranks) - 1
    spread = float(np.square(scores - scores.mean()).sum())
    p_spread = _two_sided(spread, freedom)
    # on the scale of ``shift``, because both p-values may be 0 (Wilson & Hilferty, 1931)
    unit = 2 / (9 * freedom)
    as_normal = ((spread / freedom) ** (1 / 3) - 1 + unit) / unit**0.5
    if abs(shift) > abs(as_normal):
        direction, leaning = ("low" if shift > 0 else "high"), p_shift
    else:
        direction, leaning = ("narrow" if as_normal > 0 else "wide"), p_spread
    smallest = min(p_shift, p_spread, counts.p_value(ranks))
    return min(1.0, TESTS * smallest), min(1.0, TESTS * leaning), direction


def _normal_scores(ranks: np.ndarray, noise: np.ndarray, num_draws: int) -> np.ndarray:
    """Return the normal scores of ranks; see the head of the module."""
    uniform = ((ranks + noise) / (num_draws + 1)).clip(1e-12, 1 - 1e-12)
    scores: np.ndarray = torch.special.ndtri(torch.as_tensor(uniform)).numpy()
    return scores


def _two_sided(value: float, freedom: int) -> float:
    """Return the probability that a chi-squared number lies as far out, on both sides."""
    half, shape = (torch.tensor(each, dtype=torch.float64) for each in (value / 2, freedom / 2))
    tails = torch.special.gammainc(shape, half), torch.special.gammaincc(shape, half)
    return min(1.0, 2 * min(map(float, tails)))
