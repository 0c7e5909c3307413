"""A likelihood that reads the cell it scores is named; one that reads other cells is left alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import (
    FEATURES,
    LATENTS,
    ROWS,
    Guide,
    Model,
    X,
    assert_finding,
    assert_only_finding,
    normal,
)
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import fit, lint, log_likelihood
from ppl_vae.nn import MLP

COUNTS = torch.poisson(torch.full((ROWS, FEATURES), 4.0), torch.Generator().manual_seed(0))
COUNTS[:, 0] += 1


class Likelihood(PyroModule):
    """x ~ fn(net, x, z), with z ~ Normal(0, 1)."""

    def __init__(self, fn, observe=lambda x: x):
        super().__init__()
        self.fn, self.observe = fn, observe
        self.net, self.decoder = MLP(FEATURES, FEATURES), MLP(LATENTS, FEATURES)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
            pyro.sample("x", self.fn(self, x, z), obs=self.observe(x))


def autoencoder(half, x, z):
    return normal(half.net(x) + 0 * half.decoder(z), 0.1)


def skip_connection(half, x, z):
    return normal(half.decoder(z) + 0.05 * x)


def own_scale(half, x, z):
    return normal(half.decoder(z), 1.0 + 0.1 * x.abs())


def library_size(half, x, z):
    return dist.Poisson(x.sum(-1, keepdim=True) * half.decoder(z).softmax(-1)).to_event(1)


def one_column(half, x, z):
    return normal(half.decoder(z) + torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], -1))


def joint(half, x, z):
    return dist.MultivariateNormal(half.decoder(z) + half.net(x), torch.eye(FEATURES))


def masked(half, x, z):
    return dist.Normal(half.decoder(z) + half.net(x), 1.0).mask(x > -9.0).to_event(1)


OWN = {
    "autoencoder": (Likelihood(autoencoder), X),
    "skip connection": (Likelihood(skip_connection), X),
    "scale": (Likelihood(own_scale), X),
    "library size": (Likelihood(library_size), COUNTS),
    "one column": (Likelihood(one_column), X),
    "vectors": (Likelihood(joint), X),
    "masked cells": (Likelihood(masked), X),
    "transformed data": (Likelihood(autoencoder, lambda x: x.exp() / 2), X),
}


@pytest.mark.parametrize("how", OWN)
def test_a_likelihood_that_reads_its_own_cell_is_named(how):
    model, data = OWN[how]
    verdict = lint(model, Guide(), data)
    pieces = ("the cell that it scores", "a field of its own")
    assert_finding(verdict, "warning", 'site "x"', *pieces)


def test_a_prior_that_reads_the_cell_is_named_too():
    class Prior(Model):
        def rows(self, x):
            z = pyro.sample("z", normal(x[:, :LATENTS]))
            pyro.sample("x", normal(self.net(z)), obs=x)

    assert_only_finding(lint(Prior(), Guide(), X), "warning", 'site "x"', "the cell that it scores")


def test_fit_warns_of_a_likelihood_above_the_density_of_the_data():
    pyro.set_rng_seed(0)
    x = torch.randn(200, FEATURES)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x * pyro.param("w", torch.ones(())), 0.1), obs=x)

    with pytest.warns(UserWarning, match='site "x": .* the cell that it scores'):
        fit(model, None, x, epochs=1, progress=False)
    density = dist.Normal(0.0, 1.0).log_prob(x).sum(-1).mean().item()
    got = log_likelihood(model, None, x, num_samples=2)["log_prob"].mean()
    assert got > density + 5  # 4.2 nats per row, where no density exceeds about -4.2


class Autoregressive(PyroModule):
    """x[0] ~ Normal(0, 1), x[1] ~ Normal(0.5 x[0], 1), x[2] ~ Normal(0.5 x[0] + 0.5 x[1], 1)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.ones(FEATURES, FEATURES).tril(-1))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(x @ self.weight.tril(-1).T), obs=x)


