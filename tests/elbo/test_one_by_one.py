"""Latents summed one value at a time: the numbers of the sum in parallel, for any network."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch.nn.functional import one_hot

from ppl_vae import IWAE, RowELBO, elbo_terms, fit, lint, log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.particles import ParticleRuns

CHANCES = torch.tensor([0.5, 0.3, 0.2])
MEANS = torch.tensor([[-2.0, 0.0, 3.0], [1.0, -1.0, 0.5]]).T
NOISE = 0.6


def joined(*parts):
    """Return tensors side by side: they must have one number of dimensions, as in ``torch.cat``."""
    assert len({part.ndim for part in parts}) == 1
    return torch.cat(parts, -1)


def model(x):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.OneHotCategorical(CHANCES))
        z = pyro.sample("z", dist.Normal(joined(y, y)[..., :3] @ MEANS, 1.0).to_event(1))
        weight = torch.cat([torch.eye(2), torch.zeros(3, 2)])
        pyro.sample("x", dist.Normal(joined(z, y) @ weight, NOISE).to_event(1), obs=x)


def guide_with(how, shift=0.0, concatenates=True):
    def guide(x):
        with pyro.plate("data", len(x)):
            logits = torch.stack([x[:, 0], 0 * x[:, 0], -x[:, 1]], -1)
            y = pyro.sample("y", dist.OneHotCategorical(logits=logits), infer=how)
            row = joined(x, y) if concatenates else x
            loc = (NOISE**2 * (y @ MEANS) + row[..., :2]) / (1 + NOISE**2) + shift
            pyro.sample("z", dist.Normal(loc, NOISE / math.sqrt(1 + NOISE**2)).to_event(1))

    return guide


SEQUENTIAL = {"enumerate": "sequential", "expand": True}
X = 2 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0))


def exact(x):
    parts = dist.Normal(MEANS, math.sqrt(1 + NOISE**2)).to_event(1).log_prob(x[:, None])
    return (CHANCES.log() + parts).logsumexp(1).numpy()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("num_samples", [1, 40])
def test_log_likelihood_sums_over_the_values_where_networks_concatenate(num_samples, compiled):
    scores = log_likelihood(
        model, guide_with(SEQUENTIAL), X, num_samples=num_samples, compile=compiled
    )
    np.testing.assert_allclose(scores["log_prob"], exact(X), atol=1e-4)
    assert not lint(model, guide_with(SEQUENTIAL), X).errors


def test_elbo_terms_are_expectations_over_the_values():
    guide = guide_with(SEQUENTIAL, concatenates=False)
    terms = elbo_terms(model, guide, X, num_samples=4000)
    logits = torch.stack([X[:, 0], 0 * X[:, 0], -X[:, 1]], -1)
    q = logits.softmax(-1)
    given_y = dist.Normal(MEANS, math.sqrt(1 + NOISE**2)).to_event(1).log_prob(X[:, None])
    right = (q * (given_y + CHANCES.log() - q.log())).sum(-1)
    np.testing.assert_allclose(terms.sum(axis=1), right, atol=0.1)
    np.testing.assert_allclose(terms["y"], (q * (CHANCES.log() - q.log())).sum(-1), atol=1e-4)


def test_config_enumerate_needs_no_expand():
    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=joined(x, x[:, :1])))
            loc = joined(x, one_hot(y, 3).float())[..., :2]
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    def indexing(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(CHANCES))
            z = pyro.sample("z", dist.Normal(MEANS[y], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)

    pair = indexing, config_enumerate(guide, "sequential")
    scores = log_likelihood(*pair, X, num_samples=100)
    assert abs((scores["log_prob"] - exact(X)).mean()) < 0.15


def test_particles_are_drawn_in_one_run_for_each_value():
    guide = guide_with(SEQUENTIAL, concatenates=False)
    pair, batch = Pair.of(model, guide, "data"), as_rows(X).take(torch.arange(5))
    with pair.quiet_run():
        runs = ParticleRuns.probe(pair, batch)
    assert runs.one_by_one == {"y": 3}
    (draw,) = runs.draws(pair, batch, 7)
    assert len(draw.runs) == 3
    assert draw.has_enumerated
    assert not draw.draws_discrete


def test_several_latents_and_a_draw_before_them():
    """Two classes and a code drawn before both; the guide of each class is its posterior."""
    second = torch.tensor([0.6, 0.4])

    def pair_model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            a = pyro.sample("a", dist.Categorical(CHANCES))
            b = pyro.sample("b", dist.Categorical(second))
            pyro.sample("x", dist.Normal(z + MEANS[a, 0] * (1.0 + b), NOISE), obs=x)

    def pair_guide(x):
        how = {"enumerate": "sequential"}
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x / 2, 1.2))
            a = pyro.sample("a", dist.Categorical(logits=MEANS[:, 0] * z[..., None]), infer=how)
            pyro.sample("b", dist.Categorical(logits=MEANS[a, :2]), infer=how)

    x = X[:8, 0]
    where = MEANS[:, 0, None] * torch.tensor([1.0, 2.0])
    parts = dist.Normal(where, math.sqrt(1 + NOISE**2)).log_prob(x[:, None, None])
    right = (parts + CHANCES.log()[:, None] + second.log()).flatten(1).logsumexp(1)
    scores = log_likelihood(pair_model, pair_guide, x, num_samples=4000, compile=False)
    np.testing.assert_allclose(scores["log_prob"], right, atol=0.15)


@pytest.mark.parametrize(
    "elbo", [IWAE(3), IWAE(3, vectorize_particles=False), RowELBO(vectorize_particles=False)]
)
def test_the_library_s_bounds_train_such_a_guide(elbo):
    shift = pyro.nn.PyroModule()
    shift.value = torch.nn.Parameter(torch.tensor(2.0))

    def guide(x):
        pyro.module("shift", shift)
        concatenates = not elbo.vectorize_particles
        guide_with(SEQUENTIAL, shift.value, concatenates)(x)

    history = fit(
        model, guide, X, elbo=elbo, epochs=40, batch_size=30, seed=0, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.1),
    )  # fmt: skip
    assert abs(shift.value.item()) < 0.5
    assert history.frame["elbo"].iloc[-1] > history.frame["elbo"].iloc[0]


def test_a_masked_latent_still_sums_to_one():
    def masked(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x[:, 0] > 0):
            y = pyro.sample("y", dist.OneHotCategorical(CHANCES))
            pyro.sample("x", dist.Normal(y @ MEANS, NOISE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x[:, 0] > 0):
            pyro.sample("y", dist.OneHotCategorical(CHANCES), infer=SEQUENTIAL)

    parts = dist.Normal(MEANS, NOISE).to_event(1).log_prob(X[:, None])
    right = (CHANCES.log() + parts).logsumexp(1).where(X[:, 0] > 0, torch.tensor(0.0))
    scores = log_likelihood(masked, guide, X, num_samples=2)
    np.testing.assert_allclose(scores["log_prob"], right, atol=1e-4)
