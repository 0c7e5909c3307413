"""A traced step is not refused for the rounding of a gradient whose terms nearly cancel."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import nn

from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.loss import LossAndGradient
from ppl_vae.linting.linter import lint_pair
from ppl_vae.training import equivalence
from ppl_vae.training.eager_step import EagerStep
from ppl_vae.training.traced_step import TracedStep


class NearlyEqualClasses(PyroModule):
    """784 pixels given one of ten classes, whose log-likelihoods of about -500 hardly differ."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(10, 784)
        nn.init.normal_(self.decoder.weight, 0, 0.01)
        self.calls, self.drift = 0, 0.0

    def forward(self, x):
        self.calls += 1
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(10)))
            logits = self.decoder(y * (1 + self.drift * self.calls))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Classifier(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(784, 10)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.OneHotCategorical(logits=self.encoder(x)))


def difference(drift=0.0):
    torch.manual_seed(0)
    model, guide = NearlyEqualClasses(), config_enumerate(Classifier(), "sequential", expand=True)
    model.drift = drift
    x = (torch.rand(64, 784) < 0.5).to(torch.get_default_dtype())
    pair, rows = Pair.of(model, guide, "data"), as_rows(x)
    report = lint_pair(pair, rows, elbo=TraceEnum_ELBO(max_plate_nesting=1), kl_weight=1.0, seed=0)
    parameters = list(pair.trainable().values())
    derivative = LossAndGradient(pair, report.objective, len(rows), parameters)
    eager = EagerStep(derivative, torch.optim.Adam(parameters), None)
    before = [p.clone() for p in parameters]
    traced_step = TracedStep(eager, rows, torch.arange(32), weighted=False)
    words = equivalence.difference_from_eager(traced_step, [torch.arange(32), torch.arange(32, 64)])
    assert all(map(torch.equal, before, parameters))
    return words


def test_rounding_of_costs_that_nearly_cancel_is_no_difference(monkeypatch):
    assert difference() == ""
    with monkeypatch.context() as strict:
        strict.setattr(equivalence, "ROUNDINGS", 0)
        assert "guide.encoder.weight differ" in difference()


@pytest.mark.parametrize("drift", [pytest.param(1e-3, marks=pytest.mark.slow), 1e-2])
def test_a_number_that_changes_at_every_call_is_no_rounding(drift):
    assert "the gradients of" in difference(drift)
