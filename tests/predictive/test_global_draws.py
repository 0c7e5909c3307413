"""A guide that draws latents outside the row plate from the rows is shown all of them."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import (
    elbo_terms,
    encode,
    generate,
    interpolate,
    log_likelihood,
    posterior_predictive,
    predictive_check,
    prior_predictive,
    reconstruct,
    traverse,
)
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Rows
from ppl_vae.predictive import global_draws
from ppl_vae.predictive.global_draws import GlobalDraws, PartOfRowsWarning

X = torch.arange(2000.0) / 1000
MEAN = 0.9995  # of X


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mu + 0 * z, 1.0), obs=x)


def guide(x):
    mu = pyro.sample("mu", dist.Normal(x.mean(), 0.01))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(mu + 0 * x, 1.0))


def counting_guide(x):
    """Reads only how many rows there are."""
    mu = pyro.sample("mu", dist.Delta(torch.tensor(len(x) / 2000)))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(mu, 1.0).expand([len(x)]))


def seen_by(function):
    """Return the mean of ``mu`` that a function of the library worked with, from its result."""
    results = {
        "generate": lambda: generate(model, guide, X, num_samples=4000, expected=True),
        "reconstruct": lambda: reconstruct(model, guide, X, num_samples=4),
        "encode": lambda: torch.tensor(encode(model, guide, X)["z"]["mean"].to_numpy()),
        "posterior_predictive": lambda: posterior_predictive(model, guide, X, num_samples=20)["x"],
        "interpolate": lambda: interpolate(model, guide, X[:2000], steps=2),
    }
    return float(results[function]().mean())


FUNCTIONS = ["generate", "reconstruct", "encode", "posterior_predictive", "interpolate"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("rows_in_block", [8192, 700])
def test_every_function_shows_the_guide_all_rows(function, rows_in_block, monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", rows_in_block)
    assert seen_by(function) == pytest.approx(MEAN, abs=0.03)


def test_a_perfect_posterior_that_reads_the_rows_is_not_flagged():
    check = predictive_check(model, guide, X, statistics="mean", num_samples=99)
    line = check.frame.iloc[0]
    assert line["observed"] == pytest.approx(MEAN, abs=1e-5)
    assert line["mean"] == pytest.approx(MEAN, abs=0.01)
    assert not line["flagged"]


@pytest.mark.parametrize("rows_in_block", [8192, 700])
def test_a_guide_that_reads_the_number_of_rows_reads_the_number_of_all(rows_in_block, monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", rows_in_block)
    codes = encode(model, counting_guide, X)
    assert codes["z"]["mean"].to_numpy() == pytest.approx(1.0)
    assert codes.attrs["exact"] == {"z": True}
    assert float(generate(model, counting_guide, X, expected=True).mean()) == pytest.approx(1.0)


def test_codes_behind_a_global_draw_are_averaged_over_its_draws():
    """mu ~ N(mean, 0.5^2) and z ~ N(mu, 1): sd(z) is sqrt(1.25)."""

    def wide(x):
        mu = pyro.sample("mu", dist.Normal(x.mean(), 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mu, 1.0).expand([len(x)]))

    codes = encode(model, wide, X, num_samples=400)
    assert codes.attrs["exact"] == {"z": False}
    assert codes["z"]["mean"].to_numpy() == pytest.approx(MEAN, abs=0.12)
    assert codes["z"]["sd"].to_numpy() == pytest.approx(1.25**0.5, rel=0.04)


def test_the_code_of_one_row_is_that_of_all_rows_together():
    lines = traverse(model, guide, X, steps=3)
    assert lines == pytest.approx(torch.full((3,), MEAN), abs=0.03)


def test_many_replicates_of_many_rows_are_drawn_in_parts(monkeypatch):
    whole = posterior_predictive(model, guide, X, num_samples=16)["x"].mean(1)
    monkeypatch.setattr(global_draws, "NUMBERS", 5000)
    sizes = []
    watched = lambda x: (sizes.append(len(x)), guide(x))[1]  # noqa: E731
    parts = posterior_predictive(model, watched, X, num_samples=16)["x"].mean(1)
    assert max(sizes) == 2000
    assert parts == pytest.approx(torch.full((16,), MEAN), abs=0.1)
    assert whole == pytest.approx(torch.full((16,), MEAN), abs=0.1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_too_many_rows_are_spread_evenly_and_it_is_said(function, monkeypatch):
    monkeypatch.setattr(global_draws, "NUMBERS", 100)
    with pytest.warns(PartOfRowsWarning, match='site "mu": expected all 2000 rows .* got 100 rows'):
        assert seen_by(function) == pytest.approx(MEAN, abs=0.03)


def test_nothing_is_said_of_a_guide_that_reads_no_rows(monkeypatch):
    monkeypatch.setattr(global_draws, "NUMBERS", 100)

    def blind(x):
        pyro.sample("mu", dist.Normal(3.0, 0.01))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(generate(model, blind, X, expected=True).mean()) == pytest.approx(3, abs=0.1)
        prior_predictive(model, X, num_samples=2)


def test_a_latent_that_the_guide_leaves_out_comes_from_the_model_once_for_all_blocks(monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", 700)

    def rest(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    means = posterior_predictive(model, rest, X, num_samples=30)["x"].unflatten(1, (4, 500)).mean(2)
    assert float(means.std(1).max()) < 0.2
    assert float(means.mean(1).std()) == pytest.approx(10, rel=0.5)


def test_where_nothing_is_global_nothing_is_run():
    def local(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    draws = GlobalDraws(Pair.of(model, local, "data"), Rows(X), model=False)
    assert draws.names == set()
    assert draws.draw(0) == {}
    assert len(draws.index) == 0


@pytest.mark.parametrize("rows_in_block", [8192, 700])
def test_likelihoods_of_rows_are_given_a_draw_that_has_seen_all_rows(rows_in_block, monkeypatch):
    monkeypatch.setattr("ppl_vae.core.blocks.LARGEST", rows_in_block)

    def guide(x):
        pyro.sample("mu", dist.Normal(x.mean(), 0.01))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * x, 1.0))

    exact = dist.Normal(MEAN, 1.0).log_prob(X)
    scores = log_likelihood(model, guide, X, num_samples=40)
    torch.testing.assert_close(torch.tensor(scores["log_prob"]), exact.double(), atol=0.03, rtol=0)
    terms = elbo_terms(model, guide, X, num_samples=40)
    torch.testing.assert_close(torch.tensor(terms["x"]), exact.double(), atol=0.03, rtol=0)
    kl = torch.distributions.kl_divergence(dist.Normal(X.mean(), 0.01), dist.Normal(0.0, 10.0))
    assert terms.attrs["global"]["mu"] == pytest.approx(-kl.item(), abs=0.4)
