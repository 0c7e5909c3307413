"""What the user's code changes between steps reaches a traced step: the fit is the eager one."""

import pytest
import torch
from parts.pairs import Guide, Model, made, reals
from parts.steps import Faulty, alike, learn

from ppl_vae.training import stepper
from ppl_vae.training.stepper import Stepper


@pytest.fixture(autouse=True)
def _traced_at_once(monkeypatch):
    monkeypatch.setattr(stepper, "TRACED_FROM", 1)


class Counts(Faulty):
    """A number of Python's changes at every call."""

    calls = 0

    def noise(self, x, z):
        self.calls += 1
        return 0.5 + 0.01 * self.calls


def test_a_number_that_changes_at_every_call_is_caught():
    history, _, said = learn(made(lambda: (Counts(), Guide(), reals())), "auto")
    assert (history.step, len(said)) == ("eager", 1)
    with pytest.raises(ValueError, match="must be a buffer that is updated in place"):
        learn(made(lambda: (Counts(), Guide(), reals())), True)


class Annealed(Faulty):
    """A callback sets its noise."""

    def __init__(self):
        super().__init__()
        self.number, self.listed = 0.5, [0.5]
        self.register_buffer("level", torch.tensor(0.5))

    def noise(self, x, z):
        return self.number * self.listed[0] * self.level + 0.3


def annealed():
    return Annealed(), Guide(), reals()


def set_number(model, epoch):
    model.number = 0.5 + 0.1 * epoch


def replace_list(model, epoch):
    model.listed = [0.5 + 0.1 * epoch]


def reassign_buffer(model, epoch):
    model.level = torch.tensor(0.5 + 0.1 * epoch)


def update_buffer(model, epoch):
    model.level.fill_(0.5 + 0.1 * epoch)


def both(change, epochs, monkeypatch=None):
    """The eager fit, the traced one, and the batch sizes traced; a callback changes the pair."""

    def callback(row, model, guide):
        if row["epoch"] in epochs:
            change(model, row["epoch"])

    traces = []
    if monkeypatch is not None:
        make = Stepper._make
        monkeypatch.setattr(
            Stepper, "_make", lambda self, size: (traces.append(size), make(self, size))[1]
        )
    settings = {"callbacks": [callback], "epochs": 7, "batch_size": 16}
    eager = learn(made(annealed), False, **settings)
    automatic = learn(made(annealed), "auto", **settings)
    return eager, automatic, traces


@pytest.mark.parametrize(
    "change", [set_number, pytest.param(replace_list, marks=pytest.mark.slow), reassign_buffer]
)
def test_what_a_callback_changes_once_is_traced_again(change, monkeypatch):
    eager, automatic, traces = both(change, {3}, monkeypatch)
    assert automatic[0].step == "traced"
    assert automatic[2] == []
    assert sorted(traces) == [8, 8, 16, 16]
    alike(eager, automatic)


@pytest.mark.parametrize(
    "change",
    [
        set_number,
        *(pytest.param(c, marks=pytest.mark.slow) for c in (replace_list, reassign_buffer)),
    ],
)
def test_what_a_callback_changes_at_every_epoch_ends_the_traced_step(change):
    eager, automatic, _ = both(change, set(range(9)))
    assert automatic[0].step == "eager"
    assert len(automatic[2]) == 1
    assert "at step 6 " in automatic[0].step_reason
    alike(eager, automatic)


def test_a_buffer_updated_in_place_by_a_callback_needs_no_new_trace(monkeypatch):
    eager, automatic, traces = both(update_buffer, set(range(9)), monkeypatch)
    assert automatic[0].step == "traced"
    assert sorted(traces) == [8, 16]
    alike(eager, automatic)
    plain = learn(made(annealed), False, epochs=7, batch_size=16)
    assert plain[0].frame["elbo"].iloc[-1] != automatic[0].frame["elbo"].iloc[-1]


def test_what_a_kl_schedule_changes_is_traced_again_at_the_end_of_the_epoch(monkeypatch):
    """A schedule is the user's code too, so it is compared after every epoch."""
    model, guide, x = made(annealed)
    traces, make = [], Stepper._make
    monkeypatch.setattr(
        Stepper, "_make", lambda self, size: (traces.append(size), make(self, size))[1]
    )

    def schedule(step):
        if step == 15:
            model.number = 0.9
        return 0.7

    automatic = learn((model, guide, x), "auto", kl_weight=schedule, epochs=7, batch_size=10)
    assert automatic[0].step == "traced"
    assert traces == [10, 10]


def test_a_layer_in_another_mode_is_traced_again():
    """``eval()`` by a callback stops dropout."""

    def make():
        model = Model()
        model.decoder = torch.nn.Sequential(torch.nn.Dropout(0.4), model.decoder)
        return model, Guide(), reals()

    def stop(row, model, guide):
        if row["epoch"] == 2:
            model.eval()

    ends = [learn(made(make), how, callbacks=[stop]) for how in (False, "auto")]
    assert ends[1][0].step == "traced"
    alike(*ends)


def test_a_parameter_frozen_by_a_callback_stays():
    def freeze(row, model, guide):
        if row["epoch"] == 2:
            model.decoder.requires_grad_(False)

    def make():
        return Model(), Guide(), reals()

    ends = []
    for how in (False, "auto"):
        try:
            ends.append(learn(made(make), how, callbacks=[freeze]))
        except RuntimeError as error:  # what the eager step does with it counts
            ends.append(str(error))
    assert isinstance(ends[0], str) == isinstance(ends[1], str)
    if not isinstance(ends[0], str):
        alike(*ends)
