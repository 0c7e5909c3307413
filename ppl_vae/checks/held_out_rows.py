"""Are generated rows closer to the rows of a fit than to rows that were held out?

Without learning by heart, it is by chance which real row was in the fit: each real row that is the
closest to c generated rows counts c, or 0 if it was held out, independently of the others. This
holds as well for generated rows that vary less than real ones, and so are close to any real row.

Source: Platzer & Reutterer (2021), Holdout-based empirical assessment of mixed-type synthetic data,
arXiv:2104.00635; the test by labels at random is ours.
"""

from __future__ import annotations

import math

import numpy as np

DRAWS = 50_000
"""Draws of the labels: the least probability is 2e-5."""


def share_by_chance(
    counts: np.ndarray, fitted: int, random: np.random.Generator
) -> tuple[float, float]:
    """Return which share of generated rows is closest to a row of the fit, and how rare that is.

    Args:
        counts: To how many generated rows each real row is the closest, (real rows,): first the
            rows of the fit, then those held out. Rows at one distance share a generated row.
        fitted: Number of rows of the fit.
        random: Draws which rows were in the fit.

    Returns:
        The share, and the probability of one as large if it is by chance which rows were fitted;
        NaN and 1 where no generated row counts.

    Example:
        >>> random = np.random.default_rng(0)
        >>> share, chance = share_by_chance(np.array([2.0] * 40 + [0.0] * 40), 40, random)
        >>> share, chance < 1e-4
        (1.0, True)
        >>> bool(share_by_chance(np.array([80.0] + [0.0] * 79), 40, random)[1] > 0.4)
        True
    """
    found = float(counts[:fitted].sum())
    if not counts.any():
        return math.nan, 1.0
    values, numbers = np.unique(counts.round(6), return_counts=True)
    drawn = np.zeros(DRAWS)
    for value, number in zip(values, numbers, strict=True):
        drawn += value * random.binomial(number, fitted / len(counts), DRAWS)
    as_large = int((drawn >= found - 1e-3).sum())
    return found / float(counts.sum()), (1 + as_large) / (1 + DRAWS)
