"""Rows of the data beside rows of the model: tables, images, maps of pixels; how many draws."""

import base64
import io
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.image import imread
from parts.pages import FEW, Page, report

import ppl_vae
from ppl_vae.data.rows import Rows
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP
from ppl_vae.report.check_section import check_section
from ppl_vae.report.draws import FEWEST, Draws
from ppl_vae.report.examples import Examples, examples_section
from ppl_vae.report.images import ImageField, strips
from ppl_vae.report.page import write_report
from ppl_vae.report.pixel_map import pixel_map

SHARED = {"seed": 0, "plate": "data"}


def bernoulli(features=24):
    torch.manual_seed(0)
    return BernoulliModel(features, 2), NormalGuide(features, 2)


def pixels(image):
    """Return an image of the page as an array."""
    return imread(io.BytesIO(base64.b64decode(image.partition(",")[2])), format="png")


@pytest.mark.parametrize(
    ("shape", "image_shape", "expected"),
    [
        ((3, 4, 5), None, (3, 4, 5)), ((4, 5), None, (1, 4, 5)), ((20,), (4, 5), (1, 4, 5)),
        ((60,), (3, 4, 5), (3, 4, 5)), ((20,), None, None),
    ],
)  # fmt: skip
def test_images_are_known_by_their_shape(shape, image_shape, expected):
    found = ImageField.of(Rows((torch.zeros(6), torch.zeros(6, *shape))), image_shape)
    assert (found and (found.position, found.shape)) == (expected and (1, expected))


def test_sequences_are_no_images():
    rows = Rows(ppl_vae.sequences([torch.ones(2, 3), torch.ones(4, 3)]))
    assert ImageField.of(rows) is None


@pytest.mark.parametrize("wrong", [(5, 5), (4,), 24, "4,6", (4.0, 6)])
def test_a_shape_that_no_row_has_is_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match="image_shape: expected"):
        report(tmp_path, *bernoulli(), torch.ones(9, 24), image_shape=wrong)


def test_images_stand_beside_reconstructions_and_samples():
    pair, x = bernoulli(), (torch.rand(30, 24) > 0.5).float()
    rows = Rows(x)
    image = ImageField.of(rows, (4, 6))
    found = Examples.of(*pair, rows, image, show_rows=True, **SHARED)
    page = Page(examples_section(found))
    titles = ["data", "reconstructions", "samples"]
    assert page.figures == [f"{title} {i}" for title in titles for i in range(1, 9)]
    images = [pixels(attributes["src"])[..., 0] for attributes in page.all("img")]
    first, last = x[0].reshape(4, 6).numpy(), x[29].reshape(4, 6).numpy()
    assert np.array_equal(images[0] < 0.5, first > 0.5), "ink is dark"
    assert np.array_equal(images[7] < 0.5, last > 0.5)
    expected = ppl_vae.reconstruct(*pair, x[:1], **SHARED).reshape(4, 6).numpy()
    order = np.argsort(expected.ravel())
    assert images[8].ravel()[order[0]] > images[8].ravel()[order[-1]]


def test_images_in_colour_keep_their_colours():
    red = np.zeros((1, 3, 2, 2))
    red[:, 0] = 1.0
    (line,) = strips({"red": red})
    assert np.array_equal(pixels(line.cells[0].image)[0, 0, :3], [1, 0, 0])


def test_rows_of_a_table_stand_beside_rows_of_the_model(page, run, wine):
    samples = ppl_vae.generate(*ppl_vae.load(run), wine, num_samples=3)
    section = page.text.partition("rows that the model generates")[2].partition("ELBO")[0]
    assert "row 0" in section
    assert "row 177" in section
    line = section.partition("proline ")[2].split()
    shown = [float(value) for value in line[:6]]
    values = [*wine["proline"].iloc[[0, 88, 177]], *samples["proline"]]
    assert shown == pytest.approx(values, abs=0.5 + 0.01 * max(values))


def test_hidden_rows_are_shown_in_no_table_and_no_image(tmp_path):
    pair, x = bernoulli(), (torch.rand(30, 24) > 0.5).float()
    page = report(tmp_path, *pair, x, show_rows=False)
    assert "Single rows were left out" in page.text
    assert "rows that the model generates" not in page.text
    images = report(tmp_path, *pair, x, show_rows=False, image_shape=(4, 6), overwrite=True)
    alts = [alt for alt in images.figures if "samples " in alt or "data " in alt[:5]]
    assert alts == [f"samples {i}" for i in range(1, 9)]
    assert not [alt for alt in images.figures if "strangest images" in alt]


def test_a_model_that_cannot_generate_leaves_a_note():
    page = Page(examples_section(ValueError("no <rows>")))
    assert page.text == "The model generated no rows: no <rows>"


# Flagged pixels


def square_pair():
    """A model of independent pixels, and images with a square that it does not know."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(6, 7), 1.0).to_event(2), obs=x)

    x = torch.randn(60, 6, 7, generator=torch.Generator().manual_seed(0))
    x[:, 1:3, 2:5] += 2.0
    return model, x


def test_the_map_of_pixels_shows_where_the_data_differ(tmp_path):
    model, x = square_pair()
    check = ppl_vae.predictive_check(model, None, x, statistics="mean", num_samples=40)
    image = ImageField.of(Rows(x))
    found = pixel_map(check, ("x", "mean"), image)
    count = int(found.alt.partition("(")[2].partition(" of 42")[0])
    assert 6 <= count <= 18
    assert "<image" in found.svg
    assert pixel_map(check, ("x", "mean"), None) is None
    page = report(tmp_path, model, None, x, statistics="mean")
    assert any("Where the mean of a pixel lies outside" in alt for alt in page.figures)


def test_statistics_of_pairs_of_pixels_have_no_map():
    model, x = square_pair()
    check = ppl_vae.predictive_check(model, None, x, statistics="correlation", num_samples=20)
    assert pixel_map(check, ("x", "correlation"), ImageField.of(Rows(x))) is None


def test_the_section_without_data_has_no_pictures():
    assert "This section needs data" in check_section(None)


# How many draws


def test_large_networks_get_fewer_draws_and_the_page_says_so(monkeypatch, tmp_path):
    small = (BernoulliModel(4, 2), NormalGuide(4, 2))
    wide = BernoulliModel(4, 2, decoder=MLP(2, 4, (2000, 2000)))
    rows = Rows(torch.ones(2000, 4))
    assert Draws.of(*small, rows, "data") == (1000, 200, False)
    few = Draws.of(wide, small[1], rows, "data")
    assert few == (FEWEST, FEWEST, True)
    assert few == Draws.of(wide, small[1], rows, "data"), "no matter how busy the machine is"
    assert Draws.of(wide, small[1], rows, "data", num_samples=7, replicates=8) == (7, 8, False)
    monkeypatch.setattr("ppl_vae.report.draws.BUDGET", 1.0)
    x = (torch.rand(9, 4) > 0.5).float()
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        file = write_report(*small, x, tmp_path / "r.html", replicates=FEW["replicates"])
    page = Page(file.read_text())
    assert "with 100 draws" in page.text
    assert "fewer draws and replicates than usual" in page.text
