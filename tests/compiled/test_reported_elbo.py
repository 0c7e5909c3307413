"""The step is traced where the reported ELBO is not the training loss and is computed beside it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.cevae import CEVAE, TraceCausalEffect_ELBO
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule

from ppl_vae import fit
from ppl_vae.training import stepper


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Fits are traced at once, however short."""
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)


class Clusters(PyroModule):
    """Three clusters, every log-probability scaled by the user."""

    def __init__(self):
        super().__init__()
        self.centers = torch.nn.Parameter(torch.randn(3, 2))

    def forward(self, x):
        with pyro.plate("data", len(x)), poutine.scale(scale=0.01):
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(3)))
            pyro.sample("x", dist.Normal(y @ self.centers, 1.0).to_event(1), obs=x)


class Classifier(PyroModule):
    def __init__(self, how):
        super().__init__()
        self.how, self.encoder = how, torch.nn.Linear(2, 3)

    def forward(self, x):
        with pyro.plate("data", len(x)), poutine.scale(scale=0.01):
            infer = {"enumerate": self.how, "expand": True}
            pyro.sample("y", dist.OneHotCategorical(logits=self.encoder(x)), infer=infer)


def traced(make, data, elbo):
    """Return the histories of the traced and of the eager fit."""
    histories = []
    for compiled in ("auto", False):
        torch.manual_seed(0)
        model, guide = make()
        with pytest.warns(UserWarning, match="enters the training loss and not the ELBO"):
            histories.append(
                fit(
                    model,
                    guide,
                    data,
                    elbo=elbo,
                    epochs=12,
                    batch_size=32,
                    compile=compiled,
                    progress=False,
                )
            )
    return histories


@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_a_scaled_pair_with_a_summed_latent_is_traced(how):
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    fast, slow = traced(lambda: (Clusters(), Classifier(how)), x, elbo)
    assert (fast.step, slow.step) == ("traced", "eager")
    torch.testing.assert_close(
        torch.tensor(fast.frame.elbo), torch.tensor(slow.frame.elbo), rtol=1e-4, atol=1e-4
    )


def test_an_elbo_class_of_pyro_contrib_is_traced():
    def make():
        pair = CEVAE(2, outcome_dist="bernoulli", latent_dim=2, hidden_dim=4, num_layers=2)
        return pair.model, pair.guide

    torch.manual_seed(1)
    x, t = torch.randn(32, 2), torch.rand(32).round()
    data = {"x": x, "t": t, "y": torch.rand(32).round()}
    fast, slow = traced(make, data, TraceCausalEffect_ELBO())
    assert (fast.step, slow.step) == ("traced", "eager")
    torch.testing.assert_close(
        torch.tensor(fast.frame.elbo), torch.tensor(slow.frame.elbo), rtol=1e-4, atol=1e-4
    )
