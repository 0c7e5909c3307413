"""P-values, thresholds, q-values and intervals agree with their definitions and with scipy."""

import itertools
import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from parts.extras import scipy_stats

from ppl_vae.anomaly import conformal

FEW = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, math.inf])  # many ties
SCORES = st.one_of(FEW, st.floats(allow_nan=False))


def random(seed=0):
    return np.random.default_rng(seed)


# p-values and thresholds


@given(st.lists(SCORES, max_size=30), st.lists(SCORES, min_size=1, max_size=30))
@settings(deadline=None, max_examples=200)
def test_p_values_are_those_of_a_double_loop(scores, calibration):
    expected = [
        (1 + sum(held_out >= score for held_out in calibration)) / (len(calibration) + 1)
        for score in scores
    ]
    assert conformal.p_values(scores, calibration).tolist() == expected


@given(
    st.lists(SCORES, min_size=1, max_size=40),
    st.lists(SCORES, min_size=1, max_size=40),
    st.one_of(st.floats(0.03, 0.99), st.integers(1, 99).map(lambda percent: percent / 100)),
)
@settings(deadline=None, max_examples=400)
def test_a_score_is_above_the_threshold_where_its_p_value_is_at_most_the_rate(
    calibration, scores, rate
):
    rows = len(calibration)
    if rate < 1 / (rows + 1):
        with pytest.raises(ValueError, match="false_alarm_rate: expected at least 1/"):
            conformal.threshold(calibration, rate)
        return
    found = conformal.threshold(calibration, rate)
    everything = [*scores, *calibration, found]
    by_p_value = conformal.p_values(everything, calibration) <= rate
    assert by_p_value.tolist() == [score > found for score in everything]


@given(st.integers(1, 3000), st.floats(1e-6, 0.999999))
@settings(deadline=None, max_examples=300)
def test_the_allowed_level_is_the_largest_p_value_within_the_rate(rows, rate):
    p = np.arange(1, rows + 2) / (rows + 1)
    within = int((p <= rate).sum())
    if within:
        assert conformal.allowed_level(rows, rate) == within
    else:
        with pytest.raises(ValueError, match="false_alarm_rate"):
            conformal.allowed_level(rows, rate)


def test_rates_in_percent_allow_the_level_that_they_are():
    for rows in range(1, 400):
        p = np.arange(1, rows + 2) / (rows + 1)
        for rate in np.arange(1, 100) / 100:
            within = int((p <= rate).sum())
            assert not within or conformal.allowed_level(rows, rate) == within


@pytest.mark.parametrize("rate", [0.5, 0.05, 0.01, 0.003, 1 / 49, 1e-4, 0.1 + 0.2])
def test_the_refusal_of_a_low_rate_names_the_fewest_rows_that_do(rate):
    needed = next(n for n in itertools.count(1) if 1 / (n + 1) <= rate)
    assert conformal.allowed_level(needed, rate) >= 1
    if needed > 1:
        with pytest.raises(ValueError, match=f"calibrate on at least {needed} rows"):
            conformal.allowed_level(needed - 1, rate)


def test_one_calibration_row_that_overflows_raises_the_threshold_to_the_next_larger_score():
    calibration = np.arange(19.0)
    assert conformal.threshold(calibration, 0.1) == 17.0
    calibration[0] = math.inf
    assert conformal.threshold(calibration, 0.1) == 18.0
    assert conformal.threshold(calibration, 0.05) == math.inf  # then no score is flagged
    assert conformal.p_values([math.inf], calibration).tolist() == [0.1]


def test_p_values_of_clean_rows_are_uniform_over_their_levels():
    draws = random().normal(size=(4000, 10))
    levels = [conformal.levels(row[:1], row[1:])[0] for row in draws]
    counts = np.bincount(levels, minlength=11)[1:]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-squared, 9 degrees: 1 in 1,000


# q-values


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 1.0])), max_size=40))
@settings(deadline=None)
def test_q_values_are_scipys(p):
    expected = scipy_stats().false_discovery_control(p) if p else []
    assert np.allclose(conformal.q_values(p), expected, rtol=1e-12)


@given(st.lists(FEW, max_size=60), st.lists(FEW, min_size=1, max_size=12))
@settings(deadline=None)
def test_q_values_of_levels_are_those_of_their_rows(scores, calibration):
    levels, size = conformal.levels(scores, calibration), len(calibration) + 1
    of_levels = conformal.q_values_from_counts(np.bincount(levels - 1, minlength=size))
    expected = conformal.q_values(conformal.p_values(scores, calibration))
    assert np.allclose(of_levels[levels - 1], expected, rtol=1e-12)
    assert (np.diff(of_levels) >= 0).all()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
@settings(deadline=None)
def test_q_values_of_levels_are_rounded_once_so_that_a_rate_is_exactly_the_rate(counts):
    size, below = len(counts), np.cumsum(counts)
    ratios = [Fraction(int(k * below[-1]), int(size * c)) if c else 1 for k, c in
              zip(range(1, size + 1), below, strict=True)]  # fmt: skip
    expected = [float(min(1, *ratios[k:], 1)) for k in range(size)]
    assert conformal.q_values_from_counts(counts).tolist() == expected


