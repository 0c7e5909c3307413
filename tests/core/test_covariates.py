"""Bad numbers in a small table: lint, fit and log_likelihood name field, column and row."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import build, elbo_terms, encode, fit, lint, load, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.categorical import CategoricalModel
from ppl_vae.models.negative_binomial import NegativeBinomialModel
from ppl_vae.models.poisson import PoissonModel

ROWS = 30
RANDOM = np.random.default_rng(0)
COUNTS = pd.DataFrame(RANDOM.poisson(2.0, (ROWS, 3)).astype(float), columns=["a", "b", "c"])
SIZE = pd.Series(RANDOM.gamma(4.0, 0.25, ROWS) + 0.1, name="library")
CODES = pd.DataFrame(RANDOM.integers(0, 3, (ROWS, 3)), columns=["a", "b", "c"])


def with_cell(frame, value):
    """A copy of a table with one wrong number, in row 7 of column b."""
    wrong = frame.astype(float)
    wrong.loc[7, "b"] = value
    return wrong


def with_size(value):
    """The counts with their sizes, that of row 7 a wrong one."""
    return {"x": COUNTS, "size": SIZE.mask(SIZE.index == 7, value)}


def pair(model, data):
    pyro.set_rng_seed(0)
    return build(model, data, latents=2), build(NormalGuide, data, latents=2)


def what_each_says(model, good, bad):
    """The errors of lint, fit and log_likelihood for a pair that was built from good data."""
    halves = pair(model, good)
    (finding,) = lint(*halves, bad).errors
    texts = [str(finding)]
    for function, options in ((fit, {"epochs": 1}), (log_likelihood, {"num_samples": 4})):
        with pytest.raises(ValueError, match=r"row 7") as raised:
            function(*halves, bad, progress=False, **options)
        texts.append(str(raised.value))
    return texts


@pytest.mark.parametrize(
    ("model", "good", "bad", "got"),
    [
        (PoissonModel, COUNTS, -1.0, "-1"),
        (NegativeBinomialModel, COUNTS, 1.5, "1.5"),
        (CategoricalModel, CODES, 5, "5"),
        (CategoricalModel, CODES, -1, "-1"),
        (BernoulliModel, (CODES > 1).astype(float), 2.0, "2"),
        (PoissonModel, COUNTS, np.nan, "NaN"),
    ],
)
def test_a_number_that_no_likelihood_takes_is_named_by_row_and_column(model, good, bad, got):
    for text in what_each_says(model, good, with_cell(good, bad)):
        assert 'column "b"' in text
        assert got in text


@pytest.mark.parametrize("model", [PoissonModel, NegativeBinomialModel])
@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_a_size_that_is_not_positive_is_named_by_field_and_row(model, size):
    for text in what_each_says(model, with_size(1.0), with_size(size)):
        assert 'field "size"' in text
        assert "NaN" in text or f"got {size:g} in row 7; leave such rows out" in text
    with pytest.raises(
        ValueError, match=r'data\["size"\]: expected positive numbers, got .* row 7'
    ):
        build(model, with_size(size))


def test_columns_of_arrays_and_cells_of_images_are_named_by_position():
    halves = pair(PoissonModel, COUNTS.to_numpy())
    bad = with_cell(COUNTS, -1.0).to_numpy()
    assert "row 7 with -1 in column 1" in str(lint(*halves, bad).errors[0])
    images = RANDOM.poisson(2.0, (ROWS, 1, 8, 8)).astype(float)
    halves = pair(PoissonModel, images)
    images[7, 0, 3, 5] = -1.0
    assert "row 7 with -1 in channel 0, row 3, column 5" in str(lint(*halves, images).errors[0])


def test_one_wrong_size_among_others_does_not_hide_the_other_faults():
    halves = pair(PoissonModel, with_size(1.0))
    data = with_size(-1.0) | {"x": with_cell(COUNTS, np.nan)}
    assert 'field "x"' in str(lint(*halves, data).errors[0])
    with pytest.raises(ValueError, match="row 7"):
        encode(*halves, data, progress=False)


def test_a_feature_without_counts_has_the_rate_of_half_a_count():
    data = {"x": COUNTS.assign(c=0.0), "size": SIZE}
    rate = build(PoissonModel, data).rate
    expected = [*(COUNTS[["a", "b"]].sum() / SIZE.sum()), 0.5 / SIZE.sum()]
    np.testing.assert_allclose(rate.numpy(), expected, rtol=1e-5)


SIZED = {"x": torch.poisson(torch.rand(40, 3)), "size": torch.rand(40) + 1}


def fitted_pair(data, folder):
    """A pair fitted to data, and the same pair reopened from its run."""
    halves = pair(PoissonModel, data)
    fit(*halves, data, epochs=2, compile=False, progress=False, run=folder / "run")
    return halves, load(folder / "run")


def assert_needs_the_size(halves):
    for rows in (SIZED["x"], {"x": SIZED["x"]}):
        with pytest.raises(ValueError, match='data: expected the field "size", with which'):
            log_likelihood(*halves, rows, num_samples=2)
    elbo_terms(*halves, SIZED)


def test_a_model_fitted_with_a_size_refuses_rows_without_it(tmp_path):
    for halves in fitted_pair(SIZED, tmp_path):
        assert_needs_the_size(halves)
        elbo_terms(halves[0], None, tuple(SIZED.values()))


def test_a_size_passed_by_position_is_known_by_the_name_of_its_argument():
    def guide(x, size=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    model = build(PoissonModel, SIZED, latents=2)
    fit(model, guide, tuple(SIZED.values()), epochs=2, compile=False, progress=False)
    assert_needs_the_size((model, guide))


def test_a_model_fitted_without_a_size_refuses_rows_with_it(tmp_path):
    x = SIZED["x"]
    for halves in fitted_pair(x, tmp_path):
        for call in (log_likelihood, elbo_terms, lint, fit):
            with pytest.raises(ValueError, match='data: expected no field "size", without which'):
                call(*halves, SIZED)
        for rows in (x, {"x": x}, {"x": x, "y": torch.arange(40)}):  # nobody reads y
            elbo_terms(*halves, rows)


def test_a_model_that_was_never_fitted_takes_rows_with_a_size_and_without():
    for data in (SIZED["x"], SIZED):
        halves = pair(PoissonModel, data)
        for rows in (SIZED["x"], SIZED):
            elbo_terms(*halves, rows)


def test_a_label_that_is_latent_where_it_is_not_given_may_be_missing_or_new():
    def model(x, y=None):
        level = pyro.param("level", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)
            pyro.sample("x", dist.Normal(y + level, 1.0), obs=x)

    def guide(x, y=None):
        if y is None:
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(x / 2, 1.0))

    data = {"x": torch.randn(20), "y": torch.randn(20)}
    for first, then in ((data, data["x"]), (data["x"], data)):
        fit(model, guide, first, epochs=1, compile=False, progress=False)
        elbo_terms(model, guide, then)
