"""A guide without correlations is found out, and a full covariance mends it."""

import re
from pathlib import Path

import pytest
from parts.scripts import run_script

EXAMPLE = Path(__file__).parents[2] / "examples" / "correlated_posterior.py"


@pytest.mark.slow
def test_the_gap_is_the_familys_as_predicted_and_a_full_covariance_closes_it(tmp_path):
    options = "--epochs", 120, "--run", tmp_path / "run"
    out, _ = run_script(EXAMPLE, *options, folder=tmp_path)
    independent = re.search(
        r"^independent latents +(\S+) +(\S+) +(\S+) +family$", out, re.MULTILINE
    )
    assert independent is not None, out
    predicted = float(re.search(r"predicts an approximation gap of (\S+)\.$", out, re.MULTILINE)[1])
    assert float(independent[2]) == pytest.approx(predicted, abs=0.02)
    assert re.search(r"^full covariance +0\.0\S+ .*neither$", out, re.MULTILINE), out
    assert (tmp_path / "run" / "correlated_posterior.png").stat().st_size > 5000
