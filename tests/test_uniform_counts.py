"""Counts of uniform ranks: exact probabilities of a band, and p-values that are uniform."""

import numpy as np
import pytest
from parts.extras import scipy_stats

from ppl_vae.uniform_counts import RankCounts

stats = scipy_stats()


def simulated(rows, num_draws, runs, seed=0):
    return np.random.default_rng(seed).integers(0, num_draws + 1, (runs, rows))


@pytest.mark.parametrize(("rows", "num_draws"), [(3, 5), (60, 9), (300, 99), (40, 500)])
def test_the_band_holds_all_counts_as_often_as_it_says(rows, num_draws):
    counts, runs = RankCounts(rows, num_draws), 4000
    low, high = counts.band(0.9)
    inside = counts.probability_inside(low, high)
    assert inside >= 0.9
    below = np.array([counts.below(ranks) for ranks in simulated(rows, num_draws, runs)])
    found = ((below >= low) & (below <= high)).all(1).mean()
    assert abs(found - inside) < 4 * (0.1 * 0.9 / runs) ** 0.5


@pytest.mark.parametrize(("rows", "num_draws"), [(20, 9), (200, 99)])
def test_p_values_of_uniform_ranks_are_below_a_level_as_often_as_the_level_says(rows, num_draws):
    counts, runs = RankCounts(rows, num_draws), 2000
    p = np.array([counts.p_value(ranks) for ranks in simulated(rows, num_draws, runs, seed=1)])
    for level in (0.01, 0.1, 0.5):
        share, error = (p <= level).mean(), (level * (1 - level) / runs) ** 0.5
        assert share < level + 4 * error
        assert share > 0.7 * level - 4 * error  # counts are whole: below the level, if anything


def test_a_single_point_is_a_binomial_test():
    counts = RankCounts(50, 1)
    ranks = np.arange(50) < 33  # 17 of rank 0
    law = stats.binom(50, 0.5)
    assert counts.p_value(ranks.astype(int)) == pytest.approx(2 * law.cdf(17), rel=1e-6)


def test_small_p_values_are_no_rounding_of_zero():
    counts = RankCounts(2000, 99)
    ranks = simulated(2000, 99, 1)[0]
    values = [counts.p_value(np.minimum(ranks + shift, 99)) for shift in (0, 3, 5, 8)]
    assert values[0] > 0.01
    assert values == sorted(values, reverse=True)
    assert 0 < values[3] < 1e-20
