"""The example of digits without labels compares clusters in several ways, and draws them."""

from pathlib import Path

from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_without_labels.py"


def test_clusters_are_compared_and_drawn(tmp_path):
    words = "--epochs", 2, 1, "--run", tmp_path / "run"
    out, _ = run_script(EXAMPLE, *words, folder=tmp_path)
    for word in ("deep mixture", "k-means", "principal components", "Try next"):
        assert word in out
    assert (tmp_path / "run" / "digits_without_labels.png").stat().st_size > 5000
