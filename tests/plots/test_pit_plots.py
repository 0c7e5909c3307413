"""Figures of calibration mark what lies outside by more than chance, and nothing else."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ppl_vae.plots import interval_coverage, pit_histogram
from ppl_vae.plots.pit import _all_inside, simultaneous_band

RNG = np.random.default_rng


# pit_histogram


def test_heights_are_multiples_of_the_expected_count():
    ax = pit_histogram([0.0, 0.1, 0.3, 0.7, 0.8, 0.9, 0.99, 1.0, np.nan, np.nan], bins=2)
    assert shares_of_bars(ax) == [0.75, 1.25]


def shares_of_bars(ax):
    return [bar.get_height() for container in ax.containers for bar in container]


def test_bars_outside_the_band_differ_in_colour_and_hatch():
    pit = np.concatenate([RNG(0).random(900), np.full(100, 0.52)])
    inside, outside = pit_histogram(pit).containers
    assert [bar.get_x() for bar in outside] == [0.5]
    assert len(inside) == 19
    assert outside[0].get_hatch()
    assert not inside[0].get_hatch()
    assert outside[0].get_facecolor() != inside[0].get_facecolor()


def test_the_band_is_for_the_number_of_rows_with_a_pit():
    pit = np.concatenate([RNG(0).random(500), np.full(300, np.nan)])
    band = {line.get_ydata()[0] for line in pit_histogram(pit, bins=10, level=0.9).lines}
    assert band == {1, *(count / 50 for count in simultaneous_band(500, 10, 0.9))}
    of_many = {line.get_ydata()[0] for line in pit_histogram(pit, bins=10, features=30).lines}
    assert of_many == {1, *(c / 50 for c in simultaneous_band(500, 10, 1 - 0.05 / 30))}


def test_the_axis_says_how_to_read_the_shapes():
    label = pit_histogram(RNG(0).random(50)).get_xlabel()
    assert "hump: predictions too wide · valley: too narrow · slope: biased" in label


@pytest.mark.parametrize(("count", "bins", "level"), [(1000, 20, 0.95), (5000, 10, 0.8)])
def test_the_band_contains_all_bins_of_uniform_rows_with_its_probability(count, bins, level):
    low, high = simultaneous_band(count, bins, level)
    rows = RNG(0).random((2000, count))
    counts = np.stack([np.histogram(row, bins, (0, 1))[0] for row in rows])
    outside = ((counts < low) | (counts > high)).any(1).mean()
    error = (level * (1 - level) / 2000) ** 0.5
    assert 1 - level - 0.03 - 3 * error < outside < 1 - level + 3 * error


@pytest.mark.parametrize("count", [1, 10, 60])
def test_the_band_of_few_rows_is_never_too_narrow(count):
    low, high = simultaneous_band(count, 20, 0.9)
    counts = RNG(0).multinomial(count, np.full(20, 1 / 20), size=2000)
    outside = ((counts < low) | (counts > high)).any(1).mean()
    assert outside < 0.1 + 3 * (0.09 / 2000) ** 0.5


def test_the_band_for_many_features_contains_all_bins_of_all_features():
    low, high = simultaneous_band(500, 20, 1 - 0.05 / 30)
    counts = RNG(0).multinomial(500, np.full(20, 1 / 20), size=(2000, 30))
    outside = ((counts < low) | (counts > high)).any((1, 2)).mean()
    assert 0.02 < outside < 0.05 + 3 * (0.0475 / 2000) ** 0.5


def test_the_probability_of_a_band_is_the_sum_over_all_outcomes_inside():
    outcomes = np.array(list(itertools.product(range(7), repeat=3)))
    outcomes = outcomes[outcomes.sum(1) == 6]
    chances = [math.factorial(6) / math.prod(map(math.factorial, c)) / 3**6 for c in outcomes]
    for low, high in ((0, 6), (1, 3), (0, 3), (2, 2), (1, 4), (3, 4)):
        inside = ((outcomes >= low) & (outcomes <= high)).all(1)
        assert np.isclose(_all_inside(6, 3, low, high), np.dot(chances, inside), atol=1e-12)


@pytest.mark.parametrize("settings", [(0, 20, 0.95), (9, 1, 0.95), (9, 20, 1.0), (9, 20, 0.0)])
def test_bands_of_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected 1 row, 2 bins or more and a level"):
        simultaneous_band(*settings)


@pytest.mark.parametrize("draw", [pit_histogram, interval_coverage])
@pytest.mark.parametrize(
    ("pit", "message"),
    [
        ([0.5, 1.2, -1.0], r"pit: expected numbers from 0 to 1, got 1.2 \(2 are outside\)"),
        (np.full(3, np.nan), "pit: .*got NaN alone"),
        ([], "pit: "),
        (np.zeros((2, 2, 2)), r"pit: .*got shape \(2, 2, 2\)"),
        (0.5, r"pit: .*got shape \(\)"),
        ("text", "pit: expected numbers"),
    ],
    ids=range(6),
)
def test_values_that_are_no_pits_are_refused(draw, pit, message):
    with pytest.raises(ValueError, match=message):
        draw(pit)


def test_a_histogram_of_several_features_is_refused():
    with pytest.raises(ValueError, match=r"pit: expected \(rows,\), got shape \(4, 2\)"):
        pit_histogram(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="features: expected a whole number of at least 1, got 0"):
        pit_histogram([0.5], features=0)


# interval_coverage


def drawn_features(ax):
    return {line.get_label(): line for line in ax.lines[1:]}  # the first is the diagonal


def test_lines_are_the_shares_inside_central_intervals():
    pit = np.array([0.5, 0.3, 0.2, 0.05, 0.99, np.nan])
    (line,) = drawn_features(interval_coverage(pit, levels=(0.9, 0.5))).values()
    assert line.get_xdata().tolist() == [0.5, 0.9]
    assert np.allclose(
        line.get_ydata(), [2 / 5, 4 / 5]
    )  # 0.05 lies on the bound of the 90 % interval and counts as inside


def test_the_feature_furthest_from_the_diagonal_is_named():
    rng = RNG(0)
    pit = np.column_stack([rng.random((500, 30)), rng.beta(0.5, 0.5, 500), rng.random((500, 3))])
    *others, worst = drawn_features(interval_coverage(pit)).values()
    assert worst.get_label().startswith("worst: feature 30 (")
    assert len(others) == 33
    assert all(line.get_label().startswith("_") for line in others)
    assert worst.get_linewidth() > 2 * max(line.get_linewidth() for line in others)


def test_few_features_are_all_named_and_differ_in_shape():
    frame = pd.DataFrame(RNG(0).random((100, 4)), columns=["a", "b", "c", "d"])
    lines = drawn_features(interval_coverage(frame))
    assert sorted(label.removeprefix("worst: ")[0] for label in lines) == ["a", "b", "c", "d"]
    assert len({line.get_marker() for line in lines.values()}) == 4


def test_features_without_values_are_left_out_with_their_names():
    pit = np.column_stack([np.full(50, np.nan), np.full(50, 0.5)])
    (label,) = drawn_features(interval_coverage(pit, names=["empty", "full"]))
    assert label == "full (50 % interval: 100 %)"


def test_grey_bars_contain_95_percent_of_binomial_counts():
    pit = RNG(0).random((40, 2))
    pit[30:, 1] = np.nan
    ax = interval_coverage(pit, levels=(0.8,))
    (segment,) = ax.collections[0].get_segments()
    chance = [math.comb(30, k) * 0.8**k * 0.2 ** (30 - k) for k in range(31)]  # the fewest rows
    low, high = np.round(segment[:, 1] * 30).astype(int)
    assert sum(chance[:low]) <= 0.025 < sum(chance[: low + 1])
    assert sum(chance[high + 1 :]) <= 0.025 < sum(chance[high:])


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_the_legend_is_above_everything_drawn(value):
    ax = interval_coverage(np.full((20, 6), value))
    ax.figure.canvas.draw()
    top = ax.transData.transform((0, 1))[1]
    assert ax.get_legend().get_window_extent().y0 > top - 5
    assert ax.get_ylim()[0] < value < ax.get_ylim()[1]


def test_coverage_of_levels_or_names_that_do_not_fit_is_refused():
    for levels in ((), (0.5, 1.0), (0.0,), (np.nan,)):
        with pytest.raises(ValueError, match="levels: expected probabilities between 0 and 1"):
            interval_coverage([0.5], levels=levels)
    with pytest.raises(ValueError, match="names: expected 2, one for each feature, got 1"):
        interval_coverage(np.zeros((3, 2)), names=["a"])
