"""In the example of probabilistic PCA, three ways to fit give the same log-likelihood."""

from pathlib import Path

from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits or wines
ROOT = Path(__file__).parents[2]


def test_three_ways_agree_and_the_figure_is_drawn(tmp_path):
    words = "--epochs", 200, "--run", tmp_path / "run"
    out, _ = run_script(ROOT / "examples" / "ppca.py", *words, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    lines = [line for line in out.splitlines() if " by " in line]
    held_out = [float(line.split()[-4 if line.startswith("PPCA") else -3]) for line in lines]
    exact, descent, svi, deep = held_out
    assert abs(exact - descent) < 0.02
    assert abs(exact - svi) < 0.05
    assert deep < 0
    assert "nats per wine" in out
    assert "Look at" in out
    assert "Try next" in out
