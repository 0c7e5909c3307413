"""The example of encoders and local fits prints its table and draws one figure."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
FILE = Path(__file__).parents[2] / "examples" / "amortized_or_local.py"


@pytest.mark.filterwarnings("ignore:log_likelihood")
@pytest.mark.filterwarnings("ignore:fit. the ELBO was still rising")
def test_time_and_elbo_of_every_start_are_printed_and_drawn(tmp_path):
    words = ("--epochs", 1, "--steps", 2, 3)
    out, _ = run_script(FILE, *words, "--run", tmp_path / "run", folder=tmp_path)
    assert (tmp_path / "run" / "amortized_or_local.png").stat().st_size > 5000
    assert out.count("encoder of 4 hidden units") == 3
    assert "log-likelihood of the new rows: -" in out
