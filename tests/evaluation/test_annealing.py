"""Annealing finds log p(x) without a guide, and bounds it from both sides on rows of the model."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.zoo import zoo_pair
from torch import nn

from ppl_vae import inference_gap, log_likelihood
from ppl_vae.core.pair import Pair
from ppl_vae.evaluation.annealing import even_temperatures, sigmoid_temperatures
from ppl_vae.evaluation.tempered_density import TemperedDensity
from ppl_vae.models.ppca import PPCAModel


class Narrow(nn.Module):
    """A guide with the posterior's mean, and a part of its width in each coordinate."""

    def __init__(self, model, width):
        super().__init__()
        weight, noise = model.weight.detach(), math.exp(-2 * model.log_sigma.item())
        precision = torch.eye(weight.shape[1]) + noise * weight.T @ weight
        self.map = noise * torch.linalg.inv(precision) @ weight.T
        self.scale = width * precision.diagonal().rsqrt()

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.map.T, self.scale).to_event(1))


def linear(latents, rows, features=20):
    torch.manual_seed(0)
    model = PPCAModel(features, latents=latents)
    with torch.no_grad():
        model.weight.copy_(0.8 * torch.randn(features, latents))
        model.log_sigma.fill_(-0.7)
    x = model.density().sample((rows,))
    return model, x, model.log_prob(x).detach().numpy()


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
def test_annealing_is_near_where_importance_sampling_by_a_narrow_guide_is_not():
    model, x, exact = linear(latents=10, rows=40)
    guide = Narrow(model, width=0.4)
    annealed = inference_gap(model, guide, x, steps=1, num_samples=1000, method="annealed").frame
    assert abs((annealed["log_prob"] - exact).mean()) < 0.05
    assert annealed["k_hat"].isna().all()
    # 1,000 temperatures and a pilot of 100, 3 evaluations each by 16 chains: 3,600 for a row
    drawn = log_likelihood(model, guide, x, num_samples=16 * 3600)
    assert (exact - drawn["log_prob"]).mean() > 0.5


def test_rows_of_the_model_have_bounds_on_both_sides():
    model, x, _ = linear(latents=4, rows=60, features=8)
    guide = Narrow(model, width=1.0)
    result = inference_gap(
        model, guide, x, steps=1, num_samples=400, method="annealed", simulated=True
    )
    lower, upper = (result.summary.loc[name, "mean"] for name in ("log_prob", "log_prob_upper"))
    importance = inference_gap(model, guide, x, steps=100, simulated=True).summary["mean"]
    # the same rows, because the seed is the same; the covering guide of a linear model is exact
    assert lower - 0.02 < importance["log_prob"] < upper + 0.02
    assert upper - lower < 0.15
    assert not result.unreliable.any()


def test_few_temperatures_bracket_from_afar_on_the_right_sides():
    model, x, _ = linear(latents=4, rows=200, features=8)
    guide = Narrow(model, width=1.0)
    few = inference_gap(
        model, guide, x, steps=1, num_samples=6, method="annealed", simulated=True
    ).summary["mean"]
    exact = inference_gap(model, guide, x, steps=100, simulated=True).summary["mean"]["log_prob"]
    assert few["log_prob"] < exact - 0.1
    assert few["log_prob_upper"] > exact + 0.1


class Rate(nn.Module):
    """A count whose positive latent rate has a gamma prior: p(x) is negative binomial."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
            pyro.sample("x", dist.Poisson(rate), obs=x)


class RateGuide(nn.Module):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal((1 + x).log(), 0.5))


def test_a_positive_latent_is_annealed_in_its_logarithm():
    x = torch.arange(12.0)
    exact = dist.NegativeBinomial(2.0, probs=torch.tensor(1 / 1.5)).log_prob(x).numpy()
    found = inference_gap(Rate(), RateGuide(), x, method="annealed", steps=20, num_samples=300)
    assert np.abs(found.frame["log_prob"] - exact).max() < 0.1
    assert found.frame["approximation"].min() > -0.1


class Shares(nn.Module):
    """Counts of categories whose shares have a Dirichlet prior."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            shares = pyro.sample("shares", dist.Dirichlet(torch.tensor([1.0, 2.0, 0.7])))
            pyro.sample("x", dist.Multinomial(10, shares, validate_args=False), obs=x)


