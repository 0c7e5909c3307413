"""The section on strange rows: scores, a detector's decision, and what makes rows strange."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pages import Page, report
from pyro.nn import PyroModule

import ppl_vae
from ppl_vae import AnomalyDetector
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.delta import DeltaGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.flow import FlowModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP
from ppl_vae.report import strange_rows
from ppl_vae.report.images import ImageField
from ppl_vae.report.measurements import value_or_error
from ppl_vae.report.numbers import decimal, number
from ppl_vae.report.strange_rows import Images, StrangeRows, check_detector
from ppl_vae.report.strange_section import strange_section

NAMES = ["a", "b", "c"]
ODD = 17  # the row that is far out, in column "b" alone


def frame(count, seed=0):
    values = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).numpy()
    return pd.DataFrame(values, columns=NAMES, index=[f"row-{i}" for i in range(count)])


def with_odd_row(count=60):
    rows = frame(count, seed=1)
    rows.iloc[ODD, 1] = 40.0
    return rows


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return GaussianModel(3, latents=2), NormalGuide(3, latents=2)


@pytest.fixture
def detector(pair):
    return AnomalyDetector(*pair, frame(99), num_samples=20, seed=5)


def measure(model, guide, data, detector=None, seed=0, num_samples=60):
    """Return the strange rows of a pair, compared with all rows."""
    rows = Pair.of(model, guide, "data").rows(data)
    likelihoods = None
    if detector is None:
        with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
            likelihoods = ppl_vae.log_likelihood(
                model, guide, rows, num_samples=num_samples, seed=seed
            )
    return StrangeRows.of(
        model, guide, rows, likelihoods, detector, known=np.arange(len(rows)),
        image=ImageField.of(rows),
        num_samples=num_samples, seed=seed, progress=False, plate="data",
    )  # fmt: skip


def section(*arguments, split=()):
    """Return the section's own page, without the measurements of the other sections."""
    found = value_or_error(measure, *arguments)
    return Page(strange_section(SimpleNamespace(strange=found, split=dict.fromkeys(split))))


def cells(page):
    """Return the text of the page's section on strange rows."""
    return page.text.rpartition("Strange rows")[2].partition("Code of the pair")[0]


def test_without_a_detector_rows_are_ordered_and_no_rate_is_claimed(pair):
    text = section(*pair, with_odd_row()).text
    with pytest.warns(UserWarning, match="k-hat"):
        likelihoods = ppl_vae.log_likelihood(*pair, with_odd_row(), num_samples=60)
    strangest = (-likelihoods["log_prob"]).sort_values(ascending=False)[:10]
    places = [text.index(f"{name} {decimal(score, 2)} ") for name, score in strangest.items()]
    assert strangest.index[0] == f"row-{ODD}"
    assert places == sorted(places)
    assert "there is no detector" in text
    for word in ("flagged", "false-alarm", "threshold of", "p-value of"):
        assert word not in text


def test_a_detector_adds_its_own_scores_p_values_and_threshold(pair, detector, tmp_path):
    page = report(tmp_path, *pair, with_odd_row(), detector=detector)
    found = detector(with_odd_row())
    strangest = found.sort_values("score", ascending=False, kind="stable").iloc[0]
    text = cells(page)
    assert f"row-{ODD} {decimal(strangest['score'], 2)} {number(0.01)} " in text
    assert f"Rows above {number(detector.threshold())} nats are flagged" in text
    flagged = found["flagged"].sum()
    assert f"{flagged} of 60, at a false-alarm rate of 5" in page.text
    assert f"{flagged} rows are above the threshold" in text
    assert "2.0" in text and "9.0" in text  # the rate of these 99 calibration rows  # noqa: PT018
    assert text.count("flagged") == min(flagged, 10) + 1  # a cell for each, and the sentence
    assert "there is no detector" not in text


def test_single_rows_are_left_out_on_demand_and_flags_are_still_counted(pair, detector, tmp_path):
    page = report(tmp_path, *pair, with_odd_row(), detector=detector, show_rows=False)
    flagged = detector(with_odd_row())["flagged"].sum()
    assert f"{flagged} rows are above the threshold" in page.text
    assert "Single rows were left out of this report." in page.text
    assert "row-" not in page.text
    assert not any("row-" in alt for alt in page.figures)
    assert "row-" in report(tmp_path, *pair, with_odd_row(), overwrite=True).text
    with pytest.raises(ValueError, match="show_rows: expected True or False"):
        report(tmp_path, *pair, with_odd_row(), overwrite=True, show_rows="no")


def test_rows_that_the_pair_was_fitted_to_are_named_as_no_new_rows(pair, detector):
    fitted = section(*pair, frame(30), detector, split=["fitted"]).text
    assert "Some of these are rows that the pair was fitted to" in fitted
    other = section(*pair, frame(30), detector).text
    assert "It does not hold for rows that the pair was fitted to" in other


def test_the_column_that_makes_a_row_strange_has_the_largest_attribution(pair):
    page = section(*pair, with_odd_row())
    line = page.text.partition(f"row-{ODD}")[2]
    assert line.partition("row-")[0].split("yes ")[-1].split("no ")[-1].startswith("b +")
    assert next(alt for alt in page.figures if "attributions of columns" in alt).startswith(
        f"Bars of the attributions of columns of row row-{ODD}: b +"
    )


def test_attributions_are_of_the_score_of_the_detector(pair):
    rows = with_odd_row()
    by_error = AnomalyDetector(*pair, frame(40), score="divergence", num_samples=20)
    found, plain = measure(*pair, rows, by_error), measure(*pair, rows)
    both = found.explained.index.intersection(plain.explained.index)
    assert not np.allclose(found.explained.loc[both], plain.explained.loc[both], atol=0.1)
    largest = found.explained.max(axis=1)
    assert (largest <= found.scored["score"].iloc[found.first] + 0.1).all(), "a divergence is >= 0"


