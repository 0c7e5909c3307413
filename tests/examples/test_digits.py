"""The demo runs from end to end, and says where to look."""

from pathlib import Path

from parts.scripts import run_script

ROOT = Path(__file__).parents[2]


def test_the_demo_draws_its_figures_and_ends_with_what_to_do_next(tmp_path):
    words = "--epochs", 3, "--run", tmp_path / "run"
    out, err = run_script(ROOT / "examples" / "digits.py", *words, folder=tmp_path)
    figures = {path.stem for path in (tmp_path / "run").glob("*.png")}
    assert figures >= {"learning_curves", "reconstructions", "samples", "latent_map"}
    assert all(path.stat().st_size > 5000 for path in (tmp_path / "run").glob("*.png"))
    assert "Best held-out ELBO: -" in out
    assert "nats per row" in out
    assert "Try next" in out
    assert "held-out ELBO" in err  # the progress bar
