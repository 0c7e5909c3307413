"""``ppl-vae audit`` prints three verdicts on a guide and draws them; a report holds them, too."""

import json

import numpy as np
import pytest


@pytest.fixture
def run(ppl, tmp_path, monkeypatch):
    """A run of few epochs, and the file of its rows."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save("rows.npy", rows)
    ppl("fit", "gaussian", "normal", "rows.npy", "--set", "latents=2", "--epochs", "2",
        "--run", "runs/a")  # fmt: skip
    return tmp_path / "runs" / "a"


def test_three_verdicts_are_printed_and_drawn(run, ppl):
    result = ppl("audit", "runs/a", "rows.npy", "--gap-rows", "8")
    for words in ("Inference gap of 8 rows", "calibration of the guide", "latents active"):
        assert words in result.out
    assert "3 figures in" in result.out
    figures = sorted(file.name for file in (run / "audit").iterdir())
    assert figures == ["calibration.png", "gap.png", "usage.png"]
    assert all((run / "audit" / name).read_bytes()[1:4] == b"PNG" for name in figures)


def test_json_holds_the_verdicts_and_figures_are_not_replaced_unasked(run, ppl):
    first = ppl("audit", "runs/a", "rows.npy", "--gap-rows", "8", "--json")
    found = json.loads(first.out)
    assert found["gap"]["cause"] in ("family", "encoder", "both", "neither", "unknown")
    assert found["gap"]["rows"] == 8
    assert [line["site"] for line in found["calibration"]["quantities"]][-1] == "log p(x | z)"
    assert set(found["usage"]) == {"active", "collapsed"}
    again = ppl("audit", "runs/a", "rows.npy", "--gap-rows", "8", code=2)
    assert "exists; --force replaces it" in again.err
    elsewhere = ppl("audit", "runs/a", "rows.npy", "--gap-rows", "8", "--out", "figures")
    assert "3 figures in figures" in elsewhere.out


def test_a_verdict_that_the_pair_does_not_allow_says_why(ppl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    ppl("fit", "gaussian", "delta", "rows.npy", "--set", "latents=2", "--epochs", "2",
        "--run", "runs/points")  # fmt: skip
    result = ppl("audit", "runs/points", "rows.npy")
    assert result.out.count("no verdict: ") == 2
    assert 'site "z"' in result.out
    assert "0 figures in" in result.out  # the divergence of a point is not known


def test_the_report_has_the_section(run, ppl):
    ppl("report", "runs/a", "rows.npy", "--audit", "--num-samples", "20", "--replicates", "19")
    page = (run / "report.html").read_text()
    assert "Can the guide be trusted" in page
    assert "Inference gap of 40 rows" in page
    assert "latents active" in page
    refused = ppl("report", "runs/a", "--audit", "--force", code=2)
    assert "--audit: expected DATA" in refused.err
