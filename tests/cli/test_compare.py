"""``compare``: the numbers and the sentences of the public function, and what it refuses."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import ppl_vae
from ppl_vae.cli.main import app
from ppl_vae.data.files import read_data
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel


@pytest.fixture(scope="module")
def student_run(wine_file, tmp_path_factory):
    """A run of another likelihood on the same wines."""
    run = tmp_path_factory.mktemp("runs") / "student"
    words = ["fit", "student", "normal", wine_file, "--run", run, "--epochs", "3"]
    words += ["--set", "latents=2", "--validation", "0.1", "--quiet"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    return run


def direct(runs, rows, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ppl_vae.compare({run.name: ppl_vae.load(run) for run in runs}, rows, **options)


def test_numbers_and_sentences_are_those_of_the_public_function(
    ppl, wine_run, student_run, wine_file
):
    words = ("compare", wine_run, student_run, wine_file, "--num-samples", "200")
    told = ppl(*words, "--json", "--level", "0.9").json
    found = direct([wine_run, student_run], read_data(wine_file), num_samples=200, level=0.9)
    assert (told["rows"], told["samples"], told["level"]) == (178, 200, 0.9)
    assert told["best"] == found.best
    table = pd.DataFrame(told["pairs"]).set_index("pair")
    pd.testing.assert_frame_equal(table, found.frame, check_dtype=False)
    assert told["runs"] == {"wine": str(wine_run), "student": str(student_run)}
    assert told["sentences"] == found.sentences("--num-samples")
    done = ppl(*words)
    lines = done.out.splitlines()
    assert lines[0] == "178 rows, nats a row"
    first = next(line.split()[0] for line in lines[3:] if line[:1] in "ws")
    assert first == found.frame.index[0]
    assert "warning" not in done.err
    assert ppl(*words, "--quiet").out == ""


def test_the_log_likelihood_of_each_row_is_written(ppl, wine_run, student_run, wine_file):
    words = ("compare", wine_run, student_run, wine_file, "--num-samples", "30")
    ppl(*words, "--out", "rows.csv")
    written = pd.read_csv("rows.csv")
    assert list(written.columns) == ["wine", "student"]
    found = direct([wine_run, student_run], read_data(wine_file), num_samples=30)
    np.testing.assert_allclose(written, found.rows, rtol=1e-5)
    assert "--force" in ppl(*words, "--out", "rows.csv", code=2).err


def test_a_density_beside_a_probability_is_refused(ppl, wine_run, wine_file):
    counts = read_data(wine_file).round()
    counts.to_csv("counts.csv", index=False)
    quick = ("--epochs", "1", "--set", "latents=2", "--quiet")
    ppl("fit", "poisson", "normal", "counts.csv", "--run", "counts", *quick)
    done = ppl("compare", wine_run, "counts", "counts.csv", "--num-samples", "30", code=1)
    assert 'site "x": expected densities in all pairs, or probabilities' in done.err
    assert done.out == ""


def test_runs_of_one_name_are_called_by_their_paths(ppl, wine_run, wine_file, tmp_path):
    shutil.copytree(wine_run, tmp_path / "wine")
    told = ppl("compare", wine_run, "wine", wine_file, "--num-samples", "30", "--json").json
    assert told["runs"] == {str(wine_run): str(wine_run), "wine": "wine"}
    assert told["best"] is None


def test_a_wrong_command_line_exits_with_2(ppl, wine_run, student_run, wine_file):
    assert "expected two runs or more" in ppl("compare", wine_run, wine_file, code=2).err
    assert "each run once" in ppl("compare", wine_run, wine_run, wine_file, code=2).err
    assert "no such run directory" in ppl("compare", wine_run, "none", wine_file, code=2).err
    words = ("compare", wine_run, student_run, wine_file)
    assert "level: expected" in ppl(*words, "--level", "1", code=1).err


def test_runs_of_other_fields_plates_and_sequences_are_refused(ppl, wine_run, wine_file):
    other = {"x": torch.rand(5, 13), "size": torch.rand(5)}
    pair = GaussianModel(13, 2), NormalGuide(13, 2)
    ppl_vae.save(*pair, "fields", data=other)
    ppl_vae.save(*pair, "plate", data=other["x"], plate="rows")
    shutil.copytree(wine_run, "steps")
    with open("steps/sequences.json", "w") as file:
        json.dump({"id": "a", "step": "b", "columns": ["c"]}, file)
    for name, words in {
        "fields": "expected a run with the fields of wine, one table or array, got ['x', 'size']",
        "plate": "expected a run with the plate of wine, data, got rows",
        "steps": "expected a run with the sequences of wine",
    }.items():
        assert words in ppl("compare", wine_run, name, wine_file, code=2).err
