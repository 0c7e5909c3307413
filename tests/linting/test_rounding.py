"""Rows that a network rounds in another way beside other rows do not depend on these rows."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding
from pyro.distributions.transforms import affine_autoregressive
from torch.distributions import AffineTransform

from ppl_vae import lint
from ppl_vae.linting.equal_distributions import same_parameters

X = 255 * torch.rand(40, 6, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 255.0).to_event(1), obs=x)


def encoder(change, log_scale=-20.0):
    """Return a guide of tiny scales, whose loc ``change(x, len(x))`` moves a little."""

    def guide(x):
        loc, scale = x / 10 + change(x, len(x)), torch.full_like(x, log_scale).exp()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return guide


@pytest.mark.parametrize("log_scale", [-20.0, -5.0, 2.0])
def test_rounding_that_changes_with_the_number_of_rows_is_no_dependence(log_scale):
    rounding = encoder(lambda x, rows: 1e-6 * x * (rows - 16), log_scale)
    assert not lint(model, rounding, X).findings


@pytest.mark.parametrize("log_scale", [-20.0, -5.0])
def test_a_dependence_on_the_other_rows_is_found_at_any_scale(log_scale):
    coupled = encoder(lambda x, rows: 0.01 * x.mean(0), log_scale)
    verdict = lint(model, coupled, X)
    assert_only_finding(verdict, "error", 'site "z"', "depend on that row alone")


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


def mixture(x):
    parts = dist.Normal(torch.stack([x, -x], -1), 1.0)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(*x.shape, 2)), parts)


KINDS = {
    "normal": normal,
    "scales": lambda x: normal(0.0, x.exp()),
    "masked": lambda x: dist.Normal(x, 1.0).mask(x > 0).to_event(1),
    "expanded": lambda x: normal(x).expand([2, 9]),
    "logits": lambda x: dist.Categorical(logits=x),
    "probs": lambda x: dist.Bernoulli(probs=x.sigmoid()).to_event(1),
    "beta": lambda x: dist.Beta(x.exp(), 1.0).to_event(1),
    "log-normal": lambda x: dist.LogNormal(x, 1.0).to_event(1),
    "half-normal": lambda x: dist.HalfNormal(x.exp()).to_event(1),
    "zero-inflated": lambda x: dist.ZeroInflatedPoisson(x.exp(), gate=torch.tensor(0.1)),
    "several normal": lambda x: dist.MultivariateNormal(x, torch.eye(6)),
    "mixture": mixture,
}


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_compared_wherever_a_distribution_holds_them(kind):
    x, make = torch.randn(9, 6), KINDS[kind]
    assert same_parameters(make(x), make(x * (1 + 1e-6)))
    assert not same_parameters(make(x), make(x * 1.02))
    if kind != "expanded":
        assert same_parameters(make(x), make(x[:4] * (1 + 1e-6)), 4)
        assert not same_parameters(make(x), make(x[:4] * 1.02), 4)


def test_what_holds_its_parameters_in_a_transform_cannot_be_told():
    base = dist.Normal(torch.zeros(6), 1.0).to_event(1)
    for transform in (affine_autoregressive(6), AffineTransform(torch.zeros(6), 1.0)):
        fn = dist.TransformedDistribution(base, [transform])
        assert not same_parameters(fn, fn)
    assert not same_parameters(dist.Normal(0.0, 1.0), dist.Cauchy(0.0, 1.0))
