"""``lint`` leaves random generators, modules, Pyro and torch as they were."""

import random
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import lint
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

ROWS, FEATURES, LATENTS = 40, 3, 2
X = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))


def normal(loc, scale=1.0):
    return dist.Normal(loc, scale).to_event(1)


class Counter(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x


def generators():
    numpy_state = np.random.get_state()  # noqa: NPY002  the legacy generator is Pyro's
    return torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist()


def test_lint_restores_the_random_generators():
    pair = GaussianModel(FEATURES), NormalGuide(FEATURES), X
    before = generators()
    lint(*pair)
    lint(*pair, seed=None)
    assert generators() == before


@pytest.mark.parametrize("registered", [True, False], ids=["module", "function"])
def test_lint_leaves_modules_as_they_were(registered):
    layers = nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2 * LATENTS)
    encoder = nn.Sequential(*layers, Counter())
    encoder[0].requires_grad_(False)
    encoder[2].eval()
    guide = NormalGuide(FEATURES, LATENTS, encoder)

    def function(x):
        pyro.module("encoder", encoder)
        loc, log_scale = encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc, log_scale.exp()))

    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    frozen = {name for name, value in encoder.named_parameters() if not value.requires_grad}
    modes = [module.training for module in encoder.modules()]
    verdict = lint(GaussianModel(FEATURES, LATENTS), guide if registered else function, X)
    assert [finding.severity for finding in verdict.findings] == ["warning"]
    after = encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {n for n, p in encoder.named_parameters() if not p.requires_grad} == frozen
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert [module.training for module in encoder.modules()] == modes


def test_lint_restores_everything_after_a_pair_that_fails():
    model, guide, data = GaussianModel(FEATURES), NormalGuide(FEATURES + 1), X
    validated = torch.distributions.Distribution._validate_args
    before = generators()
    lint(model, guide, data).errors[0]
    assert model.training
    assert guide.training
    assert generators() == before
    assert torch.distributions.Distribution._validate_args is validated
    assert torch.is_grad_enabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("a warning after lint", stacklevel=1)
    assert len(caught) == 1


def test_lint_gives_the_same_verdict_twice():
    pair = GaussianModel(FEATURES), NormalGuide(FEATURES), X
    assert str(lint(*pair)) == str(lint(*pair))
