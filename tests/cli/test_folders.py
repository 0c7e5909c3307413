"""Folders of data files: each file is data of its own, shared by parts, and never made twice."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parts.extras import load_wine, needs_pyarrow

from ppl_vae.cli.folders import SETTINGS

VERBS = {
    "evaluate": ("--num-samples", 100),
    "encode": ("--num-samples", 3),
    "score": ("--calibrate", "clean.csv", "--num-samples", 50),
}


def write_folder(names=("a", "b", "c", "d"), rows=6):
    """A folder ``data`` of CSV files, and beside it clean rows that no fit has seen."""
    wine = load_wine(as_frame=True).data
    Path("data").mkdir()
    for number, name in enumerate(names):
        part = wine.iloc[rows * number : rows * (number + 1)]
        part.to_csv(f"data/{name}.csv", index=False)
    noise = np.random.default_rng(0).normal(size=wine.shape) * wine.std().to_numpy() / 10
    (wine + noise).to_csv("clean.csv", index=False)


def results(folder="out"):
    """The bytes of the files in a folder of results, by name."""
    names = sorted(name for name in os.listdir(folder) if name != SETTINGS)
    return {name: Path(folder, name).read_bytes() for name in names}


@pytest.mark.parametrize("verb", VERBS)
def test_each_file_has_the_results_that_it_has_alone(verb, ppl, wine_run):
    write_folder(["a", "b"])
    told = ppl(verb, wine_run, "data", "--out", "out", *VERBS[verb])
    assert "2 of 2 files have results in out" in told.out
    for name in ("a", "b"):
        ppl(verb, wine_run, f"data/{name}.csv", "--out", f"{name}.csv", *VERBS[verb])
        assert results()[f"{name}.csv"] == Path(f"{name}.csv").read_bytes()
    assert list(results()) == ["a.csv", "b.csv"]


def test_parts_share_the_files_and_together_make_all(ppl, wine_run):
    write_folder()
    ppl("encode", wine_run, "data", "--out", "whole")
    made = []
    for part in ("2/3", "3/3", "1/3"):
        before = set(results()) if made else set()
        ppl("encode", wine_run, "data", "--out", "out", "--part", part)
        made.append(set(results()) - before)
    assert made == [{"b.csv"}, {"c.csv"}, {"a.csv", "d.csv"}]
    assert results() == results("whole")


def test_results_that_are_there_are_kept_and_those_of_changed_data_made_anew(ppl, wine_run):
    write_folder(["a", "b"])
    words = "encode", wine_run, "data", "--out", "out"
    ppl(*words)
    right = results()
    for name in right:
        Path("out", name).write_text("kept")
    assert "2 of 2 files" in ppl(*words).out
    assert set(results().values()) == {b"kept"}
    later = os.stat("out/b.csv").st_mtime + 10
    os.utime("data/b.csv", (later, later))
    ppl(*words)
    assert results() == {"a.csv": b"kept", "b.csv": right["b.csv"]}
    ppl(*words, "--force")
    assert results() == right


def test_results_of_another_run_or_of_other_settings_are_never_mixed(ppl, wine_run, tmp_path):
    write_folder(["a", "b"])
    ppl("evaluate", wine_run, "data", "--out", "out", "--num-samples", 50, "--part", "1/2")
    before = results()
    for words, message in {
        ("--num-samples", 60): "got those of num_samples 50",
        ("--num-samples", 50, "--seed", 1): "got those of seed 0",
        ("--num-samples", 50, "--drop", "ash"): "got those of drop None",
    }.items():
        for more in ((), ("--force",)):
            told = ppl("evaluate", wine_run, "data", "--out", "out", *words, *more, code=2)
            assert message in told.err
            assert "give another folder, or delete this one" in told.err
    assert (
        "got those of command evaluate"
        in ppl("encode", wine_run, "data", "--out", "out", code=2).err
    )
    ppl("fit", "gaussian", "normal", "clean.csv", "--run", "other", "--epochs", 1)
    told = ppl("evaluate", "other", "data", "--out", "out", "--num-samples", 50, code=2)
    assert "got those of other weights" in told.err
    assert results() == before


def test_scores_of_another_detector_are_never_mixed(ppl, wine_run):
    write_folder(["a"])
    words = "score", wine_run, "data", "--out", "out", "--num-samples", 50, "--calibrate"
    ppl(*words, "clean.csv")
    pd.read_csv("clean.csv").iloc[:100].to_csv("fewer.csv", index=False)
    assert "got those of other calibrate" in ppl(*words, "fewer.csv", code=2).err
    assert "false_alarm_rate" in ppl(*words, "clean.csv", "--false-alarm-rate", 0.1, code=2).err


def test_a_damaged_file_is_named_and_the_others_stay(ppl, wine_run):
    write_folder(["a", "b", "c"])
    whole = Path("data/b.csv").read_text()
    Path("data/b.csv").write_text(whole[:300] + "\n1,2\n")
    words = "encode", wine_run, "data", "--out", "out"
    assert "data/b.csv" in ppl(*words, code=1).err
    assert list(results()) == ["a.csv"]
    Path("data/b.csv").write_text(whole)
    ppl(*words)
    assert list(results()) == ["a.csv", "b.csv", "c.csv"]


def test_columns_are_found_by_name_in_every_file(ppl, wine_run):
    write_folder(["a", "b"])
    ppl("encode", wine_run, "data", "--out", "right")
    table = pd.read_csv("data/b.csv")
    table[sorted(table)].to_csv("data/b.csv", index=False)
    ppl("encode", wine_run, "data", "--out", "out")
    assert results() == results("right")
    table.drop(columns="ash").to_csv("data/b.csv", index=False)
    told = ppl("encode", wine_run, "data", "--out", "other", code=1)
    assert "data/b.csv" in told.err
    assert "ash" in told.err


@needs_pyarrow
def test_parquet_has_parquet_and_arrays_have_tables(ppl, wine_run):
    wine = load_wine(as_frame=True).data
    for folder, write in {
        "parquet": lambda path: wine[:5].to_parquet(f"{path}.parquet"),
        "arrays": lambda path: np.save(path, wine[:5].to_numpy()),
    }.items():
        Path(folder).mkdir()
        write(f"{folder}/rows")
        Path(folder, "_SUCCESS").touch()
        ppl("encode", wine_run, folder, "--out", f"out of {folder}")
    assert list(results("out of parquet")) == ["rows.parquet"]
    assert list(results("out of arrays")) == ["rows.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data/a.csv", "--out", "x.csv", "--part", "1/2"],
            "--part 1/2: expected a folder of files",
        ),
        (["data", "--out", "out", "--part", "3/2"], "--part 3/2: expected a number and how many"),
        (["data", "--out", "out", "--part", "0/2"], "--part 0/2: expected a number and how many"),
        (["data", "--out", "out", "--part", "half"], "--part half: expected a number and how many"),
        (["data"], "--out: expected a folder for the results of data"),
        (["data", "--out", "clean.csv"], "--out clean.csv: expected a folder"),
        (["data", "--out", "data"], "--out data: expected another folder than that of the data"),
        (["empty", "--out", "out"], "empty: expected data files, got an empty folder"),
        (["mixed", "--out", "out"], "mixed/b.tsv: expected a file as a.csv, of the same ending"),
        (["notes", "--out", "out"], "notes/read.me: expected a data file"),
    ],
)
def test_wrong_folders_and_parts_are_refused_before_any_work(words, message, ppl, wine_run):
    write_folder(["a"])
    for folder, names in {"empty": [], "mixed": ["a.csv", "b.tsv"], "notes": ["read.me"]}.items():
        Path(folder).mkdir()
        for name in names:
            Path(folder, name).touch()
    assert message in ppl("encode", wine_run, *words, code=2).err
    assert not Path("out").exists()


@needs_pyarrow
def test_a_folder_of_parquet_files_is_fitted_and_answered_as_one_table(ppl, tmp_path):
    wine = load_wine(as_frame=True).data
    Path("rows").mkdir()
    for number, part in enumerate((wine.iloc[:90], wine.iloc[90:])):
        part.assign(cellar="north").to_parquet(f"rows/{number}.parquet", index=False)
    wine.to_csv("wine.csv", index=False)
    pair = "gaussian", "normal"
    how = "--set", "latents=2", "--epochs", 2
    ppl("fit", *pair, "rows", "--drop", "cellar", *how, "--run", "runs/folder")
    ppl("fit", *pair, "wine.csv", *how, "--run", "runs/file")
    pd.testing.assert_frame_equal(read_metrics("runs/folder"), read_metrics("runs/file"))
    found = [ppl("check", f"runs/{run}", data, "--json", "--num-samples", 20).out
             for run, data in (("folder", "rows"), ("file", "wine.csv"))]  # fmt: skip
    checks = [json.loads(text)["statistics"] for text in found]
    assert checks[0] == checks[1]
    ppl("report", "runs/folder", "rows", "--out", "report.html")
    Path("held").mkdir()
    wine[::3].assign(cellar="south").to_parquet("held/0.parquet", index=False)
    ppl(
        "fit", *pair, "rows", "--drop", "cellar", *how, "--run", "runs/held", "--validation", "held"
    )
    ppl("score", "runs/held", "rows", "--calibrate", "held", "--out", "scores", "--num-samples", 20)
    assert len(list(Path("scores").glob("*.parquet"))) == 2


def read_metrics(run):
    return pd.read_csv(Path(run, "metrics.csv")).drop(columns="seconds")


@needs_pyarrow
def test_shuffle_mixes_a_folder_and_refuses_one_that_is_there(ppl):
    Path("rows").mkdir()
    pd.DataFrame({"n": range(1000)}).to_parquet("rows/a.parquet")
    assert "1,000 rows in 1 files in mixed" in ppl("shuffle", "rows", "--out", "mixed").out
    values = pd.read_parquet("mixed")["n"]
    assert sorted(values) == list(range(1000)) != list(values)
    assert "mixed: expected a new folder" in ppl("shuffle", "rows", "--out", "mixed", code=1).err