def test_rows_at_a_level_without_rows_have_the_q_value_of_the_procedure():
    q = conformal.q_values_from_counts([0, 5, 0, 1])
    assert np.allclose(q, [0.6, 0.6, 0.9, 1.0])
    assert conformal.q_values_from_counts([0, 0]).tolist() == [1.0, 1.0]


# Intervals


@pytest.mark.parametrize(
    ("rows", "rate"),
    [(19, 0.05), (20, 0.99), (1, 0.5), (99, 0.29), (199, 0.05), (1000, 0.01), (10**6, 0.001)],
)
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_interval_of_the_rate_is_that_of_scipys_beta(rows, rate, level):
    k = math.floor(rate * (rows + 1) + 1e-9)
    expected = scipy_stats().beta(k, rows + 1 - k).interval(level)
    assert np.allclose(conformal.rate_interval(rows, rate, level), expected, rtol=1e-7)


@pytest.mark.parametrize("new_rows", [1, 7, 100, 20_000])
@pytest.mark.parametrize(("rows", "rate"), [(19, 0.05), (99, 0.29), (199, 0.05), (5000, 0.01)])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_interval_of_false_alarms_is_that_of_scipys_beta_binomial(rows, rate, new_rows, level):
    k = math.floor(rate * (rows + 1) + 1e-9)
    expected = scipy_stats().betabinom(new_rows, k, rows + 1 - k).interval(level)
    assert conformal.alarms_interval(rows, rate, new_rows, level) == expected


# Kolmogorov-Smirnov


@pytest.mark.parametrize(("one", "two"), [(30, 50), (200, 100), (1000, 20), (3000, 3000)])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2, 0.5])
def test_the_test_of_two_samples_is_scipys(one, two, shift):
    first, second = random(1).normal(size=one), random(2).normal(size=two) + shift
    expected = scipy_stats().ks_2samp(first, second, method="asymp")
    statistic, p_value = conformal.ks_test(first, second)
    assert math.isclose(statistic, expected.statistic, rel_tol=1e-12)
    assert math.isclose(p_value, expected.pvalue, rel_tol=0.05, abs_tol=5e-3)


def test_both_series_of_the_limit_are_scipys():
    for x in np.linspace(0.2, 3.0, 57):
        n = 10**10  # the corrections are below 1e-5
        expected = scipy_stats().kstwobign.sf(x)
        assert math.isclose(conformal._kolmogorov(x / n**0.5, n), expected, abs_tol=1e-5)


def test_samples_with_ties_and_infinite_scores_are_compared():
    infinite = [1.0, math.inf, math.inf]
    assert conformal.ks_test(infinite, infinite) == (0.0, 1.0)
    assert math.isclose(conformal.ks_test(infinite, [1.0, 1.0, 1.0])[0], 2 / 3)
    statistic, p_value = conformal.ks_test(np.zeros(100), np.ones(100))
    assert statistic == 1.0
    assert p_value < 1e-12


def test_the_test_rejects_clean_samples_as_often_as_it_says():
    draws = random(3).normal(size=(1000, 300))
    rejected = np.mean([conformal.ks_test(row[:200], row[200:])[1] <= 0.1 for row in draws])
    assert abs(rejected - 0.1) < 3 * (0.09 / 1000) ** 0.5


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: conformal.p_values([math.nan], [1.0]), r"scores: .*got NaN in 1 of 1 rows"),
        (lambda: conformal.p_values([1.0], [2.0, math.nan]), "calibration: .*first in row 1"),
        (lambda: conformal.p_values([1.0], []), "calibration: expected a number for each row"),
        (lambda: conformal.p_values([[1.0]], [1.0]), r"scores: .*got shape \(1, 1\)"),
        (lambda: conformal.p_values(["a"], [1.0]), "scores: expected numbers"),
        (lambda: conformal.threshold([1.0], 0.0), "false_alarm_rate: expected a number above 0"),
        (lambda: conformal.threshold([1.0], 1.0), "false_alarm_rate: .* below 1, got 1.0"),
        (lambda: conformal.threshold([1.0], True), "false_alarm_rate: .*got True"),
        (lambda: conformal.threshold([1.0], "5 %"), "false_alarm_rate: .*got '5 %'"),
        (lambda: conformal.threshold([1.0], math.nan), "false_alarm_rate: .*got nan"),
        (lambda: conformal.q_values([0.5, 1.1]), "p: expected numbers from 0 to 1, got 0.5 to 1.1"),
        (lambda: conformal.q_values_from_counts([0.5]), "counts: expected whole numbers"),
        (lambda: conformal.q_values_from_counts([1, -1]), "counts: expected whole numbers"),
        (lambda: conformal.rate_interval(99, 0.05, 1.0), "level: expected a number above 0"),
        (lambda: conformal.alarms_interval(99, 0.05, 0), "new_rows: expected a whole number"),
        (lambda: conformal.ks_test([], [1.0]), "first: expected a number for each row"),
    ],
)
def test_values_that_are_no_scores_or_rates_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
