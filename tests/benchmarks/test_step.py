"""The benchmark of a step compares contestants that do the same work; no timing is asserted."""

import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyro
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = ("step", "step_torch", "step_works", "step_numpyro")

APART = """
import json, sys
from dataclasses import replace
import step, step_numpyro
name, rows = sys.argv[1:]
work = next(work for work in step.WORKS if work.name == name)
sizes = {**step.TINY, "particles": min(work.particles, 2), "data_rows": int(rows), "hidden": 40}
work = replace(work, **sizes)
epochs = [c.__wrapped__(work) for c in (step_numpyro.jitted, step_numpyro.scanned)]
print(json.dumps([[epoch() for _ in range(10)] for epoch in epochs]))
"""


@pytest.fixture(scope="module")
def step():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("step")
    sys.path.remove(str(FOLDER))
    for name in FILES:
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def generators():
    state = pyro.util.get_rng_state()
    yield
    pyro.util.set_rng_state(state)


def tiny(step, name, **sizes):
    work = next(work for work in step.WORKS if work.name == name)
    return replace(work, **{**step.TINY, "particles": min(work.particles, 2), **sizes})


def losses(contestant, epochs, *arguments):
    """Return the losses of every epoch of a contestant, without its timing."""
    epoch = contestant.__wrapped__(*arguments)
    pyro.set_rng_seed(1)
    return [epoch() for _ in range(epochs)]


@pytest.mark.filterwarnings("ignore:site .*expected a baseline")  # a plain score function
def test_table_has_every_contestant_of_every_work(step, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(step, "has_numpyro", lambda: False)
    names = ["class-graph", "class-enum", "conv-128x28x28"]  # one is compiled by hand
    threads = torch.get_num_threads()
    file = tmp_path / "step.jsonl"
    words = ["--tiny", "--works", *reversed(names), "--rounds", "2", "--out", str(file)]
    table = step.main(words)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["milliseconds"] for line in lines] == table["milliseconds"].tolist()
    assert torch.get_num_threads() == threads
    works = [work for work in step.WORKS if work.name in names]
    expected = [(work.name, name) for work in works for name in step.contestants(work)]
    assert sorted(zip(table["work"], table["contestant"], strict=True)) == sorted(expected)
    assert table["work"].unique().tolist() == names
    assert sum(name == step.HAND_COMPILED for _, name in expected) == 1
    for column in ("milliseconds", "ratio"):
        assert (table[f"{column}_low"] > 0).all()
        assert (table[f"{column}_low"] <= table[column]).all()
        assert (table[column] <= table[f"{column}_high"]).all()
    ours = table[table["contestant"] == step.OURS]
    assert len(ours) == len(names)
    assert (ours[["ratio", "ratio_low", "ratio_high"]] == 1).all(axis=None)
    assert table["loss"].isna().equals(table["contestant"] == step.PRODUCTS)
    printed = capsys.readouterr().out
    assert "class-graph: 8 rows x 6 features, hidden 5, 60 rows of data, 2 x 8 steps" in printed
    assert "NumPyro is not installed" in printed
    assert "conv-128x28x28: not written in NumPyro" in printed
    assert len(re.findall(r"traced \d+\.\d\d s", printed)) == len(names)
    assert all(name in printed for _, name in expected)
    assert len(pyro.get_param_store()) == 0


def test_fit_is_timed_beside_spinning_processes(step, capsys):
    table = step.main(["--tiny", "--busy", "--works", "vae-128x30", "--rounds", "1"])
    assert table["work"].tolist() == ["vae-128x30"]
    assert (table[["idle", "busy"]] > 0).all(axis=None)
    assert "times" in capsys.readouterr().out.splitlines()[-1]


def rounds_of(step, times):
    rows = [
        ("class-enum", name, number, milliseconds, 1.0)
        for name, values in times.items()
        for number, milliseconds in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["work", "contestant", "round", "milliseconds", "loss"])