def test_ordinary_values_are_those_of_other_rows_of_a_capped_number(pair, monkeypatch):
    monkeypatch.setattr(strange_rows, "COMPARED", 7)
    asked = []
    plain = strange_rows.RowScorer

    def counted(*args, reference, **more):
        asked.append(reference)
        return plain(*args, reference=reference, **more)

    monkeypatch.setattr(strange_rows, "RowScorer", counted)
    found = measure(*pair, with_odd_row())
    assert found.compared == len(asked[0]) == 7
    assert not set(asked[0].index) & set(found.explained.index)
    few = measure(*pair, with_odd_row()[:ODD])
    assert few.compared == 7
    alone = measure(*pair, with_odd_row()[:3])
    assert "expected more rows to compare with" in str(alone.explained)


class Squares(PyroModule):
    """p(x) of images (rows, 6, 6), with a code."""

    def __init__(self):
        super().__init__()
        self.decoder = MLP(2, 36, (8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = self.decoder(z)
            mean = mean.reshape(*mean.shape[:-1], 6, 6)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(2), obs=x)


class SquaresGuide(PyroModule):
    """q(z given x)."""

    def __init__(self):
        super().__init__()
        self.encoder = MLP(36, 2, (8,))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x.flatten(-2)), 1.0).to_event(1))


def test_the_strangest_images_stand_beside_their_own_reconstructions():
    torch.manual_seed(0)
    pair, x = (Squares(), SquaresGuide()), torch.randn(30, 6, 6)
    x[4] += 5.0
    found = measure(*pair, x)
    assert isinstance(found.explained, Images)
    assert found.first[0] == 4
    assert np.array_equal(found.explained.rows[:, 0], x[found.first].double().numpy())
    expected = ppl_vae.reconstruct(*pair, Rows(x).subset(torch.as_tensor(found.first)))
    assert np.array_equal(found.explained.reconstructions[:, 0], expected.double().numpy())
    page = section(*pair, x)
    labels = [str(row) for row in found.first[:6]]
    assert page.figures[1:7] == [f"strangest images {i}: {r}" for i, r in enumerate(labels, 1)]
    assert page.figures[7:] == [f"their reconstructions {i}" for i in range(1, 7)]
    assert "largest attributions" not in page.text


def test_scores_that_cannot_be_computed_leave_a_note_and_the_other_sections(tmp_path):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="could not be measured"):
        page = report(tmp_path, GaussianModel(3), DeltaGuide(3), frame(30))
    assert "The rows have no scores: " in cells(page)
    assert "From the model alone" in page.text


def test_a_detector_that_refuses_the_rows_leaves_a_note_and_a_warning(pair, detector, tmp_path):
    rows = frame(30).rename(columns={"b": "other"})
    with pytest.warns(UserWarning, match="expected the columns of the calibration rows"):
        page = report(tmp_path, *pair, rows, detector=detector)
    assert "The rows have no scores: data: expected the columns of the calibration" in cells(page)


def test_an_error_instead_of_attributions_leaves_the_scores(pair, monkeypatch):
    def refuse(*args, **more):
        raise ValueError("attribution: no")

    monkeypatch.setattr(strange_rows, "RowScorer", refuse)
    text = section(*pair, with_odd_row()).text
    assert f"row-{ODD} " in text
    assert "What makes these rows strange could not be measured: attribution: no" in text


def test_an_exact_density_has_attributions():
    text = section(FlowModel(3, layers=2, hidden=(4,)), None, with_odd_row()).text
    assert f"row-{ODD} " in text
    assert "largest attributions" in text


def test_a_detector_of_another_pair_is_refused_and_one_of_equal_weights_is_not(
    pair, detector, tmp_path
):
    torch.manual_seed(1)
    other = GaussianModel(3, latents=2), NormalGuide(3, latents=2)
    with pytest.raises(ValueError, match="detector: expected one that was calibrated with this"):
        report(tmp_path, *other, frame(30), detector=detector)
    with pytest.raises(ValueError, match="detector: expected None without data"):
        report(tmp_path, *pair, None, detector=detector)
    with pytest.raises(ValueError, match="detector: expected an AnomalyDetector, got 3"):
        report(tmp_path, *pair, frame(30), detector=3)
    assert not list(tmp_path.iterdir())
    for half, same in zip(other, pair, strict=True):
        half.load_state_dict(same.state_dict())
    check_detector(detector, *other, "data")


def test_an_ensemble_of_which_the_pair_is_a_member_judges_its_rows(pair):
    torch.manual_seed(1)
    other = GaussianModel(3, latents=2), NormalGuide(3, latents=2)
    both = AnomalyDetector([pair, other], None, frame(40), num_samples=20)
    check_detector(both, *pair, "data")
    page = section(*pair, with_odd_row(), both)
    assert decimal(both(with_odd_row())["score"].max(), 2).text in page.text


def test_rows_on_which_the_pair_overflows_are_infinitely_strange(pair):
    rows = with_odd_row()
    rows.iloc[5, 0] = 3e38
    page = section(*pair, rows)
    text = page.text
    assert "row-5 \N{INFINITY}" in text
    assert "a +\N{INFINITY}" in text, "the cell that the pair overflows on"
    bars = [alt for alt in page.figures if "attributions of columns" in alt]
    assert f"row-{ODD}:" in bars[0]
    assert text.index("row-5 ") < text.index(f"row-{ODD} ")


def test_without_data_the_section_says_how_to_measure():
    assert "This section needs data" in strange_section(None)
