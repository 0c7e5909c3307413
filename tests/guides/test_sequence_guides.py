"""Guides of sequences against exact posteriors: a linear-Gaussian path, and a mean of steps."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule

from ppl_vae import build, elbo_terms, encode, fit, log_likelihood
from ppl_vae.distributions import MarkovPath
from ppl_vae.guides.recurrent import RecurrentGuide
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.state_space import StateSpaceModel
from ppl_vae.nn import seen_cells

pytestmark = pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")  # of a few rows


def planted(rows, steps):
    """A model whose states turn round and decay, and sequences drawn from it."""
    model = StateSpaceModel(3, 2)
    with torch.no_grad():
        model.transition.copy_(torch.tensor([[0.9, 0.3], [-0.3, 0.8]]))
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]))
        model.log_sd.fill_(math.log(0.5))
    with torch.random.fork_rng(), pyro.get_param_store().scope():
        torch.manual_seed(0)
        lengths = torch.randint(1, steps + 1, (rows,))
        run = poutine.uncondition(model)
        x = poutine.trace(run).get_trace(torch.zeros(rows, steps, 3), lengths).nodes["x"]["value"]
    return model, {"x": x.detach(), "lengths": lengths}


def settings(epochs, rate=0.01):
    return {
        "epochs": epochs,
        "progress": False,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=rate),
        "scheduler": lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs),
    }


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")  # of single rows; the mean is tested
def test_importance_sampling_through_the_smoothing_guide_gives_the_exact_likelihood():
    torch.manual_seed(0)
    model, data = planted(rows=200, steps=4)
    model.requires_grad_(False)
    guide = build(SmoothingGuide, data, latents=2, hidden=32)
    fit(model, guide, data, batch_size=100, compile=False, **settings(100, rate=0.03))
    exact, steps = model.log_prob(**data).numpy(), int(data["lengths"].sum())
    gap = exact.sum() - elbo_terms(model, guide, data, num_samples=20).to_numpy().sum()
    assert 0 < gap < 0.15 * steps
    sampled = log_likelihood(model, guide, data, num_samples=500)["log_prob"]
    error = sampled - exact
    assert abs(error.mean()) < 4 * error.std() / len(error) ** 0.5 + 0.01
    assert abs(error).mean() < 0.1


@pytest.mark.slow  # two minutes: model and guide are learned together, over 20 steps
def test_a_state_space_model_is_recovered_and_its_elbo_is_near_the_exact_likelihood():
    true, data = planted(rows=300, steps=20)
    torch.manual_seed(1)
    model, guide = (build(cls, data, latents=2) for cls in (StateSpaceModel, SmoothingGuide))
    fit(model, guide, data, batch_size=100, **settings(1200))
    steps = int(data["lengths"].sum())
    exact = model.log_prob(**data).detach()
    gap = float(exact.sum()) - elbo_terms(model, guide, data, num_samples=20).to_numpy().sum()
    assert 0 < gap < 0.05 * steps
    assert float(exact.sum()) > float(true.log_prob(**data).detach().sum()) - 0.05 * steps
    sampled = log_likelihood(model, guide, data, num_samples=500)
    reliable = (sampled["k_hat"] < sampled.attrs["k_hat_threshold"]).to_numpy()
    error = (sampled["log_prob"] - exact.numpy())[reliable]
    assert reliable.mean() > 0.8
    assert abs(error.mean()) < 0.03
    found, right = (
        torch.view_as_real(torch.linalg.eigvals(m.transition.detach())).abs() for m in (model, true)
    )
    torch.testing.assert_close(found, right, rtol=0, atol=0.05)  # the latents may be turned
    noise = (model.scale * model.log_sd.exp()).detach()
    torch.testing.assert_close(noise, true.log_sd.exp().detach(), rtol=0, atol=0.1)


class Mean(PyroModule):
    """One level for each sequence, seen at every step with noise."""

    def forward(self, x, lengths=None, seen=None):
        x, mask = seen_cells(x, lengths, seen)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            each = dist.Normal(z[..., None, :].expand(*z.shape[:-1], *x.shape[1:]), 2.0)
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)


def test_a_recurrent_guide_finds_the_posterior_of_a_level_at_every_length():
    torch.manual_seed(0)
    lengths = 1 + torch.arange(400) % 6
    data = {"x": torch.randn(400, 1, 1) + 2 * torch.randn(400, 6, 1), "lengths": lengths}
    guide = build(RecurrentGuide, data, latents=1, hidden=16)
    fit(Mean(), guide, data, batch_size=100, compile=False, **settings(150, rate=0.02))
    clean, _ = seen_cells(**data)
    precision = 1 + lengths / 4
    codes = encode(Mean(), guide, data)["z"]
    expected = clean.sum((1, 2)) / 4 / precision
    assert abs(torch.tensor(codes["mean"][0].to_numpy()) - expected).mean() < 0.1
    assert abs(torch.tensor(codes["sd"][0].to_numpy()) - precision**-0.5).mean() < 0.05


class Bent(PyroModule):
    """Shows z_2 + z_1 + z_1^2 / 2 of each step, up to noise: the states lie along parabolas."""

    def forward(self, x, lengths=None, seen=None):
        x, mask = seen_cells(x, lengths, seen)
        first = dist.Normal(x.new_zeros(2), 1.0).to_event(1)
        with pyro.plate("data", len(x)):
            path = MarkovPath(
                first, lambda z: dist.Normal(z / 2, 1.0).to_event(1), x.shape[1], lengths
            )
            z = pyro.sample("z", path)
            mean = z[..., 1:] + z[..., :1] + z[..., :1] ** 2 / 2
            pyro.sample("x", dist.Normal(mean, 0.3).mask(mask).to_event(2), obs=x)


def test_flows_come_nearer_to_the_bent_posterior_of_a_path():
    lengths = 1 + torch.arange(60) % 3
    with torch.random.fork_rng(), pyro.get_param_store().scope():
        torch.manual_seed(0)
        drawn = poutine.trace(poutine.uncondition(Bent())).get_trace(torch.zeros(60, 3, 1), lengths)
    data = {"x": drawn.nodes["x"]["value"].detach(), "lengths": lengths}
    elbos = []
    for flows in (0, 2):
        torch.manual_seed(0)
        guide = build(SmoothingGuide, data, latents=2, hidden=16, flows=flows)
        fit(Bent(), guide, data, batch_size=60, compile=False, **settings(250, rate=0.02))
        elbos.append(elbo_terms(Bent(), guide, data, num_samples=50).to_numpy().sum(1).mean())
    codes = encode(Bent(), guide, data)["z"]
    assert np.array_equal(np.isfinite(codes.to_numpy()).sum(1), 4 * lengths)  # NaN after the end
    exact = log_likelihood(Bent(), guide, data, num_samples=2000)["log_prob"].mean()
    assert exact - elbos[1] < 0.6 * (exact - elbos[0]), (exact, elbos)
