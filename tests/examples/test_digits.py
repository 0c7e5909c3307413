"""The demo runs from start to end, draws its figures and names them."""

from pathlib import Path

from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits or wines
ROOT = Path(__file__).parents[2]


def test_the_demo_draws_its_figures_and_names_the_next_step(tmp_path):
    words = "--epochs", 3, "--run", tmp_path / "run"
    out, err = run_script(ROOT / "examples" / "digits.py", *words, folder=tmp_path)
    figures = {path.stem for path in (tmp_path / "run").glob("*.png")}
    assert figures >= {"learning_curves", "reconstructions", "samples", "latent_map"}
    assert all(path.stat().st_size > 5000 for path in (tmp_path / "run").glob("*.png"))
    assert "Held-out ELBO: -" in out
    assert "nats per row" in out
    assert "Try next" in out
    assert not err  # a pipe gets no progress bar
