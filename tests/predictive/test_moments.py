"""Moments averaged over draws: exact where nothing drawn is in them, and else never cut short."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import encode, generate, reconstruct
from ppl_vae.predictive.moments import averaged_moments, known_moments
from ppl_vae.predictive.randomness import DependentTensors, following_random_numbers


def site(fn):
    return {"name": "z", "fn": fn, "value": fn.sample()}


def exact_sites(run):
    with following_random_numbers(known_moments) as exact:
        run()
    return exact


def bernoulli_model(x):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(10 * y, 1.0), obs=x)


def bernoulli_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(torch.full((len(x),), 0.8)))


def test_a_row_is_reconstructed_from_all_draws_under_every_seed():
    """The truth is 10 * 0.8; two equal draws of y, which most seeds give, must not end the average.

    One average of 300 draws has a standard error of 10 * sqrt(0.16 / 300) = 0.23.
    """
    rows = [
        reconstruct(bernoulli_model, bernoulli_guide, torch.zeros(1), num_samples=300, seed=seed)
        for seed in range(6)
    ]
    assert torch.cat(rows).tolist() == pytest.approx([8.0] * 6, abs=0.95)
    assert len({float(row) for row in rows}) > 1


@pytest.mark.parametrize("seed", range(4))
def test_codes_behind_a_discrete_draw_are_averaged_under_every_seed(seed):
    """z = 3 y + noise of 0.1: mean 2.4, variance 9 * 0.16 + 0.01."""

    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.2, 0.8]).expand(len(x), 2)))
            pyro.sample("z", dist.Normal(torch.tensor([0.0, 3.0])[y], 0.1))

    codes = encode(bernoulli_model, guide, torch.zeros(1), num_samples=300, seed=seed)
    assert codes.attrs["exact"] == {"y": True, "z": False}
    assert codes["y"]["probability"].to_numpy() == pytest.approx(np.array([[0.2, 0.8]]))
    assert codes["z"]["mean"].to_numpy().item() == pytest.approx(2.4, abs=0.3)
    assert codes["z"]["sd"].to_numpy().item() == pytest.approx(1.45**0.5, rel=0.17)


class Unknowing(dist.Normal):
    """A distribution that does not know its mean."""

    @property
    def mean(self):
        raise NotImplementedError


def test_the_spread_of_draws_is_estimated_without_bias():
    """The average over many calls of a variance from three draws each is the variance, 4."""
    with pyro.get_param_store().scope():
        torch.manual_seed(0)
        run = lambda number: {"z": site(Unknowing(torch.zeros(4000), 2.0))}  # noqa: E731
        average = averaged_moments(run, 3)[0]["z"]
    assert not average.exact
    assert float(average.result()["sd"].square().mean()) == pytest.approx(4.0, rel=0.07)


def test_a_single_draw_says_nothing_of_the_spread():
    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(torch.full((len(x),), 0.8)))
            pyro.sample("z", dist.Normal(3 * y, 0.1))

    codes = encode(bernoulli_model, guide, torch.zeros(2), num_samples=1)
    assert codes.attrs["exact"] == {"y": True, "z": False}
    assert codes["y"]["sd"].to_numpy().ravel().tolist() == pytest.approx([0.4] * 2)
    assert codes["z"]["sd"].isna().all().all()


@pytest.mark.parametrize("verb", ["generate", "reconstruct"])
def test_one_draw_in_the_place_of_an_expected_value_is_told_of(verb):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", Unknowing(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    data, words = torch.zeros(5), 'site "x": expected a distribution that knows its mean'
    if verb == "generate":
        with pytest.warns(UserWarning, match=words):
            generate(model, guide, data, num_samples=3, expected=True)
        generate(model, guide, data, num_samples=3)
    else:
        with pytest.warns(UserWarning, match=words):
            reconstruct(model, guide, data, num_samples=1)
        reconstruct(model, guide, data, num_samples=50)  # warnings are errors


# What depends on a draw, by every way that Python and torch offer


def computed(y):
    return 2 * y


def written(y):
    loc = torch.zeros(4, 2)
    loc[:, 0] = y
    return loc.sum(-1)


def looked_up(y):
    return torch.tensor([1.0, 5.0])[y.long()]


def compared(y):
    return torch.where(y > 0.5, 1.0, 5.0)


def through_a_layer(y):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))(y[:, None])[:, 0]


def decided_in_python(y):
    return torch.full((4,), 1.0 if y[0] > 0.5 else 5.0)


def read_as_numbers(y):
    return torch.tensor([float(v) for v in y])


def by_parity(y):
    return (y.sum() % 2).expand(4)


WAYS = [
    computed, written, looked_up, compared, through_a_layer, decided_in_python, read_as_numbers,
    by_parity,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("draw", [dist.Bernoulli(torch.full((4,), 0.5)), None])
def test_whatever_is_made_of_a_draw_is_not_exact(way, draw):
    """``None``: random numbers that no sample statement draws."""

    def run():
        with torch.no_grad(), pyro.plate("data", 4):
            pyro.sample("before", dist.Normal(torch.zeros(4), 1.0))
            y = torch.randint(2, (4,)).float() if draw is None else pyro.sample("y", draw)
            pyro.sample("z", dist.Normal(way(y), 1.0))

    exact = exact_sites(run)
    assert not exact["z"]
    assert exact["before"]


def test_what_is_made_of_no_draw_is_exact_also_after_one():
    def run():
        with pyro.plate("data", 4):
            # the samplers of these read their own draws in Python
            pyro.sample("angle", dist.VonMises(torch.zeros(4), 1.0))
            pyro.sample("kind", dist.OneHotCategorical(torch.ones(4, 3)))
            fixed = pyro.sample("fixed", dist.Delta(torch.ones(4)))
            pyro.sample("z", dist.Normal(fixed, 1.0))
            pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).mask(torch.ones(4) > 0))

    exact = exact_sites(run)
    assert exact["z"]
    assert exact["w"]
    assert exact["kind"]
    assert exact["fixed"]


DISTRIBUTIONS = [
    dist.Normal(torch.zeros(3), 1.0), dist.Gamma(torch.ones(3), 1.0), dist.Beta(torch.ones(3), 1.0),
    dist.Dirichlet(torch.ones(3)), dist.VonMises(torch.zeros(3), 1.0), dist.Poisson(torch.ones(3)),
    dist.Binomial(3, torch.full((3,), 0.3)), dist.Categorical(torch.ones(2, 3)),
    dist.OneHotCategorical(torch.ones(3)), dist.Bernoulli(torch.full((3,), 0.5)),
    dist.Uniform(torch.zeros(3), 1.0), dist.Laplace(torch.zeros(3), 1.0),
    dist.Gumbel(torch.zeros(3), 1.0), dist.Geometric(torch.full((3,), 0.3)),
    dist.NegativeBinomial(torch.ones(3), torch.full((3,), 0.3)),
    dist.StudentT(torch.full((3,), 4.0), 0.0, 1.0),
    dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), dist.Exponential(torch.ones(3)),
    dist.RelaxedBernoulli(torch.tensor(0.5), torch.full((3,), 0.3)), dist.Cauchy(0.0, 1.0),
    dist.Weibull(torch.ones(3), 1.0), dist.Stable(torch.tensor(1.5), torch.zeros(3)),
    dist.ContinuousBernoulli(torch.full((3,), 0.3)), dist.Multinomial(4, torch.ones(3)),
    dist.LogNormal(torch.zeros(3), 1.0), dist.Pareto(torch.ones(3), 1.0),
    dist.LKJCholesky(3, 1.0), dist.BetaBinomial(1.0, 1.0, torch.tensor(4.0)),
]  # fmt: skip


@pytest.mark.parametrize("fn", DISTRIBUTIONS, ids=lambda fn: type(fn).__name__)
def test_draws_of_every_distribution_are_random(fn):
    with pyro.validation_enabled(False), DependentTensors() as random:
        draw = fn.sample()
        random.decided = False
        assert random.holds(draw + 1)
        assert not random.holds(torch.ones(3) + 1)
