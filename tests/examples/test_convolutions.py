"""The example of convolutions prints both decoders' log-likelihoods and draws one figure."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore:fit. the ELBO was still rising")
def test_both_decoders_are_compared_in_one_figure(tmp_path):
    words = "--epochs", 1, "--run", tmp_path / "run"
    out, _ = run_script(ROOT / "examples" / "convolutions.py", *words, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    assert {line.split()[0] for line in out.splitlines() if line} >= {"dense", "convolutional"}
    assert "nats per image" in out
    assert "Try next" in out
