"""In the example of probabilistic PCA, three ways to fit give the same log-likelihood."""

import os
import subprocess
import sys
from pathlib import Path

from parts.extras import sklearn

sklearn("datasets")  # the example reads its digits or wines
ROOT = Path(__file__).parents[2]


def test_three_ways_agree_and_the_figure_is_drawn(tmp_path):
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "ppca.py")]
    done = subprocess.run(
        [*command, "--epochs", "200", "--run", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    lines = [line for line in done.stdout.splitlines() if " by " in line]
    held_out = [float(line.split()[-4 if line.startswith("PPCA") else -3]) for line in lines]
    exact, descent, svi, deep = held_out
    assert abs(exact - descent) < 0.02
    assert abs(exact - svi) < 0.05
    assert deep < 0
    assert "nats per wine" in done.stdout
    assert "Look at" in done.stdout
    assert "Try next" in done.stdout
