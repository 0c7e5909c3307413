"""One planted fault a test: in parameters, of one half or of both."""

import pyro
import pytest
import torch
from parts.linter import (
    FEATURES,
    LATENTS,
    Model,
    X,
    assert_finding,
    assert_only_finding,
    code,
    model,
    normal,
    observe,
)
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn

from ppl_vae import IWAE, fit, lint
from ppl_vae.nn import MLP


def test_gradient_that_is_not_finite():
    class Root(PyroModule):
        def __init__(self):
            super().__init__()
            self.spread = nn.Parameter(torch.zeros(FEATURES))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", normal(self.spread.square().sqrt()), obs=x)

    assert_only_finding(
        lint(Root(), None, X), "error", 'parameter "model.spread"', "a finite gradient", "root"
    )


class Encoder(PyroModule):
    """A guide with an unused layer, or with a detached output."""

    def __init__(self, spare=False, detach=False):
        super().__init__()
        self.net, self.detach = MLP(FEATURES, LATENTS, hidden=()), detach
        self.spare = nn.Linear(2, 2) if spare else None

    def forward(self, x):
        loc = self.net(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(loc.detach() if self.detach else loc))


@pytest.mark.parametrize(("fault", "layer"), [("spare", "spare"), ("detach", "net.0")])
def test_parameters_without_gradient(fault, layer):
    verdict = lint(Model(), Encoder(**{fault: True}), X)
    assert len(verdict.findings) == 2
    for name in ("weight", "bias"):
        assert_finding(
            verdict, "warning", f'parameter "guide.{layer}.{name}"', "got none", "detach()"
        )
    frozen = Encoder(**{fault: True}).requires_grad_(False)
    assert not lint(Model(), frozen, X).findings


QUIET_ENUM = TraceEnum_ELBO(strict_enumeration_warning=False)


@pytest.mark.parametrize("how", [None, Trace_ELBO(), QUIET_ENUM, IWAE(2)])
def test_no_parameter_reaches_the_loss(how):
    other = Encoder(detach=True)
    pieces = ("none of 2", '"guide.net.0.weight"', "nothing to train", "detach()")
    assert_only_finding(lint(model, other, X, elbo=how), "error", "model and guide", *pieces)
    with pytest.raises(ValueError, match="depends on none of 2"):
        fit(model, other, X, elbo=how, epochs=1, progress=False)


def test_parameter_name_in_both_halves():
    def scaled_model(x):
        scale = pyro.param("scale", torch.ones(LATENTS))
        with pyro.plate("data", len(x)):
            observe(x, code(x) * scale)

    def scaled_guide(x):
        scale = pyro.param("scale", torch.ones(LATENTS))
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x[:, :LATENTS] * scale))

    verdict = lint(scaled_model, scaled_guide, X)
    assert_only_finding(
        verdict, "error", 'parameter "scale"', "model and guide both use", "rename one"
    )


class Unnamed(PyroModule):
    """Multiplies its input by an ordinary or a constrained parameter."""

    def __init__(self, constrained):
        super().__init__()
        start = torch.ones(LATENTS)
        self.gain = PyroParam(start) if constrained else nn.Parameter(start)

    def forward(self, x):
        return x * self.gain


@pytest.mark.parametrize("constrained", [False, True])
def test_unnamed_twins_in_one_function(constrained):
    first, second = Unnamed(constrained), Unnamed(constrained)

    def other(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(first(x[:, :LATENTS]) + second(x[:, 1:])))

    assert_only_finding(
        lint(model, other, X), "error", 'parameter "gain"', "in the guide, got two", "PyroModule"
    )


def test_two_layers_registered_under_one_name():
    first, second = nn.Linear(FEATURES, LATENTS), nn.Linear(FEATURES, LATENTS)

    def other(x):
        pyro.module("net", first)
        pyro.module("net", second)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(first(x) + second(x)))

    assert_finding(
        lint(model, other, X), "error", 'parameter "net.weight"', "in the guide, got two"
    )
