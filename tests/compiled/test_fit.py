"""A fit by the traced or the compiled step is the eager fit, from its seed to its resumption."""

import functools
import itertools
import signal

import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from parts.fits import STEPS, alike, learn
from parts.kills import run_and_kill
from parts.pairs import PAIRS, Guide, Model, made, mapped, reals
from torch.optim import SGD, Adam, AdamW, RMSprop, lr_scheduler

from ppl_vae import fit
from ppl_vae.saving import snapshots, storage
from ppl_vae.saving.snapshots import read_snapshot
from ppl_vae.schedules import linear
from ppl_vae.training import stepper

pytestmark = pytest.mark.filterwarnings("ignore:layer .*BatchNorm1d")


def same(left, right):
    pd.testing.assert_frame_equal(left[1], right[1], check_exact=True)
    return all(torch.equal(a, b) for a, b in zip(left[0], right[0], strict=True))


def changed(left, make):
    """No weight is as it was before the fit."""
    model, guide, _ = made(make)
    before = [*model.state_dict().values(), *guide.state_dict().values()]
    assert all(not torch.equal(a, b) for a, b in zip(left[0], before, strict=True))


def two_groups(parameters):
    half = len(parameters) // 2
    return Adam([{"params": parameters[:half], "lr": 0.03},
                 {"params": parameters[half:], "lr": 0.003, "betas": (0.8, 0.99)}])  # fmt: skip


OPTIMIZERS = {
    "adam": lambda p: Adam(p, 0.01),
    "fused": lambda p: Adam(p, 0.01, fused=True),
    "adamw": lambda p: AdamW(p, 0.01, weight_decay=0.3),
    "l2": lambda p: Adam(p, 0.01, weight_decay=0.3),
    "groups": two_groups,
    "momentum": lambda p: SGD(p, 1e-4, momentum=0.9),
    "rmsprop": lambda p: RMSprop(p, 0.003, centered=True, weight_decay=0.1),
}
SETTINGS = {
    "clipped": {"clip_norm": 3.0, "optimizer": lambda p: SGD(p, 1e-2)},
    "decaying": {"scheduler": lambda o: lr_scheduler.ExponentialLR(o, 0.5)},
    "warming": {"kl_weight": linear(7)},
    "weighted": {"kl_weight": 0.3},
    "held out": {"validation": 0.3, "optimizer": lambda p: Adam(p, 0.3)},
    "one batch": {"batch_size": 1000},
    "even": {"batch_size": 20},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_updates_as_in_the_eager_fit(name, monkeypatch):
    settings = {"optimizer": OPTIMIZERS[name]}
    eager, traced = (learn(PAIRS["gaussian"], s, monkeypatch, **settings) for s in STEPS[:2])
    changed(eager, PAIRS["gaussian"])
    alike(eager, traced)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_a_fit_holds_in_the_traced_one(name, monkeypatch):
    settings = {"optimizer": OPTIMIZERS["adam"], "epochs": 8, **SETTINGS[name]}
    eager, traced = (learn(PAIRS["gaussian"], s, monkeypatch, **settings) for s in STEPS[:2])
    alike(eager, traced)


LEARN_EVERY_TIME = {"batch_norm", "dropout", "mapping", "sampled_class"}
KINDS = [
    pytest.param(name, marks=[] if name in LEARN_EVERY_TIME else pytest.mark.slow) for name in PAIRS
]  # one step of every kind is compared in test_equality.py; fits of "gaussian" are above


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:site .*expected a baseline")  # a plain score function
def test_pairs_of_every_kind_learn_as_in_the_eager_fit(name, monkeypatch):
    settings = {"optimizer": OPTIMIZERS["adam"], "epochs": 2}
    alike(*(learn(PAIRS[name], step, monkeypatch, **settings) for step in STEPS[:2]))


def test_rows_of_a_memory_map_are_read_as_in_the_eager_fit(tmp_path, monkeypatch):
    alike(*(learn(lambda: mapped(tmp_path / "x"), step, monkeypatch) for step in STEPS[:2]))


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
def test_frozen_parameters_do_not_change(monkeypatch):
    def make():
        model, guide, x = PAIRS["gaussian"]()
        model.requires_grad_(False)
        return model, guide, x

    before = [t.clone() for t in made(make)[0].state_dict().values()]
    decayed = {"optimizer": OPTIMIZERS["adamw"]}
    eager, traced = (learn(make, step, monkeypatch, **decayed) for step in STEPS[:2])
    alike(eager, traced)
    after = traced[2][0].state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def grouped():
    """All that a compiled step holds at once: buffers, dropout, a smaller last batch."""
    layers = [torch.nn.Linear(5, 8, bias=False), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2)]
    return Model(), Guide(torch.nn.Sequential(*layers, torch.nn.Linear(8, 4))), reals()


