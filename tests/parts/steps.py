"""Shared by the tests of traced steps: a model with a number in it, fits, and their comparison."""

import warnings

import pandas as pd
import pyro
import torch

from parts.pairs import Model, normal
from ppl_vae import fit


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
