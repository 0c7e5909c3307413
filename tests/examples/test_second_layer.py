"""The example of a second layer prints both log-likelihoods and draws one figure."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
FILE = Path(__file__).parents[2] / "examples" / "second_layer.py"


@pytest.mark.filterwarnings("ignore:fit. the ELBO was still rising")
def test_one_layer_and_two_are_compared_in_one_figure(tmp_path):
    out, _ = run_script(FILE, "--epochs", 1, "--run", tmp_path / "run", folder=tmp_path)
    assert (tmp_path / "run" / "second_layer.png").stat().st_size > 5000
    assert {"one layer", "two layers"} <= {line[:10].strip() for line in out.splitlines()}
    assert "nats per image" in out
    assert "Try next" in out
