"""Shares that sum to 1 in the prior or in the guide alone: their densities cannot be compared."""

import pyro
import pyro.distributions as dist
import pytest
from parts.linter import LATENTS, X, guide, model, observe

from ppl_vae import lint


@pytest.mark.parametrize("shares_in", ["guide", "model"])
def test_shares_that_sum_to_one_in_one_half_only(shares_in):
    """A density of one number, as the second share is 1 minus the first, by a density of two."""

    def with_shares(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(x[:, :LATENTS].exp()))
            if shares_in == "model":
                observe(x, z)

    halves = (model, with_shares) if shares_in == "guide" else (with_shares, guide)
    found = lint(*halves, X).findings
    assert found[0].severity == "error"
    assert "support of the model's prior" in found[0].problem
    assert "sum to 1" in found[0].problem
