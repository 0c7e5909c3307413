"""Compiled code that raises while a fit goes on, and tensors whose clones have other strides.

The graphs run operation by operation here, in place of inductor, which is slow; the fit with a
constant that was made once is compiled in earnest.
"""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import FEATURES, LATENTS, PAIRS, Guide, Model, made, reals

from ppl_vae import fit, lint
from ppl_vae.compat import of_torch
from ppl_vae.compiled.layout import copy_with_strides, write_back

pytestmark = pytest.mark.filterwarnings("ignore:layer .*BatchNorm1d")
QUICK = {"epochs": 3, "batch_size": 20, "progress": False}


def normalized():
    """A pair with batch normalization, whose running statistics are buffers."""
    layers = torch.nn.Linear(FEATURES, 8, bias=False), torch.nn.BatchNorm1d(8)
    encoder = torch.nn.Sequential(*layers, torch.nn.Linear(8, 2 * LATENTS))
    return Model(), Guide(encoder), reals()


def trained(make, **settings):
    """The history and the weights of a fit, and the warnings about its step."""
    model, guide, data = made(make)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(model, guide, data, **{**QUICK, **settings})
    weights = [t for half in (model, guide) for t in half.state_dict().values()]
    return history, weights, [str(w.message) for w in caught if "compile:" in str(w.message)]


def failing(monkeypatch, after, spoil):
    """Let compiled code raise at a call, after ``spoil`` has changed its inputs."""
    calls = 0

    def compiled(module, *others):
        def call(*inputs):
            nonlocal calls
            calls += 1
            if calls != after:
                return module(*inputs)
            spoil(inputs)
            torch.randn(7)
            raise RuntimeError("out of memory\nand a long text")

        return call

    monkeypatch.setattr(of_torch, "compile_with_inductor", compiled)


def spoil_everything(inputs):
    for tensor in inputs[:-3]:
        tensor.add_(1)


def spoil_running_statistics(inputs):
    for tensor in inputs:
        if tensor.shape == () and tensor.dtype == torch.int64:  # batches counted by BatchNorm1d
            tensor.add_(1)


# One call when compiled, one on each of two batches at two places for the comparison: 5 in all.
FAILURES = {"first": (6, spoil_everything), "later": (9, spoil_running_statistics)}


@pytest.mark.parametrize(
    ("failure", "requested"),
    [
        ("first", True), ("later", "auto"),
        pytest.param("first", "auto", marks=pytest.mark.slow),
        pytest.param("later", True, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_fit_goes_on_traced_where_compiled_code_raises(failure, requested, monkeypatch):
    from ppl_vae.training import stepper

    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    traced = trained(normalized)
    monkeypatch.setattr(stepper, "COMPILED_FROM", 1)
    failing(monkeypatch, *FAILURES[failure])
    history, weights, warned = trained(normalized, compile=requested)
    assert (history.step, history.step_reason) == (
        "traced", "the compiled step failed: RuntimeError: out of memory",
    )  # fmt: skip
    assert warned == [f"compile: {history.step_reason}; the traced graph runs, which is "
                      "slower"]  # fmt: skip
    assert traced[0].step == "traced"
    assert history.frame["elbo"].tolist() == pytest.approx(traced[0].frame["elbo"].tolist())
    for value, expected in zip(weights, traced[1], strict=True):
        torch.testing.assert_close(value, expected)


def test_a_fit_goes_on_traced_where_the_comparison_of_an_epoch_raises(monkeypatch):
    failing(monkeypatch, 8, lambda inputs: None)
    history, _, warned = trained(
        PAIRS["gaussian"], compile=True, callbacks=[lambda row, model, guide: None]
    )
    assert history.step == "traced"
    assert len(warned) == 1
    assert "the compiled step failed: RuntimeError: out of memory" in warned[0]


def expanded_prior():
    """A prior that is made once, as an expanded tensor, by functions."""
    prior = dist.Normal(0.0, 1.0).expand([LATENTS]).to_event(1)

    class Once(Model):
        def code(self, x):
            return pyro.sample("z", prior)

    return Once(), Guide(), reals()


class Striding(Model):
    """Reads buffers that are expanded, strided and transposed, and trains a strided parameter."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.zeros(1).expand(FEATURES))
        self.register_buffer("every_second", torch.arange(2.0 * FEATURES)[::2])
        self.table = torch.ones(1, LATENTS).expand(FEATURES, LATENTS).t()
        self.shift = torch.nn.Parameter(torch.zeros(2 * FEATURES)[1::2])

    def code(self, x):
        return super().code(x) + 0.1 * self.table.sum(-1)

    def likelihood(self, out):
        return super().likelihood(out + self.level + 0.01 * self.every_second + self.shift)


def striding():
    return Striding(), Guide(), reals()


@pytest.mark.parametrize("make", [expanded_prior, striding])
def test_compiled_code_gets_the_strides_that_it_was_made_for(make, monkeypatch):
    strides = []

    def compiled(module, examples, options):
        strides.append([tensor.stride() for tensor in examples])

        def call(*inputs):
            assert [tensor.stride() for tensor in inputs] == strides[-1]
            return module(*inputs)

        return call

    monkeypatch.setattr(of_torch, "compile_with_inductor", compiled)
    history, weights, warned = trained(make, compile=True, validation=0.5)
    assert (history.step, warned) == ("compiled", [])
    eager = trained(make, compile=False, validation=0.5)
    for value, expected in zip(weights, eager[1], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_lint_leaves_an_expanded_buffer_as_it_was():
    model, guide, x = made(striding)
    assert not lint(model, guide, x).findings
    assert model.level.stride() == (0,)
    assert model.level.tolist() == [0.0] * FEATURES


def test_a_constant_that_was_made_once_is_compiled_in_earnest():
    history, _, warned = trained(expanded_prior, compile=True)
    assert (history.step, warned) == ("compiled", [])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4), torch.randn(3, 4).t(), torch.randn(6, 4)[::2], torch.randn(5),
        torch.randn(1, 4).expand(3, 4), torch.randn(3, 1, 2).expand(3, 4, 2)[1:], torch.randn(()),
        torch.randn(6).unfold(0, 3, 1), torch.zeros(0, 3).t(), torch.zeros(2, 0, 3)[::2],
    ],
    ids=lambda t: f"{tuple(t.shape)}-{t.stride()}",
)  # fmt: skip
def test_a_copy_has_the_numbers_and_the_strides(tensor):
    copy = copy_with_strides(tensor)
    assert torch.equal(copy, tensor)
    assert copy.stride() == tensor.stride()
    assert not tensor.numel() or copy.data_ptr() != tensor.data_ptr()


def test_a_value_is_written_back_into_an_expanded_tensor():
    base = torch.zeros(3, 1)
    tensor = base.expand(3, 4)
    value = torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 4).clone()
    write_back(tensor, value)
    assert torch.equal(tensor, value)
    assert base.flatten().tolist() == [1, 2, 3]


def test_a_graph_too_large_for_the_compiler_stays_traced(monkeypatch):
    from ppl_vae.training import stepper

    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    traced = trained(normalized)
    monkeypatch.setattr(stepper, "COMPILED_FROM", 1)
    monkeypatch.setattr(stepper, "LARGEST_COMPILED", 10)
    history, weights, warned = trained(normalized, compile="auto")
    assert history.step == "traced"
    assert "operations would take minutes to compile" in history.step_reason
    assert warned == []
    for value, expected in zip(weights, traced[1], strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
