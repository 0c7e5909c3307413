"""Pairs whose guide is the exact posterior, or the posterior with a known fault."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule


class Posterior(PyroModule):
    """The posterior of probabilistic PCA, its standard deviations multiplied, its means shifted."""

    def __init__(self, model, factor=1.0, shift=0.0):
        super().__init__()
        self.model, self.factor, self.shift = model, factor, shift

    def forward(self, x):
        p = self.model.density()
        weight, variance = p.cov_factor, p.cov_diag[0]
        covariance = (torch.eye(self.model.latents) + weight.T @ weight / variance).inverse()
        mean = (x - p.loc) @ weight @ covariance / variance
        mean = mean + self.shift * covariance.diag().sqrt()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, self.factor**2 * covariance))


SHARES, MEANS = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([-1.0, 0.0, 1.5])


def three_classes(x):
    """A mixture of three normals whose component is drawn."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(SHARES))
        pyro.sample("x", dist.Normal(MEANS[k], 1.0), obs=x)


def class_given_row(certainty):
    """The posterior of the component; above a certainty of 1 it is too sure."""

    def guide(x):
        logits = SHARES.log() + dist.Normal(MEANS, 1.0).log_prob(x[:, None])
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=certainty * logits))

    return guide


def steps(x, lengths):
    """Sequences whose steps have latents of their own, behind the end of a row masked."""
    inside = torch.arange(x.shape[1]) < lengths[:, None]
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(x.shape), 1.0).mask(inside).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.7).mask(inside).to_event(1), obs=x)


def steps_given_row(factor):
    """The posterior of the steps' latents, with standard deviations times a factor."""

    def guide(x, lengths):
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        spread = factor * (1 - 1 / 1.49) ** 0.5
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 1.49, spread).mask(inside).to_event(1))

    return guide


def some_seen(x, seen):
    """Numbers of which some are missing, by ``obs_mask``."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.7), obs=x, obs_mask=seen)


def given_seen(*, reads_masked):
    """The posterior given the numbers that are seen, or one that takes all of them for seen."""

    def guide(x, seen):
        there = torch.ones_like(seen) if reads_masked else seen
        precision = 1 + there / 0.49
        mean = torch.where(there, x, 0.0) / 0.49 / precision
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, precision**-0.5))

    return guide


def shared_mean(x):
    """Rows around a mean that all of them share, outside the plate."""
    mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def given_mean(x):
    """The posterior of a row given the shared mean, which the guide draws somewhere."""
    mean = pyro.sample("mean", dist.Normal(1.0, 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((mean + x) / 2, 0.5**0.5))
