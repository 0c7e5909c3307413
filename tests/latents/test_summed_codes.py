"""Codes of latents that are summed out: vectors by their variables, plates in their places."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import encode
from ppl_vae.distributions import BernoulliVector, CategoricalVector

SUM = {"enumerate": "parallel"}
EYE = torch.eye(3)
BITS = [torch.tensor(bits) for bits in itertools.product([0.0, 1.0], repeat=3)]
PLACES = [EYE[list(both)] for both in itertools.product(range(3), repeat=2)]
VECTORS = {
    "bits": (BernoulliVector(torch.tensor([0.3, -0.5, 0.0])), BITS),
    "categories": (CategoricalVector(torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.0, 1.0]])), PLACES),
}


class VectorModel:
    """p(y, x), where a linear map of y is the mean of x."""

    def __init__(self, prior):
        self.prior = prior
        self.weight = torch.randn(prior.event_shape.numel(), 2)

    def log_joint(self, y, x):
        flat = y.reshape(*y.shape[: y.ndim - self.prior.event_dim], -1)
        return self.prior.log_prob(y) + dist.Normal(flat @ self.weight, 1.0).log_prob(x).sum(-1)

    def __call__(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", self.prior, infer=SUM)
            flat = y.reshape(*y.shape[: y.ndim - self.prior.event_dim], -1)
            pyro.sample("x", dist.Normal(flat @ self.weight, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("kind", VECTORS)
def test_a_vector_that_the_model_sums_has_moments_of_each_number(kind):
    prior, values = VECTORS[kind]
    model, x = VectorModel(prior), torch.randn(5, 2)
    shares = torch.stack([model.log_joint(y, x) for y in values]).softmax(0)  # (values, rows)
    mean = (shares.T @ torch.stack(values).flatten(1)).double()
    codes = encode(model, None, x)["y"]
    assert torch.allclose(torch.tensor(codes["mean"].to_numpy()).double(), mean, atol=1e-5)
    spread = (mean * (1 - mean)).sqrt()
    assert torch.allclose(torch.tensor(codes["sd"].to_numpy()).double(), spread, atol=1e-3)


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("by_guide", [False, True])
def test_the_mode_of_a_vector_has_the_category_of_each_variable(kind, by_guide):
    prior, values = VECTORS[kind]
    model, x = VectorModel(prior), torch.randn(5, 2)
    logits = torch.randn(5, *prior.event_shape)

    def guide(rows):
        with pyro.plate("data", len(rows)):
            pyro.sample("y", type(prior)(logits[: len(rows)]), infer=SUM)

    if by_guide:
        best = (logits > 0).long() if kind == "bits" else logits.argmax(-1)
    else:
        at = torch.stack([model.log_joint(y, x) for y in values]).argmax(0)
        best = torch.stack(values)[at]
        best = best.long() if kind == "bits" else best.argmax(-1)
    modes = encode(model, guide if by_guide else None, x, joint=True)["y"]["mode"]
    assert modes.to_numpy().tolist() == best.tolist()


def test_modes_in_a_plate_of_the_guide_reach_the_model_in_their_places():
    """As many places as rows, so that rows in the places' stead would raise no error."""
    x = torch.randn(3, 3)

    def model(rows):
        with pyro.plate("data", len(rows)), pyro.plate("places", 3, dim=-2):
            a = pyro.sample("a", dist.Bernoulli(0.5), infer=SUM)
            b = pyro.sample("b", dist.Categorical(torch.tensor([0.5, 0.5])), infer=SUM)
            mean = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])[a.long(), b]
            pyro.sample("x", dist.Normal(mean, 1.0), obs=rows.T)

    logits = torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0], [1.0, 1.0, -1.0]])

    def guide(rows):
        with pyro.plate("data", len(rows)), pyro.plate("places", 3, dim=-2):
            pyro.sample("a", dist.Bernoulli(logits=logits[:, : len(rows)]), infer=SUM)

    modes = encode(model, guide, x, joint=True)
    a = logits.T > 0  # it turns round which b is the positive one
    assert modes["a"]["mode"].to_numpy().tolist() == a.long().tolist()
    assert modes["b"]["mode"].to_numpy().tolist() == ((x > 0) ^ a).long().tolist()
