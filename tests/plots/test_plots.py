"""Figures show the numbers they are given."""

import numpy as np
import pytest
import torch

from ppl_vae.history import History
from ppl_vae.plots import image_grid, latent_map, learning_curves


def test_curves_show_both_elbos_and_mark_the_kept_epoch():
    ax = learning_curves([1, 2, 3], [-9.0, -5, -4], [-9.5, -5.5, -6], best_epoch=2)
    training, held_out, best = (line.get_ydata().tolist() for line in ax.lines)
    assert (training, held_out, best) == ([-9.0, -5, -4], [-9.5, -5.5, -6], [-5.5])
    assert "nats per row" in ax.get_ylabel()
    assert ax.get_title()


def test_a_history_plots_itself_with_and_without_held_out_rows():
    import pandas as pd

    frame = pd.DataFrame(
        {
            "epoch": [1, 2],
            "step": [3, 6],
            "elbo": [-2.0, -1],
            "validation_elbo": [np.nan] * 2,
            "seconds": [0.1, 0.2],
        }
    )
    assert len(History(frame, "Trace_ELBO", "", "epochs", 2).plot().lines) == 1
    held_out = frame.assign(validation_elbo=[-3.0, -2.5])
    assert len(History(held_out, "Trace_ELBO", "", "epochs", 2).plot().lines) == 3


def test_images_lie_in_reading_order():
    images = np.arange(6)[:, None, None] * np.ones((6, 8, 8))
    canvas = image_grid(images, columns=3).images[0].get_array().filled(np.nan)
    centers = canvas[5::9, 5::9]
    assert centers.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_labelled_images_have_a_row_each():
    ax = image_grid({"originals": torch.zeros(4, 64), "samples": torch.ones(2, 64)}, shape=(8, 8))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["originals", "samples"]


@pytest.mark.parametrize("images", [np.zeros((3, 63)), np.zeros((0, 8, 8)), np.zeros(64)])
def test_rows_that_are_no_images_are_refused(images):
    with pytest.raises(ValueError, match="images: expected"):
        image_grid(images, shape=(8, 8))


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
    codes = rng.normal(size=(300, 6)) * [9, 9, 9, 9, 0.1, 0.1]  # labels differ in narrow ones
    codes[:, 4:] += np.array([[0, 0], [1, 0], [0, 1]])[labels]
    ax = latent_map(codes, labels)
    centers = [np.median(np.asarray(points.get_offsets()), 0) for points in ax.collections]
    gaps = [np.linalg.norm(centers[i] - centers[j]) for i in range(3) for j in range(i)]
    assert min(gaps) > 8  # in standard deviations within a label


def test_labels_must_be_as_many_as_codes():
    with pytest.raises(ValueError, match="expected 4, got 3"):
        latent_map(np.zeros((4, 2)), [1, 2, 3])