def test_ratio_pairs_contestants_of_one_round(step):
    table = step.summarize(rounds_of(step, {step.OURS: (2.0, 20.0), step.SVI: (1.0, 10.0)}))
    table = table.set_index("contestant")
    assert table.loc[step.SVI, ["ratio", "ratio_low", "ratio_high"]].tolist() == [0.5] * 3
    assert table.loc[step.SVI, "milliseconds"] == 5.5


def test_the_fastest_of_each_peer_is_held_against_the_required_ratio(step, capsys):
    times = {
        step.OURS: (1.0,), step.SVI: (5.0,), step.HAND: (3.0,), step.HAND_COMPILED: (4.0,),
        step.JITTED: (2.5,), step.SCANNED: (1.5,), step.PRODUCTS: (0.5,),
    }  # fmt: skip
    works = [work for work in step.WORKS if work.name == "class-enum"]
    ratios = step.compare(step.summarize(rounds_of(step, times)), works).set_index("contestant")
    expected = {step.SVI: 5.0, step.HAND: 3.0, step.SCANNED: 1.5, step.PRODUCTS: 2.0}
    assert ratios["ratio"].to_dict() == expected
    assert ratios["asked"].dropna().to_dict() == {step.SVI: 7, step.SCANNED: 1.2}
    step.show_ratios(ratios.reset_index())
    printed = capsys.readouterr().out
    assert "5.00 x Pyro SVI (5.00 - 5.00); asked 7, MISSED" in printed
    assert "1.50 x NumPyro, scan an epoch (1.50 - 1.50); asked 1.2, met" in printed
    assert "takes 2.00 times products alone" in printed


@pytest.mark.parametrize("name", ["vae-128x30", "vae-8-particles", "conv-128x28x28"])
def test_contestants_on_torch_do_the_same_work(step, name):
    work = tiny(step, name)
    expected = losses(step.svi, 5, work)
    assert expected[-1] < expected[0]
    for compiled in (False, True):  # at the tiny size, compiled and eager do the same work
        assert losses(step.by_hand, 5, work, compiled) == pytest.approx(expected, rel=1e-4)
    assert losses(step.traced_step, 5, work) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["vae-128x30", "class-enum"])
def test_fit_learns_what_svi_learns(step, name):
    work = tiny(step, name, data_rows=140, hidden=40)
    expected = losses(step.svi, 10, work)
    seconds, loss = step.whole_fit(work, compiled=True)(9)
    assert len(seconds) == 9
    assert all(s > 0 for s in seconds)
    assert loss < 0.97 * expected[0]
    assert loss == pytest.approx(expected[-1], rel=0.03)


@pytest.mark.parametrize(
    ("name", "data_rows"), [("vae-8-particles", 144), ("class-enum", 140)], ids=["whole", "ragged"]
)
def test_numpyro_learns_what_svi_learns(step, name, data_rows):
    if not step.has_numpyro():
        pytest.skip("NumPyro is an optional extra: pip install -e .[bench]")
    expected = losses(step.svi, 10, tiny(step, name, data_rows=data_rows, hidden=40))
    command = [sys.executable, "-c", APART, name, str(data_rows)]  # its threads mind being forked
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=True)
    for found in json.loads(done.stdout):
        assert found[-1] < 0.97 * found[0]
        assert found[0] == pytest.approx(expected[0], rel=0.03)
        assert found[-1] == pytest.approx(expected[-1], rel=0.03)


def test_matrix_products_are_those_of_a_gradient(step):
    work = tiny(step, "vae-128x30")
    multiplied = sum(n * i * o * (2 + back) for n, i, o, back in work.products(work.rows))
    (model, guide), x = work.pair(), work.data()[: work.rows]
    with FlopCounterMode(display=False) as counter:
        mean, log_variance = guide.encoder(x).chunk(2, -1)
        (model.decoder(mean) + log_variance.sum()).sum().backward()
    assert counter.get_total_flops() == 2 * multiplied