class SharesGuide(nn.Module):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("shares", dist.Dirichlet(1 + x))


def test_shares_on_a_simplex_are_annealed():
    x = torch.tensor([[10.0, 0.0, 0.0], [3.0, 3.0, 4.0], [0.0, 1.0, 9.0]])
    prior = dist.DirichletMultinomial(torch.tensor([1.0, 2.0, 0.7]), 10)
    exact = prior.log_prob(x).numpy()
    found = inference_gap(Shares(), SharesGuide(), x, method="annealed", num_samples=400, steps=20)
    assert np.abs(found.frame["log_prob"] - exact).max() < 0.15


class Clusters(nn.Module):
    """A latent of two clusters, whose class is summed: its density is a sum, too."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(6 * y - 3, 0.5))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)


class ClustersGuide(nn.Module):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.5))


def test_a_summed_class_is_summed_in_the_density():
    x = torch.tensor([-3.0, 0.0, 3.0, 2.0]).repeat(20)
    parts = [
        dist.Normal(m, math.sqrt(0.5)).log_prob(x) + math.log(p) for m, p in ((-3, 0.7), (3, 0.3))
    ]
    exact = torch.logaddexp(*parts).numpy()
    found = inference_gap(
        Clusters(), ClustersGuide(), x, method="annealed", num_samples=400, steps=20
    )
    wrong = (found.frame["log_prob"] - exact).to_numpy().reshape(20, 4)
    assert np.abs(wrong.mean(0)).max() < 0.15  # 16 chains do not change the cluster


def test_the_traced_density_is_that_of_the_model():
    model, x, _ = linear(latents=3, rows=6)
    pair = Pair.of(model, None, "data")
    density = TemperedDensity(pair, pair.rows(x))
    batch = pair.rows(x).take(torch.arange(6))
    points = density.prior_points(batch, 4)
    eager = density.of_block(batch)(points, 0.3)
    density.trace(batch, points)
    traced = density.of_block(batch)(points, 0.3)
    assert density.is_traced
    assert traced[0].data_ptr() != eager[0].data_ptr()
    for one, other in zip(eager[:2], traced[:2], strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(eager[2]["z"], traced[2]["z"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "names",
    [
        ("hierarchical", "top_down"), ("table", "table"),
        # annealed by the same code as the others
        *(
            pytest.param(names, marks=pytest.mark.slow)
            for names in (
                ("mixture_prior", "normal"), ("topics", "logistic_normal"),
                ("semisupervised", "classifier"),
            )
        ),
    ],
    ids="+".join,
)  # fmt: skip
def test_pairs_of_the_zoo_are_annealed(names):
    model, guide, data = zoo_pair(*names)
    result = inference_gap(model, guide, data, steps=1, num_samples=60, method="annealed")
    importance = inference_gap(model, guide, data, steps=100, num_samples=500).frame["log_prob"]
    assert (result.frame["log_prob"] - importance).abs().median() < 0.3


def test_what_cannot_be_annealed_is_refused_by_site():
    for names, words in (
        (("bayesian_decoder", "mean_field"), 'site "weights1": expected latents inside'),
        (("sigmoid_belief", "bernoulli"), "site .*expected a continuous latent"),
    ):
        model, guide, data = zoo_pair(*names)
        with pytest.raises(ValueError, match=words):
            inference_gap(model, guide, data, steps=1, num_samples=5, method="annealed")


def test_temperatures_rise_from_0_to_1_and_are_dense_where_the_likelihood_varies():
    grid = sigmoid_temperatures(50)
    assert grid[0] == 0
    assert grid[-1] == 1
    even = even_temperatures(grid, 1 / (0.01 + grid), 200)
    assert len(even) == 201
    assert even[0] == 0
    assert even[-1] == pytest.approx(1)
    steps = even.diff()
    assert bool((steps > 0).all())
    assert steps[5] < steps[-5] / 10
    unknown = even_temperatures(grid, torch.full_like(grid, math.nan), 10)
    torch.testing.assert_close(unknown, sigmoid_temperatures(10))
