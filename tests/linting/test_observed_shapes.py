"""An observed value without a dimension for the rows is a finding, and never an IndexError."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import assert_only_finding
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import fit, lint

X, Y = torch.randn(100, 3), torch.randn(100)


class Regression(PyroModule):
    """Predicts y from x, with an event of one dimension."""

    def __init__(self, outputs=1):
        super().__init__()
        self.net = nn.Linear(3, outputs)

    def forward(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(self.net(x), 1.0).to_event(1), obs=y)


def test_a_forgotten_column_is_named_with_both_shapes():
    verdict = lint(Regression(), None, (X, Y))
    pieces = ("value of shape (16, 1)", "event_shape (1,)", "got (16,)", "y[:, None]")
    assert_only_finding(verdict, "error", 'site "y"', *pieces)
    with pytest.raises(ValueError, match=r'site "y": expected an observed value of shape'):
        fit(Regression(), None, (X, Y), epochs=1, progress=False)


def test_with_the_column_the_pair_is_sound():
    assert not lint(Regression(), None, (X, Y[:, None])).errors


@pytest.mark.parametrize("rows", [1, 16, 100])
def test_a_constant_that_all_rows_share_is_no_fault(rows):
    def model(x):
        with pyro.plate("data", len(x)):
            x0 = pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)
            pyro.sample("c", dist.Normal(x0, 1.0).to_event(1), obs=torch.zeros(3))
            pyro.sample("d", dist.Normal(x0.sum(-1), 1.0), obs=torch.tensor(0.0))

    assert not lint(model, None, X[:rows]).errors


def test_a_value_as_long_as_an_event_does_not_stop_the_linter():
    lint(Regression(16), None, (X, Y))
