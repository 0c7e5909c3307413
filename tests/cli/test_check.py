"""``check``: the table of ``predictive_check``, its words, and exit codes."""

import pandas as pd
import pytest

import ppl_vae
from ppl_vae.data.files import read_data

OWN = """
def spread(x):
    return x.std(0)

def distance(x, latents):
    return (x.mean(-1) - latents["z"].mean(-1)).square().mean()

number = 3
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_the_table_is_that_of_predictive_check(ppl, wine_run, wine_file):
    told = ppl("check", wine_run, wine_file, "--num-samples", "30", "--json").json
    check = ppl_vae.predictive_check(*ppl_vae.load(wine_run), read_data(wine_file), num_samples=30)
    assert (told["rows"], told["samples"], told["prior"]) == (178, 30, False)
    assert told["flagged"] == check.frame["flagged"].sum() > 0
    lines = pd.DataFrame(told["statistics"]).set_index(["site", "statistic"])
    pd.testing.assert_frame_equal(lines, check.frame, check_dtype=False)


def test_flagged_statistics_are_printed_first_and_explained(ppl, wine_run, wine_file):
    shown = ppl("check", wine_run, wine_file, "--num-samples", "30").out
    lines = shown.splitlines()
    assert lines[0] == "posterior predictive check: 178 rows, 30 replicates"
    marks = [line for line in lines if " ── " not in line and "0." in line]
    assert "FLAGGED" in marks[0]
    assert "Latents were drawn given these very rows, also where the pair was not fitted" in shown
    prior = ppl("check", wine_run, wine_file, "--num-samples", "30", "--prior").out
    assert prior.startswith("prior predictive check")
    assert "has seen" not in prior


def test_a_flag_changes_the_exit_code_only_with_strict(ppl, wine_run, wine_file):
    ppl("check", wine_run, wine_file, "--num-samples", "30", "--quiet")
    ppl("check", wine_run, wine_file, "--num-samples", "30", "--quiet", "--strict", code=1)


def test_a_users_own_statistic_is_checked(ppl, wine_run, wine_file, own):
    words = "--statistics", f"{own}:spread", "--statistics", f"{own}:distance"
    told = ppl("check", wine_run, wine_file, "--num-samples", "20", "--json", *words).json
    mine = {line["statistic"]: line for line in told["statistics"] if line["site"] == "(own)"}
    assert set(mine) == {"spread", "distance"}
    assert mine["spread"]["feature"] in read_data(wine_file).columns
    assert len(told["statistics"]) == 14


def test_out_has_a_line_for_each_feature(ppl, wine_run, wine_file, tmp_path):
    out = tmp_path / "features.csv"
    ppl("check", wine_run, wine_file, "--num-samples", "20", "--out", out)
    written = pd.read_csv(out)
    assert len(written) == 11 * 13 + 13 * 12 / 2
    ppl("check", wine_run, wine_file, "--num-samples", "20", "--out", out, code=2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("spread", 'expected "file.py:name"'),
        ("own.py:spred", "did you mean spread?"),
        ("own.py:number", 'no function "number"'),
        ("none.py:spread", "no such file"),
    ],
)
def test_a_bad_statistic_is_one_message(ppl, wine_run, wine_file, own, spec, message):
    shown = ppl("check", wine_run, wine_file, "--statistics", spec, code=2)
    assert message in shown.err
