"""Shared by the tests of traced steps: a model with a number in it, fits, and their comparison."""

import warnings

import pandas as pd
import pyro
import torch

from parts.pairs import Model, normal
from ppl_vae import fit
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.linting.linter import lint_pair
from ppl_vae.training.eager_step import EagerStep
from ppl_vae.training.traced_step import TracedStep

SIZE = 16
"""Rows of the batch that a step is traced with."""


class Faulty(Model):
    """A model with a penalty on its code, whose number comes from ``noise``."""

    def noise(self, x, z):
        return 0.5

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = self.code(x)
            pyro.sample("x", normal(self.decoder(z), 0.5), obs=x)
            pyro.factor("penalty", -self.noise(x, z) * z.square().sum(-1))


def learn(pair, compiled, **settings):
    """The history and the weights of a fit, and its warnings about the step."""
    model, guide, data = pair
    settings = {"epochs": 5, "batch_size": 8, "progress": False, **settings}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(model, guide, data, compile=compiled, **settings)
    weights = [*model.state_dict().values(), *guide.state_dict().values()]
    warned = [str(w.message) for w in caught if "compile: " in str(w.message)]
    return history, weights, warned


def alike(left, right):
    """Two fits have the same history and weights, up to rounding."""
    columns = ["epoch", "step", "elbo", "objective", "validation_elbo"]
    frames = left[0].frame[columns], right[0].frame[columns]
    pd.testing.assert_frame_equal(*frames, check_exact=False, rtol=1e-5)
    for value, expected in zip(left[1], right[1], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


class Sides:
    """The eager loss and gradient of one pair, and its traced step."""

    def __init__(self, model, guide, data, elbo=None, weighted=False):
        self.pair, self.rows = Pair.of(model, guide, "data"), as_rows(data)
        report = lint_pair(self.pair, self.rows, elbo=elbo, kl_weight=1.0, seed=0)
        report.raise_if_failed()
        self.objective, self.weighted = report.objective, weighted
        self.parameters = list(self.pair.trainable().values())
        self.derivative = LossAndGradient(
            self.pair, self.objective, len(self.rows), self.parameters
        )
        eager = EagerStep(self.derivative, torch.optim.Adam(self.parameters), None)
        self.traced_step = TracedStep(eager, self.rows, torch.arange(SIZE), weighted=weighted)

    def shake(self):
        """Move the weights away from those that were traced with."""
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for p in self.parameters:
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))

    def compare(self, weight=1.0, seed=5):
        """Compare on other rows, weights and draws than those that were traced with."""
        index = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(1))[:SIZE]
        constants = [c.clone() for c in self.traced_step.graph.constants]
        torch.default_generator.manual_seed(seed)
        traced = self.traced_step.derivative(
            self.parameters, constants, index, weight, interpreted=True
        )
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        tensor = torch.tensor(weight) if self.weighted else None
        eager = self.derivative(self.rows.take(index), tensor)
        assert torch.equal(state, torch.get_rng_state()), "the steps draw differently often"
        for now, expected in zip(constants, self.traced_step.graph.constants, strict=True):
            torch.testing.assert_close(now, expected)
        assert_equal(traced, eager)
        return traced


def assert_equal(traced, eager):
    """Equal to rounding; a gradient also to a share of the norm of all gradients."""
    tolerance = 8 * torch.finfo(eager[0].dtype).eps
    assert traced[0].dtype == eager[0].dtype
    assert ((traced[0] - eager[0]).abs() <= tolerance * eager[0].abs()).all()
    total = torch.cat([g.flatten() for g in eager[1] if g is not None]).norm()
    assert total > 0
    for left, right in zip(traced[1], eager[1], strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            assert (left - right).norm() <= 2 * tolerance * (right.norm() + total / 100)
