"""Sequences from files: what is read, what a run remembers, and what the commands make of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ppl_vae


def frame_of(count, seed=0):
    """Lines of machines of which each has a level of its own, in a frame of four columns."""
    random = np.random.default_rng(seed)
    parts = [
        pd.DataFrame(random.normal(n % 3, 1, (3 + n % 4, 2)), columns=["load", "heat"]).assign(
            t=np.arange(3 + n % 4), machine=f"m{n}"
        )
        for n in range(count)
    ]
    return pd.concat(parts)


OPTIONS = ("--id", "machine", "--step", "t")
FEW = ("--num-samples", "20")
PAIR = ("state_space", "smoothing")
FIT = (*PAIR, "log.csv", *OPTIONS, "--epochs", "2", "--set", "latents=2", "--run", "run", "-q")


@pytest.fixture
def log(ppl):
    """The frame of 30 machines, in log.csv of the folder of the command."""
    frame = frame_of(30)
    frame.to_csv("log.csv", index=False)
    return frame


def test_lines_and_lists_of_the_same_numbers_are_the_same_sequences(log):
    lines = ppl_vae.read_data("log.csv", index="machine", step="t")
    log.to_parquet("log.parquet")
    lists = log.groupby("machine", sort=False)[["load", "heat"]].agg(list).reset_index()
    lists.to_parquet("lists.parquet")
    for other in (
        ppl_vae.read_data("log.parquet", index="machine", step="t"),
        ppl_vae.read_data("lists.parquet", index="machine"),
        ppl_vae.sequences(log, id="machine", step="t"),
    ):
        np.testing.assert_allclose(other["x"], lines["x"], rtol=1e-6)
        assert other["lengths"].to_dict() == lines["lengths"].to_dict()
    shorter = ppl_vae.read_data("lists.parquet", index="machine", like=lines)
    assert shorter["x"].shape == lines["x"].shape
    cells = pd.DataFrame({"roll": [[[0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]})
    cells.to_parquet("rolls.parquet")
    assert ppl_vae.read_data("rolls.parquet")["x"].tolist() == [[[0, 1], [0, 0]], [[1, 1], [0, 0]]]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"index": "machine", "step": "tt"}, "step: expected a column of .*did you mean t"),
        ({"index": "machine", "step": "t", "drop": "t"}, "step: expected a column that no other"),
        (
            {"index": "machine", "step": "t", "fields": {"a": "load"}},
            "fields: expected none beside",
        ),
        ({"step": "t"}, "step: expected a column beside index"),
        ({"index": "machine", "step": "load"}, "step: sequence 'm0': expected whole numbers"),
    ],
)
def test_a_wrong_choice_of_columns_is_refused_by_name(log, choice, message):
    with pytest.raises(ValueError, match=message):
        ppl_vae.read_data("log.csv", **choice)


def test_a_file_may_be_padded_to_other_steps_than_the_run(log):
    like = ppl_vae.read_data("log.csv", index="machine", step="t")
    arrays = {"lengths": np.array([2, 9]), "seen": np.ones((2, 9, 2), bool)}
    np.savez("long.npz", x=np.zeros((2, 9, 2)), **arrays)
    assert ppl_vae.read_data("long.npz", like)["x"].shape == (2, 9, 2)
    np.savez("wide.npz", x=np.zeros((2, 9, 3)), **arrays)
    with pytest.raises(ValueError, match="expected rows of shape"):
        ppl_vae.read_data("wide.npz", like)


@pytest.mark.filterwarnings("ignore:log_likelihood. k-hat")
def test_a_run_remembers_the_columns_of_its_sequences(ppl, log):
    assert ppl("lint", *PAIR, "log.csv", *OPTIONS, "--json").json["ok"]
    ppl("fit", *FIT, "--validation", "log.csv")
    assert json.loads(Path("run/sequences.json").read_text())["columns"] == ["load", "heat"]
    log[["heat", "t", "load", "machine"]].assign(note="none").to_csv("other.csv", index=False)
    lists = log.groupby("machine", sort=False)[["heat", "load"]].agg(list).reset_index()
    lists.to_parquet("lists.parquet")
    files = ("log.csv", "other.csv", "lists.parquet")
    told = [ppl("evaluate", "run", file, *FEW, "--json").json["elbo"] for file in files]
    assert told[0] == told[1] == told[2]
    ppl("check", "run", "other.csv", *FEW, "--quiet")
    ppl("encode", "run", "other.csv", "--out", "codes.csv", "--quiet")
    assert pd.read_csv("codes.csv")["machine"].tolist() == [f"m{n}" for n in range(30)]


def test_new_sequences_are_lines_that_the_run_reads(ppl, log):
    ppl("fit", *FIT)
    ppl("generate", "run", "--like", "log.csv", "--num-samples", "5", "--out", "new.csv", "-q")
    new = pd.read_csv("new.csv")
    assert list(new.columns) == ["machine", "t", "load", "heat"]
    assert set(new["machine"]) == set(range(5))
    ppl("evaluate", "run", "new.csv", *FEW, "--quiet")
    assert "give --like DATA" in ppl("generate", "run", code=2).err


def test_scores_of_sequences_have_their_labels(ppl, log):
    ppl("fit", *FIT)
    frame_of(60, seed=1).to_csv("clean.csv", index=False)
    words = ("score", "run", "log.csv", "--calibrate", "clean.csv", *FEW, "--out", "scores.csv")
    ppl(*words, "--quiet")
    assert pd.read_csv("scores.csv")["machine"].tolist() == [f"m{n}" for n in range(30)]
    assert "--keep, --explain" in ppl(*words, "--force", "--keep", "t", code=2).err


def test_a_damaged_list_of_columns_is_named(ppl, log):
    ppl("fit", *FIT)
    Path("run/sequences.json").write_text("{}")
    assert "sequences.json: damaged" in ppl("evaluate", "run", "log.csv", code=1).err
