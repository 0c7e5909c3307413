"""A fit that blows up, or whose compiler fails, ends or goes on as the eager fit does."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.fits import STEPS, alike, learn
from parts.pairs import PAIRS, Guide, Model, made, reals
from torch.optim import SGD, Adam

from ppl_vae import fit
from ppl_vae.compiled.graphs import CompiledGraph
from ppl_vae.training import traced_step as step_module
from ppl_vae.training.diagnosis import NotFiniteError


class Exploding(Model):
    """``grown`` grows by a constant at every step; at 1.2 the likelihood stops being one."""

    def __init__(self, how):
        super().__init__()
        self.how, self.grown = how, torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        grown = self.grown.detach()
        with pyro.plate("data", len(x)):
            out = self.decoder(self.code(x))
            pyro.factor("f", self.grown.expand(len(x)))
            if self.how == "loss":
                fn = dist.Normal(out + (1e4 * (grown - 1.2)).exp(), 1.0)
            elif self.how == "weights":
                fn = dist.Normal(out + (300 * (grown - 1.1)).exp(), 1.0)
            elif self.how == "gradient":
                left = (1.2 - grown).clamp(min=0)  # the root's slope at 0 is infinite
                fn = dist.Normal(out, 1 + 1e-3 * (left * self.grown / grown).sqrt())
            elif self.how == "scale":
                fn = dist.Normal(out, 1.2 - grown)
            else:  # lgamma has finite values below zero
                fn = dist.Gamma(1.21 - grown, out.exp())
            pyro.sample("x", fn.expand(x.shape).to_event(1), obs=x)


def blown_up(how, step, monkeypatch, optimizer=lambda p: SGD(p, 1e-3)):
    pair = made(lambda: (Exploding(how), Guide(), reals().exp()))
    settings = {"optimizer": optimizer, "epochs": 30, "batch_size": 20}
    with pytest.raises(ValueError, match=r"fit: |constraint") as raised:
        learn(pair, step, monkeypatch, **settings)
    left = [t.clone() for half in pair[:2] for t in half.state_dict().values()]
    assert all(value.isfinite().all() for value in left)
    return raised.type, str(raised.value), left


@pytest.mark.parametrize("how", ["loss", "weights", "gradient", "scale", "shape"])
def test_a_traced_fit_that_blows_up_ends_as_the_eager_one(how, monkeypatch):
    eager, traced = (blown_up(how, step, monkeypatch) for step in STEPS[:2])
    assert traced[:2] == eager[:2]
    assert (eager[0] is NotFiniteError) == (how != "shape")
    for value, expected in zip(traced[2], eager[2], strict=True):
        torch.testing.assert_close(value, expected)


def test_a_compiled_fit_that_blows_up_ends_as_the_eager_one(monkeypatch):
    def adam(parameters):
        return Adam(parameters, 0.04)

    eager, compiled = (blown_up("gradient", s, monkeypatch, adam) for s in ("eager", "compiled"))
    assert eager[0] is NotFiniteError
    assert compiled[:2] == eager[:2]
    for value, expected in zip(compiled[2], eager[2], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("step", STEPS[:2])
def test_weights_spoiled_by_a_callback_are_named_whatever_the_step(step, monkeypatch):
    def spoil(row, model, guide):
        with torch.no_grad():
            model.decoder[0].weight.fill_(float("nan"))

    with pytest.raises(NotFiniteError, match=r"the loss became nan at epoch 2, batch 0"):
        learn(PAIRS["gaussian"], step, monkeypatch, callbacks=[spoil])


def test_without_a_compiler_the_traced_graph_runs_and_says_so_once(monkeypatch):
    def missing(*args):
        raise RuntimeError("no C++ compiler found\nmore of it")

    monkeypatch.setattr(step_module, "compile_graph", missing)
    model, guide, x = made(PAIRS["gaussian"])
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler found; the traced") as caught:
        history = fit(model, guide, x, epochs=3, batch_size=20, compile=True, progress=False)
    assert len(caught) == 1
    assert history.step == "traced"
    assert re.search("compiler failed: RuntimeError: no C", history.step_reason)
    eager = learn(PAIRS["gaussian"], "eager", monkeypatch, epochs=3, batch_size=20)
    alike(eager, ([*model.state_dict().values(), *guide.state_dict().values()],
                  history.frame.drop(columns="seconds")))  # fmt: skip


def test_a_compiler_whose_result_differs_leaves_the_traced_graph(monkeypatch):
    def wrong(step, *arguments):
        return CompiledGraph(lambda *inputs: [1.1 * out for out in step(*inputs)], None, [])

    monkeypatch.setattr(step_module, "compile_graph", wrong)
    model, guide, data = made(PAIRS["gaussian"])
    settings = {"epochs": 3, "batch_size": 8, "progress": False}
    with pytest.warns(UserWarning, match="the compiled step differs from the traced one: its"):
        history = fit(model, guide, data, compile=True, **settings)
    assert history.step == "traced"
    exact = fit(*made(PAIRS["gaussian"]), compile=False, **settings)
    assert history.frame["elbo"].tolist() == pytest.approx(exact.frame["elbo"].tolist(), rel=1e-5)
