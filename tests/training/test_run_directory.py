"""A fit in a run directory takes numpy's numbers in every setting, and resumes with either kind."""

import json

import numpy as np
import pytest
import torch
from torch.optim import Adam, lr_scheduler

from ppl_vae import IWAE, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.training.arguments import plain_numbers

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def settings(whole, number):
    """Every number that ``fit`` takes, made by two functions."""
    return {
        "epochs": whole(2), "batch_size": whole(20), "patience": whole(9), "seed": whole(3),
        "kl_weight": number(0.5), "clip_norm": number(2.0), "validation": number(0.25),
        "elbo": IWAE(whole(2)),
        "optimizer": lambda p: Adam(p, lr=number(0.25), weight_decay=number(0.125)),
        "scheduler": lambda o: lr_scheduler.ExponentialLR(o, number(0.5)),
    }  # fmt: skip


def fitted(run, **arguments):
    torch.manual_seed(0)
    pair = GaussianModel(3, 2), NormalGuide(3, 2)
    return fit(*pair, X, run=run, progress=False, **arguments)


@pytest.mark.parametrize("number", [np.float32, np.float64])
@pytest.mark.parametrize("compiled", [False, "auto"])
def test_numpys_numbers_are_stored_as_pythons(number, compiled, tmp_path, monkeypatch):
    from ppl_vae.training import stepper

    monkeypatch.setattr(stepper, "TRACED_FROM", 1)
    first = fitted(tmp_path / "numpy", compile=compiled, **settings(np.int64, number))
    again = fitted(tmp_path / "python", compile=compiled, **settings(int, float))
    np.testing.assert_allclose(first.frame["elbo"], again.frame["elbo"], rtol=1e-6)
    stored = [
        json.loads((tmp_path / name / "run.json").read_text())["settings"]
        for name in ("numpy", "python")
    ]
    assert stored[0] == stored[1]


@pytest.mark.parametrize("kinds", [(np.int64, np.float32), (int, float)])
def test_a_run_begun_with_numpys_numbers_resumes(kinds, tmp_path):
    fitted(tmp_path / "run", **settings(np.int64, np.float32))
    history = fitted(tmp_path / "run", resume=True, **{**settings(*kinds), "epochs": 4})
    assert len(history.frame) == 4


def test_plain_numbers_reach_into_containers_and_leave_the_rest():
    tensor = torch.ones(1)
    value = plain_numbers({"a": [np.int64(1), (np.float32(0.5), np.bool_(True))], "t": tensor})
    assert value == {"a": [1, (0.5, True)], "t": tensor}
    assert [type(v) for v in (value["a"][0], *value["a"][1])] == [int, float, bool]


def test_an_error_while_a_run_begins_is_not_called_damage(tmp_path, monkeypatch):
    from ppl_vae.saving import runs

    def broken(*args):
        raise TypeError("a fault of the library")

    monkeypatch.setattr(runs, "create_run", broken)
    with pytest.raises(TypeError, match="a fault of the library"):
        fitted(tmp_path / "run", epochs=1)