def test_an_autoregressive_likelihood_is_sound_and_exact():
    model = Autoregressive()
    assert not lint(model, None, X).findings
    mixing = (torch.eye(FEATURES) - model.weight.detach()).inverse()
    exact = dist.MultivariateNormal(torch.zeros(FEATURES), scale_tril=mixing).log_prob(X)
    got = log_likelihood(model, None, X, num_samples=2)["log_prob"].to_numpy()
    torch.testing.assert_close(torch.tensor(got).float(), exact)


class Teacher(Model):
    """z ~ Normal(0, 1); each feature is predicted from the feature before it."""

    def rows(self, x):
        z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        shifted = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], -1)
        pyro.sample("x", normal(self.net(z) + 0.5 * shifted), obs=x)


class Lagged(Model):
    """The features from the second on, given the feature before."""

    def rows(self, x):
        z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        pyro.sample("x", normal(self.net(z)[..., 1:] + x[:, :-1]), obs=x[:, 1:])


class Total(Model):
    """Counts given their total, which only bounds the support."""

    def rows(self, x):
        z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        total = int(x.sum(-1).max())
        pyro.sample("x", dist.Multinomial(total, logits=self.net(z), validate_args=False), obs=x)


class Rest(Model):
    """The first feature is given; the others are observed."""

    def rows(self, x):
        z = pyro.sample("z", normal(x[:, :1].expand(-1, LATENTS)))
        pyro.sample("x", normal(self.net(z)[..., 1:] * x[:, :1]), obs=x[:, 1:])


class Noisy(Model):
    """Noise is added to the data before they are observed."""

    def rows(self, x):
        z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        pyro.sample("x", normal(self.net(z)), obs=x + 0.1 * torch.rand_like(x))


class Hurdle(Model):
    """Whether a count is above zero, then the count given that."""

    def rows(self, x):
        z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
        above = pyro.sample(
            "above", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=(x > 0) * 1.0
        )
        rate = 0.1 + 4.0 * above * self.net(z).exp()
        pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)


SOUND = {
    "earlier features": (Teacher(), Guide(), X),
    "a lag": (Lagged(), Guide(), X),
    "a total": (Total(), Guide(), COUNTS),
    "given features": (Rest(), Guide(), X),
    "noise on the data": (Noisy(), Guide(), X),
    "two sites of one cell": (Hurdle(), Guide(), COUNTS),
}


@pytest.mark.parametrize("how", SOUND)
def test_likelihoods_of_other_cells_have_no_finding(how):
    verdict = lint(*SOUND[how])
    assert not [finding for finding in verdict.findings if "that it scores" in finding.problem]
    dependent_draws = how == "noise on the data"  # which another rule refuses
    assert bool(verdict.errors) == dependent_draws, str(verdict)


def test_a_library_size_as_a_field_of_its_own_has_no_finding():
    class Counts(Model):
        def forward(self, x, size):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal(x.new_zeros(LATENTS)))
                rate = size[:, None] * self.net(z).softmax(-1)
                pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    assert not lint(Counts(), Guide(), {"x": COUNTS, "size": COUNTS.sum(-1)}).findings


def test_a_regression_on_many_fields_has_no_finding():
    def model(x, y):
        slope = pyro.sample("slope", normal(torch.zeros(FEATURES)))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ slope, 1.0), obs=y)

    assert not lint(model, AutoNormal(model), {"x": X, "y": X[:, 0] + 1.0}).findings


def test_a_wide_row_is_looked_at_in_cells_spread_over_it():
    wide = torch.randn(20, 3000, generator=torch.Generator().manual_seed(0))

    def model(x):
        loc = pyro.param("loc", torch.zeros(3000))
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(loc + 0.1 * x), obs=x)

    assert_only_finding(lint(model, None, wide), "warning", 'site "x"', "the cell that it scores")
