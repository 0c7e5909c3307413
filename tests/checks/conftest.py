"""Pairs that are fitted once and used by many tests."""

import warnings

import pytest
import torch

import ppl_vae
from ppl_vae.guides.linear import LinearGuide
from ppl_vae.models.ppca import PPCAModel


@pytest.fixture(scope="session")
def fitted():
    """``fitted(pair, rows)`` trains the pair in place and returns the pair."""

    def fit(pair, rows):
        with warnings.catch_warnings():  # lint warns of the faults that the tests plant
            warnings.simplefilter("ignore")
            ppl_vae.fit(
                *pair, rows, epochs=150, batch_size=100, progress=False,
                optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
                scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97),
            )  # fmt: skip
        return pair

    return fit


@pytest.fixture(scope="session")
def linear_data():
    """``linear_data(seed)``: rows of 6 features, made of 2 common factors and independent noise."""
    weight = torch.randn(2, 6, generator=torch.Generator().manual_seed(5))

    def draw(seed, rows=1000, noise=None):
        maker = torch.Generator().manual_seed(seed)
        z = torch.randn(rows, 2, generator=maker)
        own = torch.randn(rows, 6, generator=maker) if noise is None else noise(rows, maker)
        return z @ weight + 0.7 * own

    return draw


@pytest.fixture(scope="session")
def linear_pair(fitted, linear_data):
    """PPCA fitted to ``linear_data``, which PPCA describes perfectly."""
    torch.manual_seed(0)
    return fitted((PPCAModel(6, 2), LinearGuide(6, 2)), linear_data(0))
