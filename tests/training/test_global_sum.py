"""A latent outside the row plate that is summed exactly: fitted with all rows in one batch."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import fit, lint

GENERATOR = torch.Generator().manual_seed(0)
X = torch.cat(
    [torch.randn(150, generator=GENERATOR) + 10.0, torch.randn(50, generator=GENERATOR) + 9.0]
)


class Model(PyroModule):
    """One of two centers for all rows."""

    def __init__(self):
        super().__init__()
        self.sd = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        centers = torch.tensor([1.0, 10.0])
        a = pyro.sample("a", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
        with pyro.plate("data", len(x)):
            pyro.sample("b", dist.Normal(centers[a], self.sd.abs()), obs=x)


def test_all_rows_in_one_batch_are_fitted_as_in_pyro():
    model = Model()
    right = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda x: None, X) / len(X)
    assert not lint(model, None, X).findings
    history = fit(
        model, None, X, batch_size=len(X), epochs=200, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.05),
    )  # fmt: skip
    assert history.frame["elbo"].iloc[0] == pytest.approx(-right, rel=0.05)
    best = ((X - 10.0).square().mean()).sqrt()
    assert model.sd.abs().item() == pytest.approx(best.item(), rel=0.02)
    bound = -0.5 * math.log(2 * math.pi * math.e * best**2) - math.log(2) / len(X)
    assert history.frame["elbo"].iloc[-1] == pytest.approx(bound, abs=0.01)


def test_a_smaller_batch_is_refused_with_the_mend():
    with pytest.raises(ValueError, match=r'site "a": expected all 200 rows .* batch_size=200'):
        fit(Model(), None, X, batch_size=50, epochs=1, progress=False)
