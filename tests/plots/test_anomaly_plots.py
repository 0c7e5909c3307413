"""Figures of anomaly scores show the numbers they are given, whatever scores are infinite."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts.extras import scipy_stats, sklearn

from ppl_vae.anomaly import conformal
from ppl_vae.plots import (
    attribution_bars,
    p_value_calibration,
    precision_recall_curves,
    roc_curves,
    score_histogram,
    strange_images,
)
from ppl_vae.plots.anomalies import _band
from ppl_vae.plots.detection import _hits_and_alarms

RNG = np.random.default_rng


def legend(ax):
    return ax.get_legend_handles_labels()[1]


def area(ax):
    return float(legend(ax)[0].rpartition(" ")[2])


# Curves over all thresholds


@pytest.mark.parametrize("decimals", [8, 0])  # without ties and with many
def test_areas_are_those_of_scikit_learn(decimals):
    metrics = sklearn("metrics")
    labels = RNG(0).random(300) < 0.2
    scores = (RNG(1).normal(size=300) + labels).round(decimals)
    expected = metrics.roc_auc_score(labels, scores)
    assert math.isclose(area(roc_curves(labels, scores)), expected, abs_tol=6e-4)
    expected = metrics.average_precision_score(labels, scores)
    assert math.isclose(area(precision_recall_curves(labels, scores)), expected, abs_tol=6e-4)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([-math.inf, 0.0, 1.0, math.inf]))))
@settings(deadline=None)
def test_counts_above_each_threshold_are_those_of_a_loop(rows):
    labels, scores = np.array([row[0] for row in rows], bool), np.array([row[1] for row in rows])
    if not len(rows):
        return
    found = _hits_and_alarms(labels, scores)
    levels = [math.inf, *sorted(set(scores), reverse=True)]
    above = [np.zeros(len(scores), bool), *(scores >= level for level in levels[1:])]
    assert found.hits.tolist() == [int((labels & part).sum()) for part in above]
    assert found.alarms.tolist() == [int((~labels & part).sum()) for part in above]


def test_curves_of_a_perfect_and_of_an_inverted_score():
    labels = [0, 0, 1, 1]
    scores = {"good": [1.0, 2.0, 3.0, math.inf], "bad": [4.0, 3.0, 2.0, -math.inf]}
    assert legend(roc_curves(labels, scores)) == ["good: area 1.000", "bad: area 0.000"]
    diagonal, good, bad = roc_curves(labels, scores).lines
    assert good.get_xydata().tolist() == [[0, 0], [0, 0.5], [0, 1], [0.5, 1], [1, 1]]
    assert bad.get_xydata().tolist() == [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1]]
    ax = precision_recall_curves(labels, scores)
    assert legend(ax)[0] == "good: area 1.000"
    assert ax.lines[0].get_ydata() == [0.5, 0.5]  # the share of strange rows
    assert diagonal.get_linestyle() == "--"


def test_scores_of_a_frame_have_their_names_and_differ_in_look():
    frame = pd.DataFrame(RNG(0).random((50, 7)), columns=list("abcdefg"))
    lines = roc_curves(RNG(1).random(50) < 0.5, frame).lines[1:]
    assert [line.get_label()[0] for line in lines] == list("abcdefg")
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 7
    series = roc_curves([0, 1, 1], pd.Series([1.0, 2.0, 3.0], name="elbo", index=[7, 8, 9]))
    assert legend(series) == ["elbo: area 1.000"]


@pytest.mark.parametrize("draw", [roc_curves, precision_recall_curves])
@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([0, 1, 2], [1.0, 2, 3], r"labels: expected 1 for .*got \[0.0, 1.0, 2.0\]"),
        ([1, 1, 1], [1.0, 2, 3], r"labels: .*some of both, got \[1.0\]"),
        ([0, 1, math.nan], [1.0, 2, 3], "labels: expected 1 for strange rows"),
        (["normal", "odd"], [1.0, 2], "labels: expected numbers"),
        ([[0, 1]], [1.0, 2], r"labels: .*got shape \(1, 2\)"),
        ([0, 1, 1], [1.0, 2], r"scores\['score'\]: expected a number for each of the 3 rows"),
        ([0, 1], {"a": [1.0, math.nan]}, r"scores\['a'\]: .*got NaN"),
        ([0, 1], {}, "scores: expected 1 to 15 scores, got 0"),
    ],
)
def test_labels_and_scores_that_do_not_fit_are_refused(draw, labels, scores, words):
    with pytest.raises(ValueError, match=words):
        draw(labels, scores)


# score_histogram


def heights(container):
    return [bar.get_height() for bar in container]


def test_all_rows_are_in_the_bars_infinite_ones_at_the_edge():
    scores = np.append(RNG(0).normal(size=500), [math.inf, 1e9, -math.inf])
    ax = score_histogram(scores, threshold=1.5)
    (bars,) = ax.containers
    assert sum(heights(bars)) == 503
    assert "rows from beyond it: 1 below, 2 above" in ax.get_xlabel()
    assert (ax.lines[0].get_xdata()[0], ax.lines[0].get_linestyle()) == (1.5, "--")
    assert legend(ax)[0] == f"threshold 1.5: {(scores > 1.5).sum()} of 503 rows above"


def test_the_threshold_is_in_sight_wherever_it_is():
    for threshold in (-50.0, 0.0, 80.0):
        ax = score_histogram(RNG(0).normal(size=100), threshold=threshold)
        low, high = ax.get_xlim()
        assert low < threshold < high
    assert not score_histogram([1.0, 2.0], threshold=math.inf).lines


def test_strange_rows_are_a_group_with_shares_of_its_own():
    scores = np.append(RNG(0).normal(size=400), RNG(1).normal(30, 5, size=20))
    ax = score_histogram(scores, labels=np.append(np.zeros(400), np.ones(20)))
    others, strange = ax.containers
    assert math.isclose(sum(heights(others)), 1)
    assert math.isclose(sum(heights(strange)), 1)
    assert legend(ax) == ["400 other rows", "20 strange rows"]
    assert strange[0].get_hatch()
    assert max(heights(others)) < 0.3  # the bulk of the other rows is not pressed into one bar


@pytest.mark.parametrize("scores", [[3.0] * 20, [3.0], [0.0, math.inf]])
def test_scores_that_are_equal_have_one_bar(scores):
    (bars,) = score_histogram(torch.tensor(scores)).containers
    assert sum(heights(bars)) == len(scores)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, math.nan],), "scores: .*got NaN"),
        (([],), r"scores: .*got shape \(0,\)"),
        (([math.inf],), "scores: expected finite scores, got infinite ones alone"),
        (([1.0, 2.0], None, [0, 2]), "labels: expected 1 for strange rows"),
        (([1.0, 2.0], None, [0]), r"labels: .*got shape \(1,\)"),
    ],
)
def test_scores_that_cannot_be_drawn_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        score_histogram(*arguments)


# p_value_calibration


def test_the_line_is_the_share_of_p_values_up_to_each_rate():
    ax = p_value_calibration([0.5, 0.25, 0.25, 0.75])
    assert ax.lines[0].get_xydata().tolist() == [[0.25, 0.5], [0.5, 0.75], [0.75, 1], [1, 1]]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert legend(ax)[0] == "4 clean rows"


def test_the_band_is_that_of_counts_at_each_rate():
    levels = np.array([0.05, 0.1, 0.5])
    low, high = _band(levels, 200)
    binomial = scipy_stats().binom(200, levels)
    assert np.allclose([low * 200, high * 200], binomial.interval(0.95), atol=1)


def test_the_band_with_calibration_rows_holds_clean_rows_as_often_as_it_says():
    n, m = 199, 1000
    rows = int(1 / (1 / n + 1 / m))
    levels = np.array([0.05, 0.1, 0.3])
    low, high = _band(levels, rows)
    random, inside = RNG(0), []
    for _ in range(500):
        draws = random.normal(size=n + m)
        p = conformal.p_values(draws[n:], draws[:n])
        shares = (p[:, None] <= levels).mean(0)
        inside.append((shares >= low) & (shares <= high))
    assert (abs(np.mean(inside, 0) - 0.95) < 0.04).all()


@pytest.mark.parametrize(
    ("p_values", "words"),
    [
        ([0.0, 0.5], "p_values: expected numbers above 0"),
        ([0.5, 1.1], "p_values: .*at most 1"),
        ([math.nan], "p_values: expected"),
        ([], r"p_values: .*got shape \(0,\)"),
    ],
)
def test_values_that_are_no_p_values_are_refused(p_values, words):
    with pytest.raises(ValueError, match=words):
        p_value_calibration(p_values)
    with pytest.raises(
        ValueError, match="calibration_rows: expected a whole number of at least 1, got 0"
    ):
        p_value_calibration([0.5], 0)


# attribution_bars


def test_the_largest_attributions_come_first_and_one_bar_is_the_largest_of_the_others():
    values = {"a": 0.5, "b": -8.0, "c": 3.0, "d": 0.25, "e": -0.125}
    frame = pd.DataFrame({f"attribution:{k}": [v] for k, v in values.items()}, index=["r7"])
    frame.insert(0, "divergence", [99.0])
    for row in (frame, frame.loc["r7"]):
        ax = attribution_bars(row, 3)
        assert [tick.get_text() for tick in ax.get_yticklabels()] == [
            "c", "a", "d", "2 others, at most"
        ]  # fmt: skip
        assert [bar.get_width() for bar in ax.patches] == [3.0, 0.5, 0.25, -0.125]
        assert ax.get_title() == "What makes row r7 strange"
        assert [text.get_text() for text in ax.texts] == ["+3.00", "+0.50", "+0.25", "-0.12"]
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert colours[0] == colours[1]
    assert len(set(colours)) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (pd.Series({"divergence": 1.0}), "row: expected columns attribution:NAME, got divergence"),
        (pd.DataFrame({"attribution:a": [1.0, 2.0]}), "row: expected one row, .*got 2 rows"),
        (pd.Series({"attribution:a": math.nan}), "row: expected finite contributions"),
        ({}, "row: expected columns"),
    ],
)
def test_rows_without_contributions_are_refused(row, words):
    with pytest.raises(ValueError, match=words):
        attribution_bars(row)
    with pytest.raises(ValueError, match="number: expected a whole number of at least 1, got 0"):
        attribution_bars({"a": 1.0}, 0)


# strange_images


def test_the_strangest_images_come_first_above_their_reconstructions():
    images = np.arange(5.0)[:, None, None] * np.ones((5, 8, 8))
    scores = [0.0, math.inf, 2.5, -1.0, 7.0]
    ax = strange_images(images, torch.as_tensor(images + 10), scores, number=3)
    canvas = ax.images[0].get_array().filled(np.nan)
    assert canvas[5::9, 5::9].tolist() == [[1, 4, 2], [11, 14, 12]]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["inf", "7", "2.5"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["image", "reconstruction"]
    assert len(strange_images(images, images, scores, number=99).get_xticks()) == 5


def test_images_and_scores_that_differ_in_number_are_refused():
    images = np.zeros((3, 8, 8))
    with pytest.raises(ValueError, match=r"scores: expected images.*got \[3, 2\] and 3"):
        strange_images(images, images[:2], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="number: expected a whole number of at least 1, got 0"):
        strange_images(images, images, [1.0, 2.0, 3.0], number=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: score_histogram([1.0, 2.0], "high"), "threshold: expected numbers"),
        (lambda: score_histogram([1.0, 2.0], math.nan), "threshold: expected a number or None"),
        (lambda: score_histogram([1.0, 2.0], [1.0, 2.0]), "threshold: expected a number or None"),
        (lambda: p_value_calibration([0.5], "a"), "calibration_rows: expected a whole number"),
        (lambda: p_value_calibration([0.5], 2.5), "calibration_rows: expected a whole number"),
        (lambda: p_value_calibration([0.5, 0.0]), "at most 1, .* got 0$"),
        (lambda: p_value_calibration([0.5, math.nan]), "at most 1, .* got nan$"),
        (lambda: attribution_bars({"a": 1.0}, "3"), "number: expected a whole number"),
        (lambda: attribution_bars([1.0, 2.0]), r"row: expected a row of anomaly_scores"),
        (lambda: attribution_bars({}), r"row: expected columns attribution:NAME, got none"),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
