"""The demo runs from start to end, draws its figures and names them."""

import os
import subprocess
import sys
from pathlib import Path

from parts.extras import sklearn

sklearn("datasets")  # the example reads its digits or wines
ROOT = Path(__file__).parents[2]


def test_the_demo_draws_its_figures_and_names_the_next_step(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "digits.py"), "--epochs", "3"]
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = {path.stem for path in (tmp_path / "run").glob("*.png")}
    assert figures >= {"learning_curves", "reconstructions", "samples", "latent_map"}
    assert all(path.stat().st_size > 5000 for path in (tmp_path / "run").glob("*.png"))
    assert "Best held-out ELBO: -" in done.stdout
    assert "nats per row" in done.stdout
    assert "Try next" in done.stdout
    assert "held-out ELBO" in done.stderr  # the progress bar
