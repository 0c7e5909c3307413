"""Sites outside the row plate that read what stands in it: found by ``lint``, weighed rightly."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding

from ppl_vae import elbo_terms, fit, lint
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.particles import ParticleRuns

ROWS = 40
X = torch.randn(ROWS, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.6


def reading(read):
    """Return a model whose latent w outside the row plate is centered on ``read(k, x)``."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)
        pyro.sample("w", dist.Normal(read(k, x), 0.1))

    return model


def guide(x):
    center = pyro.param("center", torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Normal(x / 2, 0.5**0.5))
    pyro.sample("w", dist.Normal(center, 0.1))


READ = {
    "the mean": lambda k, x: k.mean(-1),
    "the sum": lambda k, x: 0.01 * k.sum(-1),
    "the largest": lambda k, x: k.max(-1).values,
    "one row's latent": lambda k, x: k[..., 0],
    "the rows themselves": lambda k, x: x.mean(),
}


@pytest.mark.parametrize("what", READ)
def test_a_latent_outside_the_row_plate_that_reads_the_rows_is_an_error(what):
    verdict = lint(reading(READ[what]), guide, X)
    pieces = ("outside the row plate", "one that changes with the rows of a batch", "row plate")
    assert_only_finding(verdict, "error", 'site "w"', *pieces)
    with pytest.raises(ValueError, match='site "w"'):
        fit(reading(READ[what]), guide, X, epochs=1, progress=False)


@pytest.mark.parametrize("rows", [1, 2, ROWS])
def test_a_latent_that_reads_no_row_has_no_finding(rows):
    assert not lint(reading(lambda k, x: torch.tensor(0.3)), guide, X[:rows]).findings


def test_a_factor_outside_the_row_plate_that_reads_the_rows_is_a_warning():
    def penalized(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)
        pyro.factor("penalty", -k.mean(-1).square())
        pyro.sample("w", dist.Normal(0.3, 0.1))

    verdict = lint(penalized, guide, X)
    assert_only_finding(verdict, "warning", 'site "penalty"', "outside the row plate")


@pytest.mark.usefixtures("double")
def test_particles_share_a_run_only_if_the_terms_outside_the_row_plate_allow_it():
    """E log p(w given k) - log q(w), w ~ Normal(c, s), mean of k ~ Normal(m, v): closed form."""
    model, x = reading(READ["the mean"]), X.double()
    runs = ParticleRuns.probe(Pair.of(model, guide, "data"), as_rows(x).take(torch.arange(5)))
    assert not runs.vectorized
    center, scale = 0.3, 0.1
    mean, variance = float(x.mean()) / 2, 0.5 / ROWS
    expected = -0.5 * ((center - mean) ** 2 + variance) / scale**2
    assert math.isclose(expected, -0.645, abs_tol=1e-3)
    found = elbo_terms(model, guide, x, num_samples=1000).attrs["global"]["w"]
    assert math.isclose(found, expected, abs_tol=0.15)


@pytest.mark.usefixtures("double")
def test_an_ordinary_latent_outside_the_row_plate_still_shares_a_run():
    model = reading(lambda k, x: torch.tensor(0.25))
    runs = ParticleRuns.probe(
        Pair.of(model, guide, "data"), as_rows(X.double()).take(torch.arange(5))
    )
    assert runs.vectorized
