"""Tests of ranks: Holm's adjustment, the level, and the direction of what leans."""

import numpy as np
import pandas as pd
import pytest
from parts.extras import scipy_stats

from ppl_vae.evaluation.rank_tests import (
    LIKELIHOOD,
    Quantity,
    _two_sided,
    holm,
    uniformity_of,
)

stats = scipy_stats()
QUANTITIES = [*(Quantity("z", str(place)) for place in range(4)), Quantity(LIKELIHOOD, "")]


def ranks_of(rows=1000, num_draws=99, seed=0, shift=0.0, spread=1.0):
    """Ranks of standard normal numbers among draws with another mean and spread."""
    random = np.random.default_rng(seed)
    truth = random.standard_normal((rows, 5))
    draws = shift + spread * random.standard_normal((num_draws, rows, 5))
    return pd.DataFrame((draws < truth).sum(0))


def test_holm_is_that_of_the_definition_and_leaves_nan_out():
    p = np.array([0.04, np.nan, 0.001, 0.02])
    np.testing.assert_allclose(holm(p), [0.04, np.nan, 0.003, 0.04])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_uniform_ranks_are_flagged_in_no_more_than_the_level_of_studies():
    random = np.random.default_rng(0)
    flagged = [
        uniformity_of(pd.DataFrame(random.integers(0, 20, (200, 5))), QUANTITIES, 19, seed)[
            "flagged"
        ]
        for seed in range(400)
    ]
    share = np.mean([each.any() for each in flagged])
    assert 0.005 < share < 0.05 + 3.5 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.parametrize(
    ("changes", "direction"),
    [
        ({"spread": 0.8}, "narrow"), ({"spread": 1.2}, "wide"), ({"shift": -0.5}, "low"),
        ({"shift": 0.5}, "high"), ({"spread": 0.01}, "narrow"), ({"spread": 20.0}, "wide"),
        ({"shift": 9.0}, "high"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("num_draws", [9, 99])
def test_the_direction_is_that_of_the_draws_and_the_likelihood_has_none(
    changes, direction, num_draws
):
    frame = uniformity_of(ranks_of(num_draws=num_draws, **changes), QUANTITIES, num_draws, 0)
    assert frame["flagged"].all()
    assert frame["direction"].tolist() == [direction] * 4 + [""]


def test_ranks_that_neither_lean_nor_spread_are_flagged_without_a_direction():
    """Mean and variance of the normal scores are right, and the shape is of two points."""
    ranks = np.where(np.random.default_rng(0).random((1000, 5)) < 0.5, 15, 84)
    frame = uniformity_of(pd.DataFrame(ranks), QUANTITIES, 99, 0)
    assert frame["flagged"].all()
    assert set(frame["direction"]) == {""}


def test_missing_ranks_do_not_count():
    ranks = ranks_of(spread=0.5)
    ranks[0] = ranks[0].astype("Int64").where(ranks.index < 1)
    ranks[1] = ranks[1].astype("Int64").where(ranks.index < 300)
    frame = uniformity_of(ranks, QUANTITIES, 99, 0)
    assert frame["p_value"].isna().tolist() == [True, False, False, False, False]
    assert frame["flagged"].tolist() == [False, True, True, True, True]
    assert frame["p_value"][1] > frame["p_value"][2]


def test_the_test_of_the_spread_is_scipys():
    for value, freedom in ((90.0, 99), (1100.0, 999), (3.0, 1)):
        law = stats.chi2(freedom)
        expected = 2 * min(law.cdf(value), law.sf(value))
        assert _two_sided(value, freedom) == pytest.approx(min(1, expected), rel=1e-9)
