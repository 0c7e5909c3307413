"""What a traced step would get wrong is caught; the eager step runs and nothing else changes."""

import contextlib
import inspect
import random
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.pairs import FEATURES, LATENTS, Guide, Model, made, reals
from parts.steps import Faulty, alike, learn
from pyro.infer import Trace_ELBO

from ppl_vae.compiled import graphs
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import as_rows
from ppl_vae.elbo.objectives import Objective
from ppl_vae.linting.linter import lint_pair
from ppl_vae.training import stepper
from ppl_vae.training.equivalence import difference_from_eager
from ppl_vae.training.stepper import Stepper
from ppl_vae.training.traced_step import first_line

DRAWS = np.random.default_rng(0).normal(size=10**6).astype(np.float32)


class BranchesOnADraw(Faulty):
    def noise(self, x, z):
        return 0.5 if z.sum() > 0 else 0.7


class BranchesOnARow(Faulty):
    def noise(self, x, z):
        return 0.5 if x.abs().max() > 2 else 0.7


class DrawsInPython(Faulty):
    def noise(self, x, z):
        return 0.5 + random.random()


class DrawsInNumPy(Faulty):
    def noise(self, x, z):
        return 0.5 + abs(np.random.randn())  # noqa: NPY002  what users write


class ReadsItsWeights(Faulty):
    def noise(self, x, z):
        return 0.5 + float(self.decoder[0].weight.detach().numpy().std())


