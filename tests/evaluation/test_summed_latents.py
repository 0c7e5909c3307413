"""Enumerated latents: log-likelihood and ELBO hold the exact sums over their values."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import elbo_terms, log_likelihood

CHANCES, MEANS, SPREADS = (
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.double),
    torch.tensor([-2.0, 0.0, 3.0], dtype=torch.double),
    torch.tensor([0.5, 1.0, 0.7], dtype=torch.double),
)


def logits(x):
    return torch.stack([x, 0 * x, -x], -1)


def flat(infer=None):
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(CHANCES), infer=infer)
            pyro.sample("x", dist.Normal(MEANS[y], SPREADS[y]), obs=x)

    return model


def proposing(infer):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=logits(x)), infer=infer)

    return guide


def deep(x):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(CHANCES))
        z = pyro.sample("z", dist.Normal(MEANS[y], SPREADS[y]))
        pyro.sample("x", dist.Normal(z, 0.6), obs=x)


def deep_guide(x):
    variance = 1 / (1 / SPREADS**2 + 1 / 0.36)
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(logits=logits(x)), infer=PARALLEL)
        loc = (variance * MEANS / SPREADS**2)[y] + variance[y] * x / 0.36
        pyro.sample("z", dist.Normal(loc, variance[y].sqrt()))


PARALLEL, SEQUENTIAL = {"enumerate": "parallel"}, {"enumerate": "sequential"}
SUMMED = {
    "in the model": (flat(PARALLEL), None, 0.0),
    "in the guide": (flat(), proposing(PARALLEL), 0.0),
    "in the guide, one by one": (flat(), proposing(SEQUENTIAL), 0.0),
    "a continuous latent below": (deep, deep_guide, 0.6),
}


def mixture_log_prob(x, noise):
    parts = dist.Normal(MEANS, (SPREADS**2 + noise**2).sqrt()).log_prob(x[:, None])
    return (CHANCES.log() + parts).logsumexp(1).numpy()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        pytest.param(name, compiled, marks=pytest.mark.slow if compiled and "guide" in name else [])
        for name in SUMMED
        for compiled in (False, True)
    ],  # every time two compilations: with and without a guide
)
def test_log_likelihood_sums_enumerated_latents_exactly(name, compiled):
    model, guide, noise = SUMMED[name]
    x = 2 * torch.randn(30)
    for num_samples in (30,) if compiled else (1, 30):  # each number of draws is a compilation
        found = log_likelihood(model, guide, x, num_samples=num_samples, compile=compiled)
        np.testing.assert_allclose(found["log_prob"], mixture_log_prob(x, noise), atol=1e-10)


@pytest.mark.usefixtures("double")
def test_a_guide_that_is_not_exact_still_gives_the_sum():
    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=logits(x)), infer=PARALLEL)
            pyro.sample("z", dist.Normal((MEANS[y] + 2 * x) / 3, 0.6))

    x = 2 * torch.randn(30)
    found = log_likelihood(deep, guide, x, num_samples=20_000)
    np.testing.assert_allclose(found["log_prob"], mixture_log_prob(x, 0.6), atol=0.02)


@pytest.mark.usefixtures("double")
def test_sums_inside_a_plate_of_features_multiply():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(CHANCES), infer=PARALLEL)
            with pyro.plate("features", 4, dim=-2):
                y = pyro.sample("y", dist.Categorical(CHANCES), infer=PARALLEL)
                pyro.sample("x", dist.Normal(MEANS[y] + MEANS[c], SPREADS[y]), obs=x.T)

    x = torch.randn(12, 4)
    parts = [
        chance.log()
        + (CHANCES.log() + dist.Normal(MEANS + m, SPREADS).log_prob(x[..., None])).logsumexp(-1)
        .sum(1)
        for chance, m in zip(CHANCES, MEANS, strict=True)
    ]  # fmt: skip
    right = torch.stack(parts).logsumexp(0)
    np.testing.assert_allclose(log_likelihood(model, None, x, num_samples=2)["log_prob"], right)


@pytest.mark.usefixtures("double")
def test_masked_cells_do_not_change_the_sum():
    def model(x):
        unmasked = x.isfinite()
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(CHANCES), infer=PARALLEL)
            with pyro.poutine.mask(mask=unmasked):
                pyro.sample("x", dist.Normal(MEANS[y], SPREADS[y]), obs=x.nan_to_num())

    x = torch.tensor([1.0, math.nan, -2.0])
    found = log_likelihood(model, None, x, num_samples=2)["log_prob"]
    right = mixture_log_prob(x.nan_to_num(), 0.0)
    np.testing.assert_allclose(found, [right[0], 0.0, right[2]], atol=1e-12)


@pytest.mark.usefixtures("double")
def test_an_enumerated_latent_outside_the_row_plate_is_refused():
    def model(x):
        y = pyro.sample("y", dist.Categorical(CHANCES), infer=PARALLEL)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(MEANS[y], 1.0), obs=x)

    with pytest.raises(ValueError, match=r'site "y".*row plate'):
        log_likelihood(model, None, torch.randn(5))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", SUMMED)
def test_terms_of_enumerated_latents_add_up_to_the_elbo(name):
    model, guide, noise = SUMMED[name]
    x = 2 * torch.randn(30)
    terms = elbo_terms(model, guide, x, num_samples=500)
    q = logits(x).softmax(-1)
    parts = dist.Normal(MEANS, (SPREADS**2 + noise**2).sqrt()).log_prob(x[:, None])
    elbo = (q * (CHANCES.log() + parts - q.log())).sum(1)
    right = mixture_log_prob(x, noise) if guide is None else elbo
    np.testing.assert_allclose(terms.sum(axis=1), right, atol=1e-8)
    scores = log_likelihood(model, guide, x, num_samples=30)
    np.testing.assert_allclose(scores["elbo"], right, atol=1e-8)
    if guide is not None:
        kl = (q * (q.log() - CHANCES.log())).sum(1)
        np.testing.assert_allclose(terms["y"], -kl, atol=1e-8)


def test_a_single_row_gives_the_exact_sum():
    x = torch.zeros(1)
    found = log_likelihood(flat(PARALLEL), None, x, num_samples=2)
    np.testing.assert_allclose(found["log_prob"], mixture_log_prob(x, 0.0), rtol=1e-5)
