"""Latents that the model sums out are drawn from their exact joint posterior, whatever they are."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import posterior_predictive, predictive_check, reconstruct
from ppl_vae.core.handlers import Particles
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.distributions import BernoulliVector, CategoricalVector
from ppl_vae.predictive.latent_draws import LatentDraws

SUM = {"enumerate": "parallel"}
DRAWS = 4000
EYE = torch.eye(3)
PRIORS = {
    "one-hot": (dist.OneHotCategorical(logits=torch.tensor([0.0, 1.0, 0.5])), list(EYE)),
    "categories": (
        CategoricalVector(torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.0, 1.0]])),
        [EYE[list(both)] for both in itertools.product(range(3), repeat=2)],
    ),
    "bits": (
        BernoulliVector(torch.tensor([0.3, -0.5, 0.0])),
        [torch.tensor(bits) for bits in itertools.product([0.0, 1.0], repeat=3)],
    ),
    "number": (dist.Categorical(logits=torch.tensor([0.0, 1.0])), list(torch.arange(2))),
}


class Summed:
    """A model that sums a latent y of any prior beside z, which the guide draws."""

    def __init__(self, prior):
        self.prior = prior
        self.weight = torch.randn(prior.event_shape.numel(), 2)

    def mean(self, y):
        flat = y.reshape(*y.shape[: y.ndim - self.prior.event_dim], -1).float()
        return flat @ self.weight

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 0.1).to_event(1))
            y = pyro.sample("y", self.prior, infer=SUM)
            pyro.sample("x", dist.Normal(self.mean(y) + z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 0.1).to_event(1))


def drawn(model, x, guide=None, particles=DRAWS):
    """Draws of all latents of the rows, ``{site: (draws, ..., rows, event)}``."""
    pair = Pair.of(model, guide, "data")
    rows = pair.rows(x)
    latents = LatentDraws(pair, rows)
    with forked(0), pair.evaluating():
        return latents.draw(
            rows.take(torch.arange(len(x))), {}, Particles(particles, -1 - latents.nesting)
        )


def chain(x, transition, means):
    chances = torch.zeros(len(means))
    with pyro.plate("data", len(x)):
        for t in pyro.markov(range(x.shape[1])):
            y = pyro.sample(f"y_{t}", dist.Categorical(logits=chances), infer=SUM)
            pyro.sample(f"x_{t}", dist.Normal(means[y], 1.0), obs=x[:, t])
            chances = transition[y]


@pytest.mark.parametrize("kind", PRIORS)
def test_draws_of_a_summed_latent_have_the_frequencies_of_its_posterior(kind):
    prior, values = PRIORS[kind]
    pair = Summed(prior)
    x = torch.randn(4, 2)
    y = drawn(pair.model, x, pair.guide)["y"]
    same = [(y == value).reshape(DRAWS, 4, -1).all(-1).float().mean(0) for value in values]
    spread = (1.0 + 0.1**2) ** 0.5  # z has its prior under the guide, and is averaged over
    logs = torch.stack(
        [
            prior.log_prob(value) + dist.Normal(pair.mean(value), spread).log_prob(x).sum(-1)
            for value in values
        ]
    )
    # given a draw of z the posterior of y differs a little from that without z
    assert (torch.stack(same) - logs.softmax(0)).abs().max() < 0.04


@pytest.mark.parametrize("kind", PRIORS)
def test_a_summed_latent_of_any_shape_can_be_replicated_and_reconstructed(kind):
    pair = Summed(PRIORS[kind][0])
    x = torch.randn(30, 2)
    for guide in (pair.guide, None):
        assert posterior_predictive(pair.model, guide, x, num_samples=3)["x"].shape == (3, 30, 2)
        assert reconstruct(pair.model, guide, x, num_samples=2).shape == x.shape
        assert len(predictive_check(pair.model, guide, x, num_samples=20).frame)


def test_draws_of_a_chain_have_the_frequencies_of_its_joint_posterior():
    transition, means = torch.randn(2, 2), torch.tensor([-0.5, 0.5])
    x = torch.randn(3, 3)
    y = drawn(lambda rows: chain(rows, transition, means), x)
    paths = torch.stack([y[f"y_{t}"] for t in range(3)], -1)  # (draws, rows, steps)
    logs = transition.log_softmax(-1)
    for path in itertools.product(range(2), repeat=3):
        found = (paths == torch.tensor(path)).all(-1).float().mean(0)
        joint = [
            sum(logs[a, b] for a, b in itertools.pairwise(other))
            + dist.Normal(means[list(other)], 1.0).log_prob(x).sum(-1)
            for other in itertools.product(range(2), repeat=3)
        ]
        exact = torch.stack(joint).softmax(0)[int("".join(map(str, path)), 2)]
        assert (found - exact).abs().max() < 0.04


def test_latents_in_a_plate_inside_the_rows_are_drawn_place_by_place():
    means = torch.tensor([[-2.0, 2.0], [2.0, -2.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5), infer=SUM).long()
            with pyro.plate("places", 3, dim=-2):
                y = pyro.sample("y", dist.Categorical(torch.tensor([0.3, 0.7])), infer=SUM)
                pyro.sample("x", dist.Normal(means[c, y], 1.0), obs=x.T)

    x = torch.randn(4, 3)
    latents = drawn(model, x)
    assert latents["c"].shape == (DRAWS, 1, 4)
    assert latents["y"].shape == (DRAWS, 3, 4)
    prior = torch.tensor([0.3, 0.7]).log()
    logs = dist.Normal(means, 1.0).log_prob(x[..., None, None]) + prior  # (rows, places, c, y)
    of_c = logs.logsumexp(-1).sum(1).softmax(-1)  # (rows, c)
    of_y = torch.einsum("nc,nmcy->nmy", of_c, logs.softmax(-1))
    assert (latents["c"].mean((0, 1)) - of_c[:, 1]).abs().max() < 0.04
    assert (latents["y"].float().mean(0).T - of_y[..., 1]).abs().max() < 0.04


def test_the_only_path_that_a_chain_allows_is_drawn_however_badly_it_fits():
    """In single precision exp(-200) is 0, and a sum that scales each factor loses the path."""
    transition = torch.tensor([[0.0, 0.0], [-torch.inf, 0.0]])  # state 1 is never left
    x = torch.tensor([[20.0, 20.0, 0.0], [0.0, 20.0, 0.0]])
    model = lambda rows: chain(rows, transition, torch.tensor([0.0, 20.0]))  # noqa: E731
    y = drawn(model, x, particles=50)
    assert torch.equal(y["y_0"], torch.tensor([[1, 0]]).expand(50, 2))
    assert reconstruct(model, None, x, num_samples=20)[0].tolist() == [20.0, 20.0, 20.0]


def test_reconstructions_are_averaged_over_the_posterior():
    """Draws of a summed latent are seen as random numbers, so that one draw is not enough."""
    means = torch.tensor([-1.0, 1.0])
    model = lambda rows: chain(rows, torch.zeros(2, 2), means)  # noqa: E731
    x = torch.tensor([[0.0], [0.4]])
    exact = (2 * x).sigmoid() * 2 - 1  # log odds of the means given x
    assert (reconstruct(model, None, x, num_samples=500) - exact).abs().max() < 0.15


def test_a_row_that_no_value_of_a_summed_latent_allows_has_no_draw():
    bounds = torch.tensor([1.0, 2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.5, 0.5])), infer=SUM)
            pyro.sample("x", dist.Uniform(0.0, bounds[y], validate_args=False), obs=x)

    with pytest.raises(ValueError, match=r'site "y": expected rows .* got 1 of 3 rows with none'):
        drawn(model, torch.tensor([0.5, 1.5, 3.0]), particles=2)
