"""The example of counts runs from start to end, on simulated cells and on a sparse file."""

import re
from pathlib import Path

import numpy as np
import pytest
from parts.extras import sparse
from parts.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "examples" / "cell_counts.py"
pytestmark = pytest.mark.filterwarnings("ignore:compare")  # two epochs fit no guide


def test_the_example_compares_three_likelihoods_and_draws_its_figure(tmp_path):
    counts = np.random.default_rng(0).poisson(2.0, (60, 9)).astype(float)
    sparse().save_npz(tmp_path / "counts.npz", sparse().csr_matrix(counts))
    for words in ([], ["--data", "counts.npz"]):
        out, _ = run_script(SCRIPT, "--epochs", 2, "--genes", 6, *words, folder=tmp_path)
        for name in ("Poisson", "negative binomial", "zero-inflated"):
            assert f"\n{name}\nposterior predictive check" in out
        assert re.search(r"log-likelihood of \d+ rows in nats a row", out)
        assert "6 genes: " in out
        assert (tmp_path / "cell_counts.png").stat().st_size > 5000
        (tmp_path / "cell_counts.png").unlink()
