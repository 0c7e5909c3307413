"""Figures of training, images, codes, reliability and the ELBO show the numbers they are given."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae.plots import (
    elbo_bars,
    image_grid,
    importance_map,
    latent_map,
    learning_curves,
    reliability,
)
from ppl_vae.training.history import History


def test_curves_show_both_elbos_and_mark_the_best_epoch():
    ax = learning_curves([1, 2, 3], [-9.0, -5, -4], [-9.5, -5.5, -6], best_epoch=2)
    training, held_out, best = (line.get_ydata().tolist() for line in ax.lines)
    assert (training, held_out, best) == ([-9.0, -5, -4], [-9.5, -5.5, -6], [-5.5])
    assert "nats per row" in ax.get_ylabel()
    assert ax.get_title()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 300])
def test_epochs_are_whole_numbers(count):
    ax = learning_curves(range(1, count + 1), np.linspace(-9, -4, count))
    low, high = ax.get_xlim()
    shown = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert shown
    assert all(tick == round(tick) for tick in shown)


def test_curves_whose_length_differs_from_the_epochs_are_refused():
    with pytest.raises(ValueError, match="training: expected a number for each of the 3 epochs"):
        learning_curves([1, 2, 3], [-1.0, -2])
    with pytest.raises(ValueError, match="held_out: expected a number for each of the 2 epochs"):
        learning_curves([1, 2], [-1.0, -2], [-1.0])


def test_a_history_plots_itself_with_and_without_held_out_rows():
    frame = pd.DataFrame(
        {
            "epoch": [1, 2],
            "step": [3, 6],
            "elbo": [-2.0, -1],
            "validation_elbo": [np.nan] * 2,
            "seconds": [0.1, 0.2],
        }
    )
    assert len(History(frame, "Trace_ELBO", "", "epochs", 2, "eager", "").plot().lines) == 1
    held_out = frame.assign(validation_elbo=[-3.0, -2.5])
    assert len(History(held_out, "Trace_ELBO", "", "epochs", 2, "eager", "").plot().lines) == 3


def test_images_fill_the_grid_row_by_row():
    images = np.arange(6)[:, None, None] * np.ones((6, 8, 8))
    canvas = image_grid(images, columns=3).images[0].get_array().filled(np.nan)
    centers = canvas[5::9, 5::9]
    assert centers.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_each_label_has_a_row_of_images():
    ax = image_grid({"originals": torch.zeros(4, 64), "samples": torch.ones(2, 64)}, shape=(8, 8))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["originals", "samples"]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 63)),
        np.zeros((0, 8, 8)),
        np.zeros((0, 64)),
        np.zeros(64),
        [np.zeros((8, 8)), np.zeros((4, 4))],
        [torch.zeros(8, 8), torch.zeros(4, 4)],
        "text",
        None,
    ],
    ids=lambda images: str(getattr(images, "shape", type(images).__name__)),
)
def test_values_that_are_no_images_are_refused(images, labelled):
    with pytest.raises(ValueError, match=r"images\['a'\]: expected" if labelled else "images: exp"):
        image_grid({"a": images} if labelled else images, shape=(8, 8))


def test_grids_that_cannot_be_laid_out_are_refused():
    with pytest.raises(ValueError, match="columns: expected a whole number of at least 1, got 0"):
        image_grid(np.zeros((2, 8, 8)), columns=0)
    with pytest.raises(ValueError, match="images: expected a label and its images, got an empty"):
        image_grid({})
    with pytest.raises(ValueError, match=r"one height and width for all, got .*'b': \(4, 4\)"):
        image_grid({"a": np.zeros((2, 8, 8)), "b": np.zeros((2, 4, 4))})
    with pytest.raises(ValueError, match="column_labels: expected one for each of the 3 columns"):
        image_grid(np.zeros((5, 8, 8)), columns=3, column_labels=["1", "2"])


@pytest.mark.parametrize(
    "images",
    [
        torch.ones(2, 8, 8, requires_grad=True),
        torch.ones(2, 8, 8, dtype=torch.bfloat16),
        torch.ones(2, 1, 8, 8),
        [torch.ones(8, 8, requires_grad=True), torch.ones(8, 8)],
        [[[1] * 8] * 8] * 2,
    ],
    ids=["gradient", "bfloat16", "channel", "list of tensors", "lists"],
)
def test_images_of_every_type_are_drawn(images):
    canvas = image_grid(images).images[0].get_array()
    assert canvas.shape == (10, 19)
    assert canvas.sum() == 128


def test_columns_are_named_below_their_images():
    grid = np.zeros((6, 8, 10)) + np.arange(3).repeat(2)[:, None, None]
    ax = image_grid({"a": grid[:3], "b": grid[3:]}, column_labels=["-3", "0", "3"])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["-3", "0", "3"]
    assert ax.get_xticks().tolist() == [5.5, 16.5, 27.5]  # middles of columns 1 to 10, ...
    assert ax.get_yticks().tolist() == [4.5, 13.5]


@pytest.mark.parametrize("latents", [1, 2, 5])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_map_shows_every_row_and_names_every_label(latents, labelled):
    codes = np.random.default_rng(0).normal(size=(90, latents))
    labels = np.repeat(["a", "b", "c"], 30) if labelled else None
    ax = latent_map(codes, labels)
    assert sum(len(points.get_offsets()) for points in ax.collections) == 90
    assert [text.get_text() for text in ax.texts] == (["a", "b", "c"] if labelled else [])


def test_the_map_finds_the_plane_that_separates_labels():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    codes = rng.normal(size=(300, 6)) * [
        9,
        9,
        9,
        9,
        0.1,
        0.1,
    ]  # labels differ in the two narrow latents
    codes[:, 4:] += np.array([[0, 0], [1, 0], [0, 1]])[labels]
    ax = latent_map(codes, labels)
    centers = [np.median(np.asarray(points.get_offsets()), 0) for points in ax.collections]
    gaps = [np.linalg.norm(centers[i] - centers[j]) for i in range(3) for j in range(i)]
    assert min(gaps) > 8  # in standard deviations within a label


def test_names_do_not_overlap():
    rng = np.random.default_rng(0)
    labels = np.repeat([f"group {i}" for i in range(12)], 50)
    ax = latent_map(rng.normal(size=(600, 2)), labels)  # all medians are close to 0
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 12
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(12) for j in range(i))
    frame = ax.get_window_extent()
    assert all(frame.contains(*corner) for box in boxes for corner in (box.p0, box.p1))


def test_names_with_room_are_at_the_medians():
    codes = np.array([[0.0, 0], [0, 2], [10, 0], [10, 4]])
    ax = latent_map(codes, ["a", "a", "b", "b"])
    assert np.allclose([text.get_position() for text in ax.texts], [[0, 1], [10, 2]])
    assert not ax.lines


def test_groups_differ_in_shape():
    ax = latent_map(np.random.default_rng(0).normal(size=(80, 2)), np.arange(80) % 20)
    looks = [
        (points.get_paths()[0].vertices.tobytes(), points.get_facecolor().tobytes())
        for points in ax.collections
    ]
    assert len({shape for shape, _ in looks[:10]}) == 10
    assert len(set(looks)) == 20
    assert len(ax.get_legend().get_texts()) == 20


@pytest.mark.parametrize("kind", ["numbers", "integers", "objects", "tensor"])
def test_many_different_numbers_are_a_colour_scale(kind):
    ages = np.arange(90)
    labels = {"numbers": ages / 7, "integers": ages, "objects": pd.Series(list(ages), dtype=object)}
    labels["tensor"] = torch.arange(90.0, requires_grad=True)
    ax = latent_map(np.random.default_rng(0).normal(size=(90, 3)), labels[kind])
    assert not ax.texts
    (points,) = ax.collections
    assert np.allclose(points.get_array(), labels["numbers"] if kind == "numbers" else ages)
    assert len(ax.figure.axes) == 2  # the second axes is the colour scale
    assert "principal" in ax.get_xlabel()


def test_the_colour_scale_has_the_name_of_the_labels():
    labels = pd.Series(np.arange(30.0), name="age")
    ax = latent_map(np.random.default_rng(0).normal(size=(30, 2)), labels)
    assert ax.figure.axes[1].get_ylabel() == "age"


def test_one_latent_has_no_vertical_scale():
    codes = np.random.default_rng(0).normal(size=(90, 1))
    for labels in (None, ["a", "b", "c"] * 30):
        ax = latent_map(codes, labels)
        assert len(ax.get_yticks()) == 0
        assert ax.get_xlabel() == "latent 0"
    heights = [np.asarray(points.get_offsets())[:, 1] for points in ax.collections]
    assert heights[0].min() > heights[1].max() > heights[1].min() > heights[2].max()


@pytest.mark.parametrize("codes", [np.ones((5, 3)), np.ones((1, 3)), torch.ones(5, 3)])
def test_codes_that_do_not_vary_are_drawn(codes):
    assert len(latent_map(codes).collections[0].get_offsets()) == len(codes)


def test_codes_with_gradients_are_drawn():
    latent_map(torch.randn(9, 3, requires_grad=True), torch.arange(9) % 2)


def test_missing_codes_and_labels_are_refused():
    codes = np.zeros((4, 2))
    for missing in (["a", None, "b", None], [0.0, np.nan, 1.0, np.nan]):
        with pytest.raises(ValueError, match="none for 2 of 4 rows, the first is row 1; name"):
            latent_map(codes, missing)
    codes[2] = np.nan
    with pytest.raises(
        ValueError, match=r"codes: expected finite .* 1 of 4 rows, the first is row 2"
    ):
        latent_map(codes)
    with pytest.raises(ValueError, match=r"codes: expected \(rows, latents\), got shape \(0, 2\)"):
        latent_map(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="expected 40 names or fewer, got 90; name groups"):
        latent_map(np.zeros((90, 2)), [f"row {i}" for i in range(90)])


def test_another_number_of_labels_than_codes_is_refused():
    with pytest.raises(ValueError, match="labels: expected 4, one for each row, got 3"):
        latent_map(np.zeros((4, 2)), [1, 2, 3])


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_k_hat_is_drawn_and_counted_between_its_bounds():
    k_hat = [0.9, -0.2, 0.6, 0.5, 0.7, np.nan, -np.inf, 0.71]
    ax = reliability(k_hat)
    assert legend(ax) == [
        "above 0.7: 2 rows (25 %)",
        "0.5 to 0.7, usable: 2 rows (25 %)",
        "0.5 or below, good: 2 rows (25 %)",
        "-inf, all draws weigh the same: 1 row (12 %)",
        "without k-hat: 1 row (12 %)",
    ]
    above, usable, good, exact, _, *bounds = ax.lines
    drawn = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in ax.lines[:5]]
    assert drawn == [
        ([6, 7], [0.71, 0.9]), ([4, 5], [0.6, 0.7]), ([2, 3], [-0.2, 0.5]), ([1], [-1]), ([], []),
    ]  # fmt: skip
    assert len({line.get_marker() for line in (above, usable, good, exact)}) == 4
    assert [line.get_ydata()[0] for line in bounds] == [0.5, 0.7]
    assert {"0.5", "0.7"} <= {text.get_text() for text in ax.texts}
    assert ax.get_title()


def test_k_hats_out_of_sight_are_drawn_at_a_marked_edge():
    ax = reliability([-4.0, 0.2, 30.0])
    assert [line.get_ydata().tolist() for line in ax.lines[:2]] == [[3], [-1, 0.2]]
    ax.figure.canvas.draw()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert (names[0], names[-1]) == ("≤ -1", "≥ 3")
    ax = reliability([-1.0, 0.2, 3.0])
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["-1", "0", "1", "2", "3"]


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 0.3, 0.8])
@pytest.mark.parametrize("count", [1, 9])
def test_rows_with_equal_k_hats_are_drawn(value, count):
    ax = reliability(np.full(count, value))
    ax.figure.canvas.draw()
    counted = [text for text in legend(ax) if " 0 rows" not in text]
    assert len(counted) == 1
    assert f"{count} row" in counted[0]
    low, high = ax.get_ylim()
    assert low <= 0.5
    assert high >= 0.7
    assert bool(len(ax.get_xticks())) == (not np.isnan(value))


def test_one_bad_row_among_thousands_is_not_shown_as_0_percent():
    assert legend(reliability([0.8] + [0.1] * 4999))[0].endswith("1 row (under 1 %)")


def test_scores_may_be_a_frame_or_numbers():
    frame = pd.DataFrame({"log_prob": [-1.0, -2], "k_hat": [0.2, 0.9]}, index=["a", "a"])
    for scores in (frame, frame["k_hat"], torch.tensor([0.2, 0.9]), [0.2, 0.9]):
        assert legend(reliability(scores, title="Mine"))[0].endswith("1 row (50 %)")
    with pytest.raises(ValueError, match=r"scores: expected a column k_hat.* got log_prob"):
        reliability(frame[["log_prob"]])
    for wrong in ([], [[0.1]], "text"):
        with pytest.raises(ValueError, match="scores: expected"):
            reliability(wrong)


def bars(ax):
    return [round(bar.get_width(), 6) for bar in ax.patches]


def test_bars_are_means_over_rows_with_their_standard_errors():
    terms = pd.DataFrame({"z": [-1.0, -3, -5], "k + x": [8.0, 10, 15]})
    ax = elbo_bars(terms)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["z", "k + x", "together"]
    assert bars(ax) == [-3, 11, 8]
    errors = [np.ptp(line.get_segments()[0][:, 0]) / 2 for line in ax.collections]
    assert errors == pytest.approx([*terms.sem(), terms.sum(axis=1).sem()])
    assert [text.get_text() for text in ax.texts] == ["-3.00 ± 1.15", "11.00 ± 2.08", "8.00 ± 1.00"]
    assert "nats per row" in ax.get_xlabel()
    assert ax.yaxis_inverted()  # the first site is on top


def test_totals_of_sites_outside_the_row_plate_are_divided_by_rows_and_hatched():
    terms = pd.DataFrame({"x": [-4.0, -6]})
    terms.attrs["global"] = {"weights": -30.0}
    ax = elbo_bars(terms)
    assert bars(ax) == [-5, -15, -20]
    assert "weights, outside the\nrow plate: total / 2 rows" in [
        label.get_text() for label in ax.get_yticklabels()
    ]
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [False, True, False]
    assert len(ax.collections) == 2  # a total has no error


def test_bars_of_one_row_and_of_impossible_rows_are_drawn():
    assert [text.get_text() for text in elbo_bars({"x": [-3.0]}).texts] == ["-3.00", "-3.00"]
    ax = elbo_bars({"z": torch.tensor([-1.0, -2]), "x": [-np.inf, -2]})
    assert bars(ax) == [-1.5, 0, 0]
    assert [text.get_text() for text in ax.texts][1:] == ["-inf, no bar", "-inf, no bar"]


@pytest.mark.parametrize(
    "terms", [{}, {"x": []}, {"x": [1.0], "z": [1.0, 2]}, {"x": [[1.0]]}, {"x": 1.0}, {"x": "a"}]
)
def test_terms_without_one_number_for_each_row_are_refused(terms):
    with pytest.raises(ValueError, match=r"terms.*: expected"):
        elbo_bars(terms)


def test_the_area_of_a_square_is_the_importance_and_the_largest_of_a_factor_is_dark():
    names = {"index": ["z[0]", "z[1]"], "columns": ["place", "size"]}
    ax = importance_map(pd.DataFrame([[0.8, 0.0], [0.2, 0.4]], **names))
    areas = {tuple(np.add(s.get_xy(), s.get_width() / 2)): s.get_width() ** 2 for s in ax.patches}
    assert areas == pytest.approx({(0, 0): 0.81 * 0.8, (0, 1): 0.81 * 0.2, (1, 1): 0.81 * 0.4})
    colours = [square.get_facecolor() for square in ax.patches]
    assert colours[0] == colours[2] != colours[1]
    assert [text.get_text() for text in ax.texts] == ["0.80", "0.40"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["z[0]", "z[1]"]


def test_importances_below_zero_or_of_another_form_are_refused():
    for wrong in ([[-0.1]], [0.1, 0.2], np.zeros((0, 2)), [[np.nan]]):
        with pytest.raises(ValueError, match="importance: expected a table"):
            importance_map(wrong)


def test_an_image_of_a_grid_has_a_frame():
    images = {"a": torch.rand(3, 4, 4), "b": torch.rand(2, 4, 4)}
    (frame,) = image_grid(images, framed={"b": 1}).patches
    assert frame.get_xy() == (5 + 0.5 - 0.5, 5 + 0.5 - 0.5)  # one pixel between images of 4
    for wrong in ({"b": 2}, {"c": 0}):
        with pytest.raises(ValueError, match="framed: expected the column of an image"):
            image_grid(images, framed=wrong)


def test_a_cut_learning_curve_says_so():
    epochs = np.arange(1, 41)
    steep = -90 - 400 / epochs
    assert [t.get_text() for t in learning_curves(epochs, steep).texts] == [
        "cut: the first epochs lie lower, from -490 on"
    ]
    assert not learning_curves(epochs[:10], steep[:10]).texts
