"""Fits of several kinds that are killed within a disk action end as if they had not been."""

import signal

import pytest
import torch
from parts.kills import run_and_kill
from parts.runs import SETTINGS, X, outcome, pair, same
from torch.optim import RMSprop, lr_scheduler

from ppl_vae import IWAE, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP
from ppl_vae.saving.snapshots import read_snapshot
from ppl_vae.training import stepper

pytestmark = pytest.mark.filterwarnings("ignore:layer .*BatchNorm1d")


def normalized_pair():
    """A pair whose networks hold running moments, which each step updates in place."""
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), MLP(8, 12, (8,)))
    encoder = torch.nn.Sequential(torch.nn.BatchNorm1d(12), MLP(12, 6, (8,)))
    return BernoulliModel(12, 3, decoder), NormalGuide(12, 3, encoder)


def rmsprop(parameters):
    return RMSprop(parameters, 1e-3, momentum=0.9, centered=True)


KINDS = {  # (the pair, settings)
    "functions": (pair, {
        "kl_weight": lambda step: 0.5 + 0.5 * (step % 3 == 0),
        "scheduler": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda e: 0.8 ** (e % 3)),
    }),
    "batch_norm": (normalized_pair, {}),
    "iwae": (pair, {"elbo": IWAE(3), "kl_weight": 1.0}),
    "rmsprop": (pair, {"optimizer": rmsprop}),
}  # fmt: skip


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("batch_norm", "eager"),
        ("iwae", "eager"),
        *(
            pytest.param(kind, step, marks=pytest.mark.slow)
            for kind in ("functions", "rmsprop")
            for step in ("eager", "traced")
        ),
    ],
)
def test_a_killed_fit_of_each_kind_ends_with_the_same_numbers(kind, step, tmp_path, monkeypatch):
    monkeypatch.setattr(stepper, "TRACED_FROM", 1 if step == "traced" else 10**9)
    make, more = KINDS[kind]
    settings = {**SETTINGS, "patience": None, "epochs": 6, **more}
    halves = make()
    history = fit(*halves, X, **settings)
    assert history.step == step, history.step_reason
    whole, run = outcome(*halves, history), tmp_path / "run"
    steps = []
    for place, count in (("step", 9), ("write", 5), ("rename", 6), ("append", 1)):
        code = run_and_kill(lambda: fit(*make(), X, run=run, resume=True, **settings), place, count)
        assert code == -signal.SIGKILL, f"the fit ended before {place} {count}"
        steps.append(read_snapshot(run)[1]["step"])
    assert steps == sorted(steps)
    assert 5 < steps[0] < steps[-1] < 30
    halves = make()
    assert same(whole, outcome(*halves, fit(*halves, X, run=run, resume=True, **settings)))
    assert list(run.glob(".*.part")) == []