def all_at_once(parameters):
    half = len(parameters) // 2
    return AdamW([{"params": parameters[:half], "lr": 0.03, "weight_decay": 0.2},
                  {"params": parameters[half:], "lr": 0.003}])  # fmt: skip


COMPILED = {
    "adamw": (grouped, {
        "optimizer": all_at_once, "kl_weight": linear(7), "validation": 0.3, "clip_norm": 20.0,
        "batch_size": 12, "epochs": 8, "scheduler": lambda o: lr_scheduler.ExponentialLR(o, 0.8)}),
    "l2": (PAIRS["enumerated_in_the_guide"], {
        "optimizer": OPTIMIZERS["l2"], "kl_weight": 0.3, "batch_size": 20}),
    "momentum": (PAIRS["baseline"], {
        "optimizer": OPTIMIZERS["momentum"], "clip_norm": 50.0, "batch_size": 20}),
    "rmsprop": (PAIRS["gaussian"], {"optimizer": OPTIMIZERS["rmsprop"], "batch_size": 20}),
}  # fmt: skip


@functools.cache
def compiled_fit(name):
    """One compiled fit, which several tests read: a compilation takes ten seconds."""
    make, settings = COMPILED[name]
    with pytest.MonkeyPatch.context() as patch:
        return learn(make, "compiled", patch, **settings)


@pytest.mark.parametrize(  # the others every time as traced fits
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "adamw")) for n in COMPILED]
)
def test_a_compiled_fit_is_the_eager_one(name, monkeypatch):
    make, settings = COMPILED[name]
    alike(learn(make, "eager", monkeypatch, **settings), compiled_fit(name))


@pytest.mark.slow  # every time: the resumed compiled fit, below, ends with the same bits
def test_a_compiled_fit_has_one_outcome_a_seed(monkeypatch):
    make, settings = COMPILED["adamw"]
    assert same(compiled_fit("adamw"), learn(make, "compiled", monkeypatch, **settings))


@pytest.mark.slow  # every time: resumed fits, below, end with the bits of whole ones
@pytest.mark.parametrize("name", ["mixture", "dropout"])
def test_a_seed_decides_every_bit_of_a_traced_fit(name, monkeypatch):
    first, again = (learn(PAIRS[name], "traced", monkeypatch) for _ in range(2))
    assert same(first, again)
    other = learn(PAIRS[name], "traced", monkeypatch, seed=1)
    assert not same((first[0], again[1]), (other[0], again[1]))


# Kill and resume


class Killed(BaseException):
    pass


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(snapshots, "SOONEST", 0.0)
    monkeypatch.setattr(snapshots, "SHARE", 0)


def killed_at_snapshot(monkeypatch, at):
    """The process is killed while it writes snapshot number ``at``."""
    original, count = storage.write_tensors, 0

    def write(*args):
        nonlocal count
        count += 1
        if count == at:
            raise Killed
        return original(*args)

    monkeypatch.setattr(storage, "write_tensors", write)


RESUMED = {
    "gaussian": {"clip_norm": 30.0, "kl_weight": linear(9), "validation": 0.2},
    "batch_norm": {"optimizer": OPTIMIZERS["adamw"]},
    "mixture": {"optimizer": OPTIMIZERS["momentum"]},
    "sampled_class": {"optimizer": two_groups},
}


