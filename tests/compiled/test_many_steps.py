"""Many compiled steps in one call end with the bits of single steps, whatever happens in them."""

import re

import pyro
import pytest
import torch
from parts.pairs import FEATURES, LATENTS, Guide, Model, made, normal, reals

from ppl_vae import fit
from ppl_vae.training import equivalence, loop, many_steps, stepper
from ppl_vae.training.diagnosis import NotFiniteError
from ppl_vae.training.traced_step import CompiledStepError, TracedStep

pytestmark = pytest.mark.filterwarnings("ignore:layer .*BatchNorm1d")


class BreaksAtAWeight(Model):
    """The likelihood of a model whose weights have come too far is not finite."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.register_buffer("start", self.decoder[0].bias.detach().clone())

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = self.code(x)
            pyro.sample("x", normal(self.decoder(z), 0.5), obs=x)
            far = (self.decoder[0].bias - self.start).abs().max() > self.limit
            pyro.factor("broken", torch.where(far, -torch.inf, 0.0).expand(len(x)))


def breaking(limit=1e9):
    layers = torch.nn.Linear(FEATURES, 8, bias=False), torch.nn.BatchNorm1d(8)
    encoder = torch.nn.Sequential(*layers, torch.nn.Linear(8, 2 * LATENTS))
    return BreaksAtAWeight(limit), Guide(encoder), reals()


def decayed(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def learn(monkeypatch, together, limit=1e9, **settings):
    """Fit by many steps in one call or by single steps; returns all that the fit decides."""
    calls = []
    many = TracedStep.many

    def counted(step, indices, weights):
        calls.append(len(indices))
        return many(step, indices, weights)

    with monkeypatch.context() as patched:
        patched.setattr(TracedStep, "many", counted)
        if not together:
            patched.setattr(TracedStep, "runs_many", property(lambda step: False))
        patched.setattr(many_steps, "FEWEST", 1)
        model, guide, x = made(lambda: breaking(limit))
        optimizers = []

        def adam(parameters):
            optimizers.append(torch.optim.Adam(parameters, 0.01))
            return optimizers[-1]

        settings = {
            "epochs": 4, "batch_size": 4, "compile": True, "progress": False, "seed": 0,
            "kl_weight": lambda step: min(1.0, 0.1 + step / 30), **settings,
        }  # fmt: skip
        error, frame = "", None
        try:
            history = fit(model, guide, x, optimizer=adam, scheduler=decayed, **settings)
            frame = history.frame.drop(columns="seconds")
        except NotFiniteError as raised:
            error = str(raised)
    tensors = [*model.state_dict().values(), *guide.state_dict().values()]
    moments = [t for state in optimizers[-1].state.values() for t in state.values()]
    return [*tensors, *moments, torch.get_rng_state()], frame, error, calls


def assert_same(left, right):
    assert all(map(torch.equal, left[0], right[0]))
    assert left[2] == right[2]
    assert (left[1] is None) == (right[1] is None)
    assert left[1] is None or left[1].equals(right[1])


def test_a_fit_ends_with_the_bits_of_single_steps(monkeypatch):
    together, alone = (learn(monkeypatch, t) for t in (True, False))
    assert max(together[3]) > 4
    assert alone[3] == []
    assert_same(together, alone)


def test_a_step_that_is_not_finite_is_met_where_single_steps_meet_it(monkeypatch):
    together, alone = (learn(monkeypatch, t, limit=0.05) for t in (True, False))
    assert re.search(r"at epoch \d, batch [1-9]", alone[2]), alone[2]
    assert max(together[3]) > 4
    assert_same(together, alone)


def test_a_call_of_many_steps_that_differs_is_not_used(monkeypatch):
    chain = TracedStep.chain

    def leaves_one_out(step, held, indices, weights):
        found = chain(step, held, indices[: max(1, len(indices) - 1)], weights)
        return [*found, *found[-1:]][: len(indices)]

    monkeypatch.setattr(TracedStep, "chain", leaves_one_out)
    wrong = learn(monkeypatch, True)
    assert wrong[3] == [4]  # the comparison alone
    monkeypatch.undo()
    assert_same(wrong, learn(monkeypatch, False))


def test_code_that_raises_in_a_call_is_met_by_single_steps(monkeypatch):
    compared = equivalence.many_differ
    stepped = []

    def then_broken(step, indices):
        found = compared(step, indices)
        bare = step.bare

        def breaks(inputs):
            stepped.append(1)
            inputs[0].add_(1)
            if len(stepped) == 7:
                raise RuntimeError("out of memory")
            return bare(inputs)

        step.bare = breaks
        return found

    monkeypatch.setattr(stepper, "many_differ", then_broken)
    broken = learn(monkeypatch, True)
    assert len(stepped) == 7
    monkeypatch.undo()
    assert_same(broken, learn(monkeypatch, False))


def test_a_comparison_that_fails_leaves_the_pair_as_it_was(monkeypatch):
    compared, single, restored = equivalence.many_differ, TracedStep.__call__, []

    def failing(step, indices):
        kept = [*step.held, *step.update.steps]
        before, calls = [tensor.clone() for tensor in kept], []

        def second_fails(step, index, weight):
            calls.append(index)
            if len(calls) == 2:
                raise CompiledStepError("no memory")
            return single(step, index, weight)

        with monkeypatch.context() as patched:
            patched.setattr(TracedStep, "__call__", second_fails)
            with pytest.raises(CompiledStepError):
                compared(step, indices)
        restored.append(all(map(torch.equal, kept, before)))
        return True

    monkeypatch.setattr(stepper, "many_differ", failing)
    learn(monkeypatch, True)
    assert restored == [True]


def test_a_parameter_with_other_memory_is_not_read_by_compiled_code(monkeypatch):
    def transpose(row, model, guide):
        weight = model.decoder[0].weight
        weight.data = weight.data.t().contiguous().t()

    with pytest.warns(UserWarning, match="another shape, strides or dtype than it had"):
        learn(monkeypatch, True, callbacks=[transpose])


def test_a_call_takes_batches_of_one_size_and_as_many_as_its_time_allows(monkeypatch):
    class Step:
        runs_many = True

        def many(self, indices, weights):
            clock[0] += 0.001 * len(indices)
            assert len({len(index) for index in indices}) == 1
            return [[float(weight), 0.0] for weight in weights]

    clock = [0.0]
    monkeypatch.setattr(many_steps.time, "perf_counter", lambda: clock[0])
    steps = type("Steps", (), {"traced_steps": {8: Step()}})()
    batches = [torch.arange(8)] * 200 + [torch.arange(3)]
    many, position, calls = many_steps.ManySteps(steps), 0, []
    while position < 200:
        losses = many(batches, position, lambda ahead, at=position: at + ahead)
        assert [loss for loss, _ in losses] == list(range(position, position + len(losses)))
        calls.append(len(losses))
        position += len(losses)
    assert calls[:2] == [16, 50]  # of 0.05 s
    assert sum(calls) == 200
    assert many(batches, 200, lambda ahead: 0.0) == []
    assert loop.ManySteps is many_steps.ManySteps
