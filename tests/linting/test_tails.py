"""Draws of a guide that are too far out for the prior: an ELBO of minus infinity is a warning."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import LATENTS, X, assert_only_finding, observe
from pyro.distributions.transforms import AffineTransform

from ppl_vae import lint


def pair(prior, family):
    """A model with this prior of each latent, and a guide with ``family(m)``, m to be trained."""

    def model(x):
        with pyro.plate("data", len(x)):
            observe(x, pyro.sample("z", prior.expand([len(x), LATENTS]).to_event(1)))

    def guide(x):
        fn = family(pyro.param("m", torch.zeros(LATENTS)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", fn.expand([len(x), LATENTS]).to_event(1))

    return model, guide


def cauchy(m):
    return dist.Cauchy(m, 1.0)


def half_cauchy(m):
    return dist.HalfCauchy(m.exp())


def student(df):
    return lambda m: dist.StudentT(df, m, 1.0)


def of_unknown_variance(m):
    return dist.TransformedDistribution(dist.Normal(0.0, 1.0), AffineTransform(m, 1.0))


@pytest.mark.parametrize(
    ("prior", "family", "needed", "name"),
    [
        (dist.Normal(5.0, 0.1), cauchy, "mean", "Cauchy"),
        (dist.Normal(0.0, 1.0), student(1.5), "variance", "StudentT"),
        (dist.Normal(0.0, 1.0), student(1.0), "mean", "StudentT"),
        (dist.Laplace(0.0, 1.0), cauchy, "mean", "Cauchy"),
        (dist.Gamma(2.0, 1.0), half_cauchy, "mean", "HalfCauchy"),
    ],
)
def test_draws_too_far_out_for_the_prior_are_a_warning(prior, family, needed, name):
    verdict = lint(*pair(prior, family), X)
    pieces = f"finite {needed}", f"prior {type(prior).__name__}", f"got {name}", "df above 2"
    assert_only_finding(verdict, "warning", 'site "z"', "minus infinity", *pieces)


@pytest.mark.parametrize(
    ("prior", "family"),
    [
        (dist.Cauchy(0.0, 1.0), cauchy),
        (dist.StudentT(3.0, 0.0, 1.0), cauchy),
        (dist.Laplace(0.0, 1.0), student(1.5)),
        (dist.Normal(0.0, 1.0), student(2.5)),
        (dist.LogNormal(0.0, 1.0), half_cauchy),
        (dist.Normal(0.0, 1.0), of_unknown_variance),
    ],
)
def test_tails_that_the_prior_bears_are_sound(prior, family):
    assert lint(*pair(prior, family), X).findings == ()
