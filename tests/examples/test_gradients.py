"""The example of gradients compares estimates of one gradient in one figure."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
FILE = Path(__file__).parents[2] / "examples" / "gradients.py"


@pytest.mark.filterwarnings("ignore:fit. the ELBO was still rising")
def test_estimates_are_compared_in_one_figure(tmp_path):
    out, _ = run_script(FILE, "--epochs", 1, "--run", tmp_path / "run", folder=tmp_path)
    assert (tmp_path / "run" / "gradients.png").stat().st_size > 5000
    for word in ("score function", "less a baseline", "reparameterized", "Try next"):
        assert word in out
