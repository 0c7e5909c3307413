"""The examples of autoencoders print their tables and draw one figure each."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the examples read its digits
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("autoencoder", ["Autoencoder", "Variational autoencoder", "sample to digit"]),
        ("denoising_digits", ["half of the pixels hidden", "noise", "denoising guide"]),
        ("digit_codes", ["PCA", "variational", "right labels"]),
        ("point_encoder_ensemble", ["exact posterior", "5 points", "KL divergence"]),
    ],
)
def test_ways_are_compared_in_one_figure(name, words, tmp_path):
    options = "--epochs", 1, "--run", tmp_path / "run"
    out, _ = run_script(EXAMPLES / f"{name}.py", *options, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    for word in [*words, "Try next"]:
        assert word in out
