"""Whatever changes the numbers of a fit is noticed when the fit is resumed."""

import numpy as np
import pytest
import torch
from parts.runs import SETTINGS, X, outcome, pair, same
from torch.optim import Adam
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LambdaLR, StepLR

from ppl_vae import fit
from ppl_vae.data.rows import Rows
from ppl_vae.report.run_facts import find_split
from ppl_vae.saving.runs import read_run
from ppl_vae.saving.storage import read_json, write_json
from ppl_vae.schedules import linear
from ppl_vae.training.settings import _some_steps

SHORT = {"epochs": 2, "batch_size": 48, "progress": False}


def groups(rate, first=2):
    """A function that makes Adam with two groups, the second of which has this learning rate."""

    def make(parameters):
        second = {"params": parameters[first:], "lr": rate}
        return Adam([{"params": parameters[:first]}, second], lr=1e-3)

    return make


def chained(gamma):
    def make(optimizer):
        return ChainedScheduler([StepLR(optimizer, 3), StepLR(optimizer, 5, gamma)])

    return make


class Duck:
    """A scheduler of the user's own class."""

    def __init__(self, factor):
        self.factor = factor

    def step(self):
        pass

    def state_dict(self):
        return {"factor": self.factor}

    def load_state_dict(self, state):
        self.factor = state["factor"]


DIFFERENT = {  # (begun with, resumed with, what the message names)
    "schedule": ({"kl_weight": linear(20)}, {"kl_weight": linear(30)}, r"kl_weight\(1\)=0.05"),
    "end of a schedule": (
        {"kl_weight": lambda step: 1.0}, {"kl_weight": lambda step: 1.0 if step < 13 else 0.5},
        r"kl_weight\(13\)=1.0, got 0.5",
    ),
    "groups": ({"optimizer": groups(0.01)}, {"optimizer": groups(0.1)},
               r"optimizer_groups.1.lr='0.01', got '0.1'"),
    "members of groups": ({"optimizer": groups(0.01)}, {"optimizer": groups(0.01, 3)},
                          r"optimizer_groups.0.params=\["),
    "scheduler": ({"scheduler": lambda o: StepLR(o, 3)}, {"scheduler": lambda o: StepLR(o, 4)},
                  "scheduler.step_size='3', got '4'"),
    "rates of a scheduler": (
        {"scheduler": lambda o: LambdaLR(o, lambda epoch: 0.9**epoch)},
        {"scheduler": lambda o: LambdaLR(o, lambda epoch: 0.8**epoch)},
        r"scheduler.lr_lambdas\[0\]\(1\)=0.9, got 0.8",
    ),
    "nested scheduler": ({"scheduler": chained(0.5)}, {"scheduler": chained(0.25)},
                         r"scheduler._schedulers\[1\].gamma='0.5', got '0.25'"),
    "own scheduler": ({"scheduler": lambda o: Duck(3)}, {"scheduler": lambda o: Duck(4)},
                      "scheduler.factor='3', got '4'"),
    "length of a schedule": (
        {"scheduler": lambda o: CosineAnnealingLR(o, 2)},
        {"scheduler": lambda o: CosineAnnealingLR(o, 4)}, "scheduler.T_max='2', got '4'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_function_or_setting_is_named_and_the_same_one_is_taken(name, tmp_path):
    begun, resumed, message = DIFFERENT[name]
    fit(*pair(), X, run=tmp_path / "run", **SHORT, **begun)
    with pytest.raises(ValueError, match=rf"resume: .*run was made with .*{message}"):
        fit(*pair(), X, run=tmp_path / "run", resume=True, **{**SHORT, "epochs": 3}, **resumed)
    history = fit(*pair(), X, run=tmp_path / "run", resume=True, **{**SHORT, "epochs": 3}, **begun)
    assert len(history.frame) == 3


def test_functions_are_compared_at_steps_up_to_the_last():
    assert _some_steps(1) == [0]
    assert _some_steps(14) == [0, 1, 2, 5, 10, 13]
    assert _some_steps(1234) == [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1233]


def test_looking_at_a_schedule_leaves_the_random_numbers_of_the_fit_alone(tmp_path):
    settings = {**SETTINGS, "kl_weight": lambda step: float(torch.rand(()))}
    halves, others = pair(), pair()
    whole = outcome(*halves, fit(*halves, X, **settings))
    assert same(whole, outcome(*others, fit(*others, X, run=tmp_path / "run", **settings)))


def test_a_run_that_knows_fewer_settings_is_resumed(tmp_path):
    """As an older version of the library began it."""
    fit(*pair(), X, run=tmp_path / "run", **SHORT)
    info = read_json(tmp_path / "run" / "run.json")
    for name in ("optimizer_groups", "scheduler_settings", "functions"):
        del info["settings"][name]
    write_json(tmp_path / "run" / "run.json", info)
    history = fit(*pair(), X, run=tmp_path / "run", resume=True, **{**SHORT, "epochs": 3})
    assert len(history.frame) == 3


@pytest.fixture
def mapped(tmp_path):
    """9,000 rows in a file."""
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(9000, 12))
    rows[:] = X[torch.arange(9000) % 300]
    return rows


def test_one_changed_cell_of_a_memory_mapped_array_is_noticed(mapped, tmp_path):
    settings = {"epochs": 1, "batch_size": 4500, "progress": False}
    fit(*pair(), mapped, run=tmp_path / "run", **settings)
    for row in (1, 4501, 8998):
        mapped[row, 3] = 1 - mapped[row, 3]
        with pytest.raises(ValueError, match="was made with other data"):
            fit(*pair(), mapped, run=tmp_path / "run", resume=True, **settings)
        mapped[row, 3] = 1 - mapped[row, 3]
    settings["epochs"] = 2
    assert len(fit(*pair(), mapped, run=tmp_path / "run", resume=True, **settings).frame) == 2
    assert find_split(Rows(mapped), read_run(tmp_path / "run").info).keys() == {"fitted"}


def test_a_run_with_the_checksum_of_an_older_version_is_still_known(mapped, tmp_path):
    settings = {"epochs": 1, "batch_size": 4500, "progress": False}
    fit(*pair(), mapped, run=tmp_path / "run", **settings)
    info, older = read_json(tmp_path / "run" / "run.json"), Rows(mapped).older_fingerprint()
    assert older not in (None, info["settings"]["data"])
    assert Rows(torch.from_numpy(np.array(mapped))).older_fingerprint() is None
    info["settings"]["data"] = older
    write_json(tmp_path / "run" / "run.json", info)
    assert find_split(Rows(mapped), info).keys() == {"fitted"}
    settings["epochs"] = 2
    assert len(fit(*pair(), mapped, run=tmp_path / "run", resume=True, **settings).frame) == 2