# Every time: settings of a fit, and buffers beside parameters. Eager fits of more kinds are in
# saving/test_resume_kinds.py.
CUT_OFF_EVERY_TIME = {("gaussian", "eager"), ("gaussian", "traced"), ("batch_norm", "traced")}
CUT_OFF = [
    pytest.param(*names, marks=[] if names in CUT_OFF_EVERY_TIME else pytest.mark.slow)
    for names in itertools.product(RESUMED, STEPS[:2])
]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("name", "step"), CUT_OFF)
def test_a_fit_cut_off_is_resumed_bit_for_bit(name, step, tmp_path, monkeypatch):
    make, settings = PAIRS[name], RESUMED[name]
    whole = learn(make, step, monkeypatch, **settings)
    with monkeypatch.context() as patch:
        killed_at_snapshot(patch, 8)  # within the third epoch
        with pytest.raises(Killed):
            learn(make, step, patch, run=tmp_path / "run", **settings)
    assert read_snapshot(tmp_path / "run")[1]["position"] > 0
    assert same(
        whole, learn(make, step, monkeypatch, run=tmp_path / "run", resume=True, **settings)
    )


@pytest.mark.usefixtures("always")
def test_a_compiled_fit_cut_off_is_resumed_bit_for_bit_as_compiled(tmp_path, monkeypatch):
    make, settings = COMPILED["adamw"]
    whole = compiled_fit("adamw")
    with monkeypatch.context() as patch:
        killed_at_snapshot(patch, 8)
        with pytest.raises(Killed):
            learn(make, "compiled", patch, run=tmp_path / "run", **settings)
    assert read_snapshot(tmp_path / "run")[1]["position"] > 0
    monkeypatch.setattr(stepper, "step_kind", lambda *_: "eager")  # what would be chosen now
    settings = {**settings, "run": tmp_path / "run", "resume": True}
    assert same(whole, learn(make, "compiled", monkeypatch, **settings))


@pytest.mark.slow  # every time: eager fits, in saving/test_resume.py
@pytest.mark.usefixtures("always")
def test_a_traced_fit_killed_within_its_disk_actions_ends_as_if_it_had_not_been(
    tmp_path, monkeypatch
):
    settings = {"epochs": 8}
    whole = learn(PAIRS["gaussian"], "traced", monkeypatch, **settings)
    settings |= {"run": tmp_path / "run", "resume": True}
    for place, count in (("step", 4), ("write", 6), ("link", 5), ("rename", 8)):
        code = run_and_kill(
            lambda: learn(PAIRS["gaussian"], "traced", monkeypatch, **settings), place, count
        )
        assert code == -signal.SIGKILL
    assert read_snapshot(tmp_path / "run")[1]["step"] > 10
    assert same(whole, learn(PAIRS["gaussian"], "traced", monkeypatch, **settings))


@pytest.mark.parametrize("step", STEPS[:2])
def test_a_resumed_fit_has_the_kind_of_step_it_began_with(step, tmp_path, monkeypatch):
    other = {"eager": 1, "traced": 10**9}[step]
    monkeypatch.setattr(stepper, "TRACED_FROM", 1 if step == "traced" else 10**9)
    quick = {"batch_size": 16, "progress": False, "run": tmp_path / "run"}
    fit(*made(PAIRS["gaussian"]), epochs=2, **quick)
    monkeypatch.setattr(stepper, "TRACED_FROM", other)
    history = fit(*made(PAIRS["gaussian"]), epochs=4, resume=True, **quick)
    assert (history.step, len(history.frame)) == (step, 4)


# Half precision


def test_autocast_holds_in_the_traced_step_and_its_weights_are_fresh(monkeypatch):
    class Wide(Model):
        def likelihood(self, out):
            return dist.Normal(out.float(), 1.0).to_event(1)

    def make():
        return Wide(), Guide(), reals().add(3.0)

    settings = {"epochs": 25, "optimizer": lambda p: Adam(p, 0.02)}
    plain = learn(make, "eager", monkeypatch, **settings)[1]["elbo"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ends = [learn(make, step, monkeypatch, **settings)[1]["elbo"] for step in STEPS[:2]]
    assert plain.iloc[-1] > plain.iloc[0] + 5
    for elbo in ends:
        assert elbo.iloc[0] != plain.iloc[0]
        assert elbo.iloc[-1] == pytest.approx(plain.iloc[-1], rel=0.03)
    assert ends[0].tolist() == pytest.approx(ends[1].tolist(), rel=0.02)


def test_a_scheduler_beside_compiled_updates_brings_no_warning():
    model, guide, x = made(PAIRS["gaussian"])
    decay = lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9)  # noqa: E731
    fit(model, guide, x, epochs=3, batch_size=20, scheduler=decay, compile=True, progress=False)
