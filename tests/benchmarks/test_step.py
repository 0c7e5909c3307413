"""The benchmark of a step compares equals; its timings are never asserted."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pyro
import pytest
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

FILE = Path(__file__).parents[2] / "benchmarks" / "step.py"
TINY = ["--rows", "8", "--features", "5", "--hidden", "4", "--latents", "2", "--data-rows", "30"]


@pytest.fixture(scope="module")
def step():
    spec = importlib.util.spec_from_file_location("benchmark_step", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def generators():
    state = pyro.util.get_rng_state()
    yield
    pyro.util.set_rng_state(state)


def test_table_has_every_contestant_under_every_objective(step, capsys):
    table = step.main([*TINY, "--rounds", "3", "--epochs", "1"])
    expected = {(title, name) for (title, _), names in step.CONTESTANTS.items() for name in names}
    assert set(zip(table["objective"], table["contestant"], strict=True)) == expected
    assert len(table) == len(expected)
    for column in ("milliseconds", "ratio"):
        assert (table[f"{column}_low"] > 0).all()
        assert (table[f"{column}_low"] <= table[column]).all()
        assert (table[column] <= table[f"{column}_high"]).all()
    baseline = table[table["contestant"] == step.BASELINE]
    assert len(baseline) == 2
    assert (baseline[["ratio", "ratio_low", "ratio_high"]] == 1).all(axis=None)
    printed = capsys.readouterr().out
    assert "8 rows x 5 features, hidden 4, 2 latents, 30 rows of data; 3 rounds" in printed
    assert all(name in printed for _, name in expected)
    assert printed.count("fit over Pyro SVI") == 2
    assert len(pyro.get_param_store()) == 0


def test_ratio_pairs_contestants_of_one_round(step):
    rows = [("a", step.BASELINE, 0, 2.0), ("a", "ppl_vae.fit", 0, 1.0)]
    rows += [("a", step.BASELINE, 1, 20.0), ("a", "ppl_vae.fit", 1, 10.0)]
    columns = ["objective", "contestant", "round", "milliseconds"]
    table = step.summarize(pd.DataFrame(rows, columns=columns)).set_index("contestant")
    assert table.loc["ppl_vae.fit", ["ratio", "ratio_low", "ratio_high"]].tolist() == [0.5] * 3
    assert table.loc["ppl_vae.fit", "milliseconds"] == 5.5


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_contestants_do_the_same_work(step, elbo):
    work = step.Work(rows=8, features=5, hidden=4, latents=2, data_rows=60)
    losses = {}
    for contestant in (step.svi, step.bare_elbo, step.by_hand):
        epoch = contestant.__wrapped__(work, elbo)
        pyro.set_rng_seed(1)
        losses[contestant.__name__] = [epoch() for _ in range(5)]
    assert losses["svi"][-1] < losses["svi"][0]
    for name, values in losses.items():
        assert values == pytest.approx(losses["svi"], rel=1e-4), name


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_fit_and_the_timed_loops_clock_every_epoch(step, elbo):
    work = step.Work(rows=8, features=5, hidden=4, latents=2, data_rows=60)
    assert work.steps == 8
    for contestant in (step.whole_fit, step.svi):
        seconds = contestant(work, elbo)(3)
        assert len(seconds) == 3
        assert all(0 < s < 60 for s in seconds)
