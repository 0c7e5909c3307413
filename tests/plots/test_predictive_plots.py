"""Figures of predictive checks show the observed values beside the replicated ones."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae.plots import density_overlay, interval_coverage, pit_histogram, statistic_histogram

RNG = np.random.default_rng


def observed_curve(ax):
    (line,) = [line for line in ax.lines if line.get_label() == "observed"]
    return line.get_data()


def replicated_curves(ax):
    return [line.get_data() for line in ax.lines if line.get_label().startswith("_")]


def peaks(curve):
    x, height = curve
    inner = (height[1:-1] > height[:-2]) & (height[1:-1] >= height[2:])
    return x[1:-1][inner & (height[1:-1] > 0.2 * height.max())]


def shares(ax):
    return [bar.get_height() for bar in ax.patches]


def medians(ax):
    (points, *_) = ax.containers[1]
    return points.get_data()


# density_overlay, on a scale


def test_small_densities_are_on_the_ticks_with_no_power_of_ten_above():
    ax = density_overlay(RNG(0).normal(0, 3e6, 300), RNG(1).normal(0, 3e6, (20, 300)))
    ax.figure.canvas.draw()
    assert ax.yaxis.get_offset_text().get_text() == ""
    ticks = [float(tick.get_text().replace("\N{MINUS SIGN}", "-")) for tick in ax.get_yticklabels()]
    assert ticks == pytest.approx(ax.get_yticks().tolist(), rel=1e-3)
    assert 0 < max(ticks) < 1e-6


def test_two_observed_groups_are_two_peaks_over_one_replicated_peak():
    rng = RNG(0)
    observed = rng.normal(np.repeat([-2.0, 2.0], 300), 0.5)
    ax = density_overlay(observed, rng.normal(0, 2.1, (20, 600)))
    assert np.allclose(peaks(observed_curve(ax)), [-2, 2], atol=0.3)
    pooled = np.mean([height for _, height in replicated_curves(ax)], axis=0)
    assert len(peaks((observed_curve(ax)[0], pooled))) == 1
    assert ax.get_ylabel() == "density"


@pytest.mark.parametrize(
    "kind",
    ["normal", "uniform", "positive", "mostly 0", "constant", "rounding", "two rows", "far off"],
)
def test_curves_integrate_to_1_and_are_in_sight(kind):
    rng = RNG(1)
    values = {
        "normal": rng.normal(size=(21, 400)),
        "uniform": rng.random((21, 400)),
        "positive": rng.exponential(size=(21, 400)),
        "mostly 0": rng.random((21, 400)) * (rng.random((21, 400)) < 0.3),
        "constant": np.full((21, 400), 3.0),
        "rounding": np.where(rng.random((21, 400)) < 0.5, 0.3, 0.1 + 0.2),
        "two rows": rng.normal(size=(21, 2)),
        "far off": rng.normal(size=(21, 400)) + 1e4 * (np.arange(21) == 0)[:, None],
    }[kind]
    ax = density_overlay(values[0], values[1:])
    curves = [observed_curve(ax), *replicated_curves(ax)]
    assert len(curves) == 21
    assert np.allclose([np.trapezoid(height, x) for x, height in curves], 1, atol=0.04)
    low, high = ax.get_xlim()
    assert low < values.min()
    assert values.max() < high
    assert ax.get_ylim()[1] > max(height.max() for _, height in curves)
    assert ax.get_xlabel() == "value"


def test_an_observed_constant_does_not_make_the_replicated_curves_rough():
    ax = density_overlay(np.full(400, 0.3), RNG(0).normal(size=(20, 400)))
    assert all(len(peaks(curve)) < 5 for curve in replicated_curves(ax))
    assert np.allclose(peaks(observed_curve(ax)), 0.3, atol=0.02)


def test_the_density_ends_sharply_at_a_shared_bound():
    rng = RNG(0)
    ax = density_overlay(rng.random(5000), rng.random((20, 5000)))
    x, height = observed_curve(ax)
    assert np.allclose(height[(x > 0.005) & (x < 0.995)], 1, atol=0.15)
    assert not height[(x < -0.005) | (x > 1.005)].any()


def test_the_observed_curve_is_thick_and_on_top_of_at_most_50_replicated_curves():
    rng = RNG(0)
    ax = density_overlay(rng.normal(size=30), torch.randn(180, 30))
    assert len(replicated_curves(ax)) == 50
    assert "replicated (50 of 180 samples)" in ax.get_legend_handles_labels()[1]
    widths = [line.get_linewidth() for line in ax.lines]
    assert widths[-1] >= 2 * max(widths[:-1])
    assert ax.lines[-1].get_label() == "observed"  # on top


@pytest.mark.parametrize("discrete", [True, False])
def test_rows_without_a_value_change_nothing(discrete):
    rng = RNG(0)
    observed, replicated = rng.poisson(3, 50) * 1.0, rng.poisson(3, (9, 50)) * 1.0
    known = rng.permutation(np.repeat([True, False], [50, 20]))
    masked, filled = np.full(70, np.nan), np.full((9, 70), 7.0)  # drawn under the mask
    masked[known], filled[:, known] = observed, replicated
    filled = np.concatenate([filled, np.full((1, 70), np.nan)])
    plain = density_overlay(observed, replicated, discrete=discrete)
    gaps = density_overlay(masked, filled, discrete=discrete)
    if discrete:
        assert shares(plain) == shares(gaps)
        assert np.array_equal(medians(plain), medians(gaps))
    else:
        assert np.array_equal(observed_curve(plain), observed_curve(gaps))
        assert np.array_equal(replicated_curves(plain), replicated_curves(gaps))


def test_nan_cells_of_replicates_are_left_out():
    replicated = np.array([[0.0, 1, 1, np.nan], [np.nan, 1, 1, 0]])
    ax = density_overlay([0.0, 1, 1, 1], replicated, discrete=True)
    assert np.allclose(medians(ax)[1], [1 / 3, 2 / 3])
    ax = density_overlay([0.0, 1, 1, 1], replicated)
    assert all(
        np.isclose(np.trapezoid(height, x), 1, atol=0.01) for x, height in replicated_curves(ax)
    )


def test_values_far_outside_are_counted_in_the_label_and_not_drawn():
    rng = RNG(0)
    observed = np.append(rng.normal(size=998), [1e6, -1e6])
    ax = density_overlay(observed, rng.normal(size=(20, 1000)), name="height (cm)")
    assert -15 < ax.get_xlim()[0] < ax.get_xlim()[1] < 15
    name, note = ax.get_xlabel().split("\n")
    assert name == "height (cm)"
    assert note == "not shown, far outside: 0.2 % of observed, none of replicated values"


# density_overlay, discrete


def test_bars_are_observed_shares_and_points_are_replicated_shares():
    observed = np.repeat([0, 1, 3], [5, 3, 2])
    replicated = np.stack([np.repeat([0, 1, 3], [5 - i, 3, 2 + i]) for i in range(5)])
    ax = density_overlay(observed, replicated, discrete=True)
    assert np.allclose(shares(ax), [0.5, 0.3, 0, 0.2])
    x, height = medians(ax)
    assert x.tolist() == [0, 1, 3]  # no value is 2
    assert np.allclose(height, [0.3, 0.3, 0.4])
    (_, _, (intervals,)) = ax.containers[1]
    low, high = intervals.get_segments()[0][:, 1]
    assert np.allclose([low, high], np.quantile([0.5, 0.4, 0.3, 0.2, 0.1], [0.05, 0.95]))
    assert ax.get_ylabel() == "share of rows"


def test_every_category_has_a_named_place_even_without_values():
    ax = density_overlay([0, 0, 2], torch.tensor([[0, 1, 2]]), discrete=True, labels="abcd")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c", "d"]
    assert np.allclose(shares(ax), [2 / 3, 0, 1 / 3, 0])


@pytest.mark.parametrize("count", [2, 5, 12, 40, 90])
def test_names_of_categories_do_not_overlap(count):
    names = [f"a category {i}" for i in range(count)]
    values = np.arange(count)
    ax = density_overlay(values, values[None], discrete=True, labels=names)
    ax.figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in ax.get_xticklabels()]
    assert len(boxes) >= min(count, 30)
    assert not any(left.overlaps(right) for left, right in itertools.pairwise(boxes))


def test_few_values_far_apart_have_a_bar_each():
    values = np.array([0, 0.5, 2, 1000])
    ax = density_overlay(values, values[None], discrete=True)
    assert shares(ax) == [0.25] * 4
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.5", "2", "1000"]
    assert len({bar.get_width() for bar in ax.patches}) == 1


@pytest.mark.parametrize("outlier", [0, 10**6])
def test_many_different_counts_share_bins_of_equal_width(outlier):
    rng = RNG(0)
    counts = rng.poisson(200, (21, 2000))
    counts[0, 0] += outlier
    ax = density_overlay(counts[0], counts[1:], discrete=True)
    assert 20 <= len(ax.patches) <= 40
    assert np.isclose(sum(shares(ax)), 1)
    steps = np.diff([bar.get_x() for bar in ax.patches])
    assert np.allclose(steps, round(steps[0]))
    assert f"bins of {steps[0]:g} values each" in ax.get_xlabel()
    assert ("end bins hold what lies beyond" in ax.get_xlabel()) == bool(outlier)


@pytest.mark.parametrize(("scale", "whole"), [(1.0, True), (0.01, False)])
def test_the_axis_of_counts_has_whole_ticks_only(scale, whole):
    values = scale * np.arange(41 if scale < 1 else 2)
    ax = density_overlay(values, values[None], discrete=True)
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert len(ticks) >= 2
    assert all(tick == round(tick) for tick in ticks) == whole


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="labels: expected none for continuous values"):
        density_overlay([0, 1], [[0, 1]], labels=["a", "b"])
    for observed, replicated in (([0, 2], [[0, 1]]), ([0, 1], [[0, 2]])):
        with pytest.raises(ValueError, match="got 2, for 0 to 1, and the value 2"):
            density_overlay(observed, replicated, discrete=True, labels=["a", "b"])


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize(
    ("observed", "replicated", "message"),
    [
        (np.zeros((3, 1)), np.zeros((2, 3)), r"observed: .* \(rows,\), got shape \(3, 1\)"),
        (np.zeros(3), np.zeros((3, 2)), r"replicated: expected \(samples, 3\).*\(3, 2\)"),
        (np.zeros(3), torch.zeros(3), r"replicated: expected \(samples, 3\).*\(3,\)"),
        (np.zeros(3), np.zeros((0, 3)), "replicated: expected values, got none"),
        (np.full(3, np.nan), np.zeros((2, 3)), "observed: expected values, got none"),
        (np.zeros(3), np.full((2, 3), np.nan), "replicated: expected values, got none"),
        ([0, 1, np.inf], np.zeros((2, 3)), "observed: expected finite values, got 1 infinite"),
        ([0, 1, 2], np.full((2, 3), -np.inf), "replicated: .* got 6 infinite"),
        ("text", np.zeros((2, 3)), "observed: expected numbers"),
        ([0, 1], "text", "replicated: expected numbers"),
    ],
    ids=range(10),
)
def test_bad_values_are_refused(observed, replicated, message, discrete):
    with pytest.raises(ValueError, match=message):
        density_overlay(observed, replicated, discrete=discrete)


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
        pd.DataFrame,
        list,
    ],
    ids=["gradient", "bfloat16", "frame", "list"],
)
def test_replicates_of_every_type_are_drawn(kind, discrete):
    replicated = np.array([[0.0, 1, 1], [1, 1, 0]] * 40)
    ax = density_overlay([0, 1, 1], kind(replicated), discrete=discrete)
    assert len(replicated_curves(ax)) in ({50} if not discrete else range(2))


# statistic_histogram


def line_of(ax):
    return [line for line in ax.lines if line.get_label().startswith("observed")]


@pytest.mark.parametrize("observed", [2.0, 5.0, -3.0])
def test_the_line_is_at_the_observed_number_and_in_sight(observed):
    ax = statistic_histogram(observed, RNG(0).normal(2, 1, 400), name="mean")
    (line,) = line_of(ax)
    assert set(line.get_xdata()) == {observed}
    assert ax.get_xlim()[0] < observed < ax.get_xlim()[1]
    assert sum(bar.get_height() for bar in ax.patches[1:]) == 400
    assert ax.get_xlabel() == "mean"


@pytest.mark.parametrize("side", [1, -1])
def test_an_observed_number_far_away_is_an_arrow_at_the_edge(side):
    replicated = RNG(0).normal(0, 1, 400)
    ax = statistic_histogram(side * 1234.5, replicated)
    (arrow,) = line_of(ax)
    assert arrow.get_label() == f"observed: {side * 1234.5}, far outside"
    assert arrow.get_marker() == (">" if side > 0 else "<")
    assert arrow.get_transform() == ax.transAxes
    assert (arrow.get_xdata()[-1] > 0.95) if side > 0 else (arrow.get_xdata()[-1] < 0.05)
    assert max(map(abs, ax.get_xlim())) < 10  # the bars are not squeezed
    assert [text.get_text() for text in ax.texts] == [f"{side * 1234.5}"]


def test_the_legend_has_the_number_the_interval_and_p():
    replicated = np.arange(101.0)
    labels = statistic_histogram(97, replicated, p_value=0.04).get_legend_handles_labels()[1]
    assert labels == [
        "observed: 97 (p = 0.04)",
        "central 90 % of the replicates: 5 to 95",
        "101 replicates",
    ]
    labels = statistic_histogram(200, replicated, p_value=0.0).get_legend_handles_labels()[1]
    assert labels[0] == "observed: 200 (p < 0.0099)"


def test_numbers_have_the_digits_in_which_they_differ():
    replicated = 1234567 + RNG(0).normal(size=100)
    label = statistic_histogram(1234567.25, replicated).get_legend_handles_labels()[1][0]
    assert label == "observed: 1234567.25"


@pytest.mark.parametrize("observed", [0.0, 0.3, 40.0])
@pytest.mark.parametrize(
    "replicated",
    [np.zeros(50), np.full(50, 0.3), np.array([0.3]), np.repeat([0.3, 0.1 + 0.2], 25)],
)
def test_replicates_that_do_not_vary_are_drawn(observed, replicated):
    ax = statistic_histogram(observed, replicated)
    low, high = ax.get_xlim()
    assert low < min(observed, replicated[0]) <= max(observed, replicated[0]) < high
    widths = [bar.get_width() for bar in ax.patches if bar.get_height() == len(replicated)]
    assert max(widths) > 0.01 * (high - low)
    (line,) = line_of(ax)
    assert line.get_xdata()[0] == observed


def test_whole_numbers_have_bars_of_whole_numbers():
    replicated = RNG(0).poisson(100, 500)
    bars = statistic_histogram(100, replicated).patches[1:]
    width = bars[0].get_width()
    assert width == round(width)
    assert all(bar.get_x() % 1 == 0.5 for bar in bars)


def test_replicates_far_outside_are_counted_and_nan_left_out():
    replicated = np.concatenate([RNG(0).normal(size=997), [1e9], [np.nan] * 3])
    ax = statistic_histogram(0.5, replicated)
    assert ax.get_xlabel().endswith("not shown, far outside: 1 of the replicates")
    assert ax.get_legend_handles_labels()[1][-1] == "998 replicates"
    assert ax.get_xlim()[1] < 10


@pytest.mark.parametrize(
    ("observed", "replicated", "p_value", "message"),
    [
        ([1, 2], [1, 2], None, r"observed: expected one finite number, got shape \(2,\)"),
        (np.nan, [1, 2], None, "observed: expected one finite number, got nan"),
        (1, [[1, 2]], None, r"replicated: .* \(samples,\), got shape \(1, 2\)"),
        (1, [np.nan], None, "replicated: expected finite numbers, got none"),
        (1, [1, np.inf], None, "replicated: expected finite numbers, got infinite"),
        (1, [1, 2], 1.5, "p_value: expected a share, 0 to 1, got 1.5"),
    ],
    ids=range(6),
)
def test_statistics_that_are_not_finite_numbers_are_refused(observed, replicated, p_value, message):
    with pytest.raises(ValueError, match=message):
        statistic_histogram(observed, replicated, p_value=p_value)


def test_figures_are_drawn_on_the_given_axes_with_the_given_title():
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(4)
    u = RNG(0).random(20)
    drawn = [
        density_overlay(u, u[None], ax=axes[0], title="a"),
        statistic_histogram(0.5, u, ax=axes[1], title="b"),
        pit_histogram(u, ax=axes[2], title="c"),
        interval_coverage(u, ax=axes[3], title="d"),
    ]
    assert drawn == list(axes)
    assert [ax.get_title() for ax in drawn] == ["a", "b", "c", "d"]
