"""The examples of discrete latents print their tables and draw one figure each."""

from pathlib import Path

import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the examples read its digits and moons
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gumbel_max", ["--draws", 500], ["softmax(logits)", "straight-through: bias"]),
        ("two_moons", ["--epochs", 1], ["2 normals", "2 curves", "Rand index"]),
        ("estimators", ["--epochs", 1, "--draws", 2], ["leave one out", "recommended: "]),
    ],
)
def test_the_table_is_printed_and_one_figure_is_drawn(name, options, words, tmp_path):
    options = *options, "--run", tmp_path / "run"
    out, _ = run_script(EXAMPLES / f"{name}.py", *options, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    for word in [*words, "Try next"]:
        assert word in out
