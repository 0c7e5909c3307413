"""Gradients whose squares overflow: clipped where clipping was asked for, named where not."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

from ppl_vae import fit
from ppl_vae.compat import of_torch
from ppl_vae.training import stepper
from ppl_vae.training.clipping import clip_factor
from ppl_vae.training.diagnosis import NotFiniteError

QUICK = {"epochs": 3, "batch_size": 100, "progress": False}
STEPS = ["eager", "traced", "compiled"]


class Level(PyroModule):
    """The gradient of the level is the sum of the rows' distances from it."""

    def __init__(self):
        super().__init__()
        self.small, self.level = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            loc = self.level.sum() + 1e-3 * self.small.sum()
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def rows(size):
    return size * (1 + torch.rand(200, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(params=STEPS)
def compiled(request, monkeypatch):
    """The argument ``compile`` of each kind of step; what is compiled runs without inductor."""
    monkeypatch.setattr(of_torch, "compile_with_inductor", lambda module, *others: module)
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    kinds = {"eager": False, "traced": "auto", "compiled": True}
    return request.param, kinds[request.param]


@pytest.mark.parametrize("size", [1.0, 3e17])
def test_a_large_gradient_is_clipped_whatever_the_step(size, compiled):
    """Steps of SGD have length lr * clip_norm, downhill."""
    name, requested = compiled
    model = Level()
    sgd = {"optimizer": lambda p: torch.optim.Adam(p, 0.1)}
    history = fit(model, None, rows(size), clip_norm=2.0, compile=requested, **QUICK, **sgd)
    assert history.step == name
    assert model.level.tolist() == pytest.approx([0.6, 0.6], rel=1e-3)


def test_a_clipped_gradient_has_the_norm_that_was_asked_for():
    model = Level()
    sgd = {"optimizer": lambda p: torch.optim.SGD(p, 1.0)}
    fit(model, None, rows(3e17), clip_norm=0.5, **{**QUICK, "epochs": 1, "batch_size": 200}, **sgd)
    moved = torch.cat([model.level, model.small]).norm()
    assert moved.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.filterwarnings("ignore:compile. the traced step is not the eager one. the gradient is")
@pytest.mark.parametrize("requested", [False, "auto"])
def test_without_clipping_the_parameter_is_named(requested, monkeypatch):
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    model = Level()
    with pytest.raises(NotFiniteError) as caught:
        fit(model, None, rows(3e17), compile=requested, **QUICK)
    text = str(caught.value)
    assert "the gradient is too large at epoch 1, batch 0 (step 0)" in text
    assert 'parameter "model.level" has the largest gradient, 9' in text
    assert "clip_norm=" in text
    assert model.level.tolist() == [0, 0]


def test_many_gradients_whose_sum_of_squares_overflows_need_no_clipping(compiled):
    """Each square is finite, and so is all that Adam holds."""

    class Wide(Level):
        def __init__(self):
            super().__init__()
            self.level = torch.nn.Parameter(torch.zeros(100))

    name, requested = compiled
    model = Wide()
    history = fit(model, None, rows(4e16), compile=requested, **QUICK)
    assert history.step == name
    assert model.level.tolist() == pytest.approx([0.006] * 100, rel=1e-3)


def test_clipping_of_huge_gradients_is_clipping_in_double_precision():
    generator = np.random.default_rng(0)
    for size in (1e-30, 1e-3, 1.0, 1e18, 3e19, 1e30, 3e37):
        for limit in (1e-3, 1.0, 50.0):
            gradients = [torch.as_tensor(generator.normal(size=n) * size).float() for n in (3, 7)]
            norm = torch.cat(gradients).double().norm().item()
            expected = min(1.0, limit / (norm + 1e-6))
            assert clip_factor(gradients, limit).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("limit", [1.0, math.inf])
def test_a_gradient_that_is_not_finite_has_no_factor(bad, limit):
    gradients = [torch.ones(3), torch.tensor([1e30, bad]), torch.zeros(0)]
    assert clip_factor(gradients, limit).isnan()


@pytest.mark.usefixtures("double")
def test_double_precision_has_limits_of_its_own():
    assert clip_factor([torch.tensor([3e200, 4e200])], 5.0).item() == pytest.approx(1e-200)
    assert clip_factor([torch.tensor([1e150])], math.inf).item() == 1.0
    assert clip_factor([torch.zeros(2)], 1.0).item() == 1.0