class Reassigns(Faulty):
    """A buffer is another tensor after every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.tensor(0.5))

    def noise(self, x, z):
        self.level = 0.9 * self.level + 0.1
        return self.level


class Rare(Faulty):
    """Python reads the rows; only batches with a number above 50 differ."""

    def __init__(self, read):
        super().__init__()
        self.read = read

    def noise(self, x, z):
        return 1.0 + self.read(x)


READS = {
    "numpy": lambda x: float(x.numpy().max() > 50),
    "asarray": lambda x: float(np.asarray(x).max() > 50),
    "tolist": lambda x: float(max(x[:, 0].tolist()) > 50),
    "nonzero": lambda x: float((x > 50).nonzero().shape[0]),
    "selection": lambda x: float(len(x[x > 50])),
    "item": lambda x: float(x.max().item() > 50),
    "any": lambda x: 1.0 if (x > 50).any() else 0.0,
}


def rare(read):
    """The row is in neither of the two batches that a new traced step is compared on."""
    x = reals()
    x[20, 0] = 51.0
    return Rare(read), Guide(), x


class NumPyGuide(Guide):
    """Draws by numpy, and samples the draw from a point mass."""

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        noise = torch.as_tensor(np.random.randn(len(x), LATENTS), dtype=x.dtype)  # noqa: NPY002
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(loc + log_scale.exp() * noise).to_event(1))


class PrecomputedGuide(NumPyGuide):
    """Draws from a table; each call reads on where the last call stopped."""

    at = 0

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        noise = torch.from_numpy(DRAWS[self.at : self.at + len(x) * LATENTS].copy())
        self.at += len(x) * LATENTS
        with pyro.plate("data", len(x)):
            code = loc + log_scale.exp() * noise.reshape(len(x), LATENTS)
            pyro.sample("z", dist.Delta(code).to_event(1))


FAULTS = {
    "branch on a draw": (BranchesOnADraw, "cannot be traced"),
    "branch on the rows": (BranchesOnARow, "cannot be traced"),
    "random": (DrawsInPython, "its loss is"),
    "numpy.random": (DrawsInNumPy, "its loss is"),
    "weights by numpy": (ReadsItsWeights, ""),
    "buffer reassigned": (Reassigns, ""),
}


@pytest.fixture(autouse=True)
def _traced_at_once(monkeypatch):
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)


def prepared(model, guide, data, requested="auto", watched=False):
    """A stepper as ``fit`` makes one."""
    pair, rows = Pair.of(model, guide, "data"), as_rows(data)
    report = lint_pair(pair, rows, elbo=None, kl_weight=1.0, seed=0)
    objective = report.objective or Objective.of(Trace_ELBO(), "lint refuses the pair")
    parameters = list(pair.trainable().values())
    made_of = pair, rows, objective, parameters, torch.optim.Adam(parameters), None
    steps = Stepper(*made_of, requested=requested, batch_size=16, weighted=False, watched=watched)
    steps.plan(1000)
    return steps


@contextlib.contextmanager
def untouched(steps):
    """Parameters, buffers, the optimizer and every generator are as they were."""

    def state():
        numpys = np.random.get_state()  # noqa: NPY002
        tensors = {name: t.clone() for name, t in steps.pair.tensors().items()}
        places = {name: id(t) for name, t in steps.pair.tensors().items()}
        return (
            torch.get_rng_state(),
            numpys[1].tolist(),
            numpys[2],
            random.getstate(),
            tensors,
            places,
        )

    before = state()
    yield
    after = state()
    assert torch.equal(before[0], after[0])
    assert before[1:4] == after[1:4]
    assert before[5] == after[5]
    assert all(torch.equal(value, after[4][name]) for name, value in before[4].items())
    assert all(p.grad is None for p in steps.pair.parameters().values())


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_and_the_fit_is_the_eager_one(name):
    make, words = FAULTS[name]
    automatic = learn(made(lambda: (make(), Guide(), reals())), "auto")
    assert automatic[0].step == "eager"
    assert len(automatic[2]) == 1
    assert "the eager step runs instead" in automatic[2][0]
    assert words in automatic[0].step_reason
    assert automatic[0].step_reason in automatic[2][0]
    alike(automatic, learn(made(lambda: (make(), Guide(), reals())), False))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_under_compile_true_is_an_error(name):
    make, words = FAULTS[name]
    model, guide, x = made(lambda: (make(), Guide(), reals()))
    before = [t.clone() for t in [*model.parameters(), *guide.parameters()]]
    with pytest.raises(
        ValueError, match=f"compile: the traced step is not the eager one: .*{words}"
    ):
        learn((model, guide, x), True)
    after = [*model.parameters(), *guide.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("guide", [NumPyGuide, PrecomputedGuide])
def test_draws_that_are_not_torchs_are_caught(guide):
    """``lint`` refuses these; the comparison finds them too."""
    pair = made(lambda: (Model(), guide(), reals()))
    steps = prepared(*pair)
    with pytest.warns(UserWarning, match="compile: the traced step is not the eager one"):
        steps.prepare()
    assert steps.kind == "eager"
    assert "its loss is" in steps.reason
    steps = prepared(*pair, requested=True)
    with untouched(steps), pytest.raises(ValueError, match="not the eager one: its loss is"):
        steps.prepare()


def test_a_draw_that_tracing_froze_is_caught(monkeypatch):
    """The draw of the traced run is a constant of the graph."""
    original = graphs.without_values

    @contextlib.contextmanager
    def frozen(checks):
        normal_ = torch.distributions.normal._standard_normal
        held = {}

        def constant(shape, dtype, device):
            return held.setdefault(shape, torch.full(shape, 0.3, dtype=dtype))

        with original(checks), monkeypatch.context() as patch:
            patch.setattr(torch.distributions.normal, "_standard_normal", constant)
            yield
        assert torch.distributions.normal._standard_normal is normal_

    monkeypatch.setattr(graphs, "without_values", frozen)
    steps = prepared(*made(lambda: (Model(), Guide(), reals())))
    with pytest.warns(UserWarning, match="compile: the traced step is not the eager one"):
        steps.prepare()
    assert steps.kind == "eager"
    assert "its loss is" in steps.reason


@pytest.mark.parametrize("wrong", ["loss", "gradient", "small", "lost"])
def test_the_comparison_finds_each_difference(wrong, monkeypatch):
    steps = prepared(*made(lambda: (Model(), Guide(), reals())))
    steps.prepare()
    traced_step = steps.traced_steps[16]
    indices = [torch.arange(16), torch.arange(16) + 20]
    assert difference_from_eager(traced_step, indices) == ""
    original = traced_step.derivative

    def spoiled(*args, **kwargs):
        loss, gradients = original(*args, **kwargs)
        if wrong == "loss":
            return loss * 1.001, gradients
        small = min(range(len(gradients)), key=lambda i: gradients[i].norm())
        target = small if wrong == "small" else 0
        changed = list(gradients)
        changed[target] = None if wrong == "lost" else changed[target] * 1.01
        return loss, changed

    monkeypatch.setattr(traced_step, "derivative", spoiled)
    expected = {"loss": "its loss is", "lost": "no gradient for"}
    assert expected.get(wrong, "the gradients of ") in difference_from_eager(traced_step, indices)


@pytest.mark.parametrize("name", [*FAULTS, "none"])
def test_the_comparison_changes_neither_the_pair_nor_the_generators(name):
    make = FAULTS[name][0] if name in FAULTS else Faulty
    steps = prepared(*made(lambda: (make(), Guide(), reals())))
    with untouched(steps), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.prepare()
    assert steps.kind == ("traced" if name == "none" else "eager")


def test_a_plain_tensor_that_forward_updates_is_not_changed_by_the_comparison():
    class Running(Faulty):
        def __init__(self):
            super().__init__()
            self.level = torch.tensor(1.0)

        def noise(self, x, z):
            return self.level.mul_(1.0001).clone()

    model, guide, x = made(lambda: (Running(), Guide(), reals()))
    steps = prepared(model, guide, x)
    before = model.level.clone()
    steps.prepare()
    assert steps.kind == "traced"
    assert torch.equal(model.level, before)


def test_running_statistics_are_not_changed_by_the_comparison():
    layers = torch.nn.Linear(FEATURES, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2 * LATENTS)
    steps = prepared(*made(lambda: (Model(), Guide(torch.nn.Sequential(*layers)), reals())))
    with untouched(steps):
        steps.prepare()
        steps.check(0, 5000)
    assert steps.kind == "traced"


@pytest.mark.parametrize("read", READS)
def test_a_value_that_python_reads_from_a_few_rows_is_not_frozen(read):
    eager, automatic = (learn(made(lambda: rare(READS[read])), how) for how in (False, "auto"))
    alike(eager, automatic)


def test_a_weight_that_python_reads_is_not_frozen():
    class Weakly(Faulty):
        """The difference is too small to be automatic at the first weights."""

        def noise(self, x, z):
            return 0.5 + 0.1 * float(np.square(self.decoder[0].bias.detach().numpy()).mean())

    def make():
        return Weakly(), Guide(), reals()

    lr = {"optimizer": lambda p: torch.optim.Adam(p, 0.05), "epochs": 20}
    eager, automatic = (learn(made(make), how, **lr) for how in (False, "auto"))
    alike(eager, automatic)


class CountsInTheData(Faulty):
    def noise(self, x, z):
        return 0.5 + int(x.abs().max() > 100)


@pytest.mark.parametrize("make", [BranchesOnADraw, BranchesOnARow, CountsInTheData])
def test_the_line_that_reads_a_number_is_named(make):
    steps = prepared(*made(lambda: (make(), Guide(), reals())), requested=True)
    line = inspect.getsourcelines(make.noise)[1] + 1
    words = rf"Python reads a number from a tensor in test_faults.py, line {line}, which changes"
    with pytest.raises(ValueError, match=words):
        steps.prepare()


def test_an_error_of_torch_ends_at_the_end_of_a_sentence():
    text = "first sentence. " + "second sentence " * 30
    assert first_line(RuntimeError(text)) == "RuntimeError: first sentence"
