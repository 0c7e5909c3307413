"""``report``: the page, its place, and exit codes."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from parts.runs import users_class

import ppl_vae
from ppl_vae import AnomalyDetector, load, save

FEW = ("--num-samples", "30", "--replicates", "20")


def test_the_report_is_written_into_the_run_directory(ppl, own_run, wine_file):
    done = ppl("report", own_run, wine_file, *FEW)
    assert done.out == f"report in {own_run / 'report.html'}\n"
    assert done.err == ""
    text = (own_run / "report.html").read_text()
    assert "GaussianModel with NormalGuide" in text
    assert "160 that the pair was fitted to, and 18 held out" in text
    assert "30 draws from the guide" in text
    assert "20 replicated data sets" in text


def test_json_names_the_file_and_its_size(ppl, own_run, wine_file):
    words = ("report", own_run, wine_file, *FEW, "--out", "here.html", "--json")
    told = ppl(*words).json
    assert told == {
        "run": str(own_run), "data": str(wine_file), "out": "here.html",
        "bytes": Path("here.html").stat().st_size,
    }  # fmt: skip
    assert not (own_run / "report.html").exists()


def test_a_weights_file_stands_for_its_run_and_the_seed_reaches_the_report(ppl, own_run, wine_file):
    ppl("report", own_run / "snapshot.safetensors", wine_file, *FEW, "--seed", "7", "--quiet")
    assert "<dt>report&#39;s seed</dt><dd>7</dd>" in (own_run / "report.html").read_text()


def test_an_existing_report_is_replaced_only_with_force(ppl, own_run):
    file = own_run / "report.html"
    file.write_text("years of work")
    assert "exists; --force replaces it" in ppl("report", own_run, code=2).err
    assert file.read_text() == "years of work"
    ppl("report", own_run, "--force")
    assert "What was fitted" in file.read_text()


def test_quiet_prints_nothing(ppl, own_run):
    done = ppl("report", own_run, "--quiet")
    assert (done.out, done.err) == ("", "")


@pytest.fixture
def trusted(tmp_path):
    """A run made from a user's file, the flag that executing the file leaves, and the data."""
    flag = tmp_path / "executed"
    x = torch.ones(20, 3)
    model = users_class(tmp_path / "mine.py", flag)(3)
    ppl_vae.fit(model, None, x, epochs=1, run=tmp_path / "mine", progress=False)
    flag.unlink()
    return tmp_path / "mine", flag, x


def test_without_data_no_code_of_the_run_is_executed(ppl, trusted):
    run, flag, _ = trusted
    shown = ppl("report", run).out
    assert "DATA --force" in shown
    assert not flag.exists()
    text = (run / "report.html").read_text()
    assert "class Mine(PyroModule)" in text
    assert "Nothing was measured" in text


def test_a_users_code_runs_only_if_trusted(ppl, trusted):
    import numpy as np

    run, flag, x = trusted
    np.save("x.npy", x.numpy())
    assert "--trust-code" in ppl("report", run, "x.npy", code=1).err
    assert not flag.exists()
    assert not (run / "report.html").exists()
    ppl("report", run, "x.npy", "--trust-code", *FEW)
    assert flag.exists()
    assert "there is no guide" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--out", "x.csv"], "expected a .html file, got .csv"),
     (["--out", "away/x.html"], "a folder that exists"),
     (["none.csv"], "no such file"),
     (["--replicates", "0"], "--replicates")],
    ids=str,
)  # fmt: skip
def test_a_wrong_command_line_exits_with_2(ppl, own_run, words, message):
    done = ppl("report", own_run, *words, code=2)
    assert message in done.err
    assert not (own_run / "report.html").exists()


def test_a_missing_or_damaged_run_is_one_message(ppl, own_run):
    assert "no such run directory" in ppl("report", "runs/none", code=2).err
    shutil.rmtree(own_run / "source")
    assert "cannot be read" in ppl("report", own_run, code=1).err


def test_a_detector_of_the_run_judges_the_rows_but_not_those_of_a_snapshot(ppl, own_run, wine_file):
    ppl("report", own_run, wine_file, *FEW, "--quiet")
    assert "there is no detector" in (own_run / "report.html").read_text()
    (pd.read_csv(wine_file) + 0.01).to_csv("clean.csv", index=False)
    words = ("score", own_run, wine_file, "--calibrate", "clean.csv", "--num-samples", "30")
    ppl(*words, "--keep-detector", "--out", "scores.csv", "--quiet")
    ppl("report", own_run, wine_file, *FEW, "--quiet", "--force")
    assert "judges each row by 178 clean rows" in (own_run / "report.html").read_text()
    ppl("report", own_run / "snapshot.safetensors", wine_file, *FEW, "--quiet", "--force")
    assert "there is no detector" in (own_run / "report.html").read_text()


def test_a_detector_that_cannot_be_used_is_left_out_and_told_of(ppl, own_run, wine_file):
    model, guide = load(own_run)
    detector = AnomalyDetector(model, guide, pd.read_csv(wine_file), num_samples=30)
    detector.save(own_run)
    stale = (own_run / "detector.safetensors").read_bytes()
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    save(model, guide, "changed", data=pd.read_csv(wine_file))
    for content, why in ((stale, "holds other weights"), (b"", "damaged")):
        Path("changed/detector.safetensors").write_bytes(content)
        done = ppl("report", "changed", wine_file, *FEW, "--force")
        (line,) = [line for line in done.err.splitlines() if why in line]
        assert line.startswith("warning: the report does without the run's detector: ")
        assert ("score --keep-detector --force replaces" in line) == (content == stale)
        assert "there is no detector" in Path("changed/report.html").read_text()


def test_single_rows_are_left_out_on_demand(ppl, own_run, wine_file):
    ppl("report", own_run, wine_file, *FEW, "--quiet", "--no-rows")
    assert "Single rows were left out" in (own_run / "report.html").read_text()


def test_rows_that_are_vectors_are_shown_as_images(ppl, own_run, wine_file):
    ppl("report", own_run, wine_file, *FEW, "--image-shape", "1,13", "--quiet", "--force")
    page = (own_run / "report.html").read_text()
    assert 'alt="reconstructions 8"' in page
    refused = ppl("report", own_run, wine_file, "--image-shape", "13", "--force", code=2).err
    assert "--image-shape 13: expected HEIGHT,WIDTH" in refused
    refused = ppl("report", own_run, wine_file, "--image-shape", "5,5", "--force", code=1).err
    assert "shape of an image in the data" in refused
