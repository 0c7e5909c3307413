"""Near an optimum gradients cancel: rounding is no difference, a changed weight still is one."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import PAIRS, made
from parts.steps import Sides
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule
from torch import nn

from ppl_vae import fit
from ppl_vae.training import equivalence
from ppl_vae.training.traced_step import TracedStep

SIZE, FEATURES, CLASSES = 16, 12, 4


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))


class Clusters(PyroModule):
    """Bits given one of four classes."""

    def __init__(self):
        super().__init__()
        self.decoder = network(CLASSES, FEATURES)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(CLASSES)))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(y)).to_event(1), obs=x)


class Classifier(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = network(FEATURES, CLASSES)

    def forward(self, x):
        logits = self.encoder(x)
        with pyro.plate("data", len(x)):
            infer = {"enumerate": "parallel"}
            pyro.sample("y", dist.OneHotCategorical(logits=logits), infer=infer)


@pytest.fixture(scope="module")
def saturated():
    """A class that the bits leave no doubt of: its probabilities round to 0 and 1."""
    return fitted(0.1)


@pytest.fixture(scope="module")
def converged():
    """A class that the bits leave in doubt; the encoder's gradients cancel to a thousandth."""
    return fitted(0.25)


def fitted(noise):
    torch.manual_seed(0)
    centers = torch.rand(CLASSES, FEATURES).round()
    flipped = (torch.rand(64, FEATURES) < noise).float()
    x = (centers[torch.randint(CLASSES, (64,))] - flipped).abs()
    model, guide, elbo = Clusters(), Classifier(), TraceEnum_ELBO(max_plate_nesting=1)
    adam = {"optimizer": lambda p: torch.optim.Adam(p, 0.01)}
    fit(model, guide, x, elbo=elbo, epochs=800, batch_size=32, progress=False, **adam)
    sides = Sides(model, guide, x, elbo=elbo)
    sides.traced_step.compile(torch.arange(SIZE))
    return sides


@pytest.fixture(scope="module")
def begun():
    sides = Sides(*made(PAIRS["gaussian"]))
    sides.traced_step.compile(torch.arange(SIZE))
    return sides


def differences(sides, seeds=range(8)):
    """What is said of several batches, each with draws of its own."""
    count = len(sides.rows)
    found = (
        equivalence.difference_on_batch(
            sides.traced_step, (torch.arange(SIZE) + 5 * seed) % count, seed=seed
        )
        for seed in seeds
    )
    return [words for words in found if words]


@pytest.mark.parametrize("stage", ["begun", "converged", "saturated"])
def test_rounding_is_no_difference(stage, request):
    assert differences(request.getfixturevalue(stage)) == []


def test_without_measured_rounding_it_would_be_one(converged, monkeypatch):
    monkeypatch.setattr(equivalence, "ROUNDINGS", 0)
    assert differences(converged)


@pytest.mark.parametrize("interpreted", [True, False], ids=["traced", "compiled"])
@pytest.mark.parametrize("stage", ["begun", "converged"])
def test_a_parameter_that_is_off_by_a_thousandth_is_a_difference(
    stage, interpreted, request, monkeypatch
):
    sides = request.getfixturevalue(stage)
    derivative = TracedStep.derivative

    for place in range(len(sides.parameters)):

        def planted(step, parameters, *others, place=place, **options):
            if options["interpreted"] == interpreted:
                parameters = [p.detach().clone() for p in parameters]
                parameters[place].mul_(1.001)
            return derivative(step, parameters, *others, **options)

        monkeypatch.setattr(TracedStep, "derivative", planted)
        name = list(sides.pair.trainable())[place]
        assert differences(sides), name


@pytest.mark.parametrize("interpreted", [True, False], ids=["traced", "compiled"])
def test_a_gradient_that_is_off_by_a_thousandth_is_a_difference(begun, interpreted, monkeypatch):
    derivative = TracedStep.derivative

    for place in range(len(begun.parameters)):

        def planted(step, *others, place=place, **options):
            losses, gradients = derivative(step, *others, **options)
            if options["interpreted"] == interpreted:
                gradients = [g * 1.001 if i == place else g for i, g in enumerate(gradients)]
            return losses, gradients

        monkeypatch.setattr(TracedStep, "derivative", planted)
        name = list(begun.pair.trainable())[place]
        assert len(differences(begun, range(3))) == 3, name
