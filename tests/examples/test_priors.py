"""The examples of priors print their tables and draw one figure each."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the examples read its digits
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clustered_prior", ["standard normal", "mixture", "Adjusted Rand index"]),
        ("vampprior", ["Standard normal", "VampPrior", "nats per image"]),
        ("sparse_features", ["sparse model", "principal components"]),
    ],
)
def test_two_models_are_compared_in_one_figure(name, words, tmp_path):
    options = "--epochs", 1, "--run", tmp_path / "run"
    out, _ = run_script(EXAMPLES / f"{name}.py", *options, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    for word in [*words, "Try next"]:
        assert word in out
