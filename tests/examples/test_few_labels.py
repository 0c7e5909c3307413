"""The example of few labels compares two classifiers and draws how reliable they are."""

from pathlib import Path

from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
EXAMPLE = Path(__file__).parents[2] / "examples" / "few_labels.py"


def test_both_classifiers_are_scored_and_drawn(tmp_path):
    out, _ = run_script(EXAMPLE, "--epochs", 2, "--run", tmp_path / "run", folder=tmp_path)
    for word in ("labelled digits alone", "with the others", "Brier score", "Try next"):
        assert word in out
    assert (tmp_path / "run" / "few_labels.png").stat().st_size > 5000
