"""The example of topics runs from start to end, on documents made here and on a folder."""

from pathlib import Path

import numpy as np
from parts.extras import sparse
from parts.scripts import run_script

SCRIPT = Path(__file__).parents[2] / "examples" / "topics.py"


def test_the_example_prints_the_topics_of_both_decoders_and_draws_its_figure(tmp_path):
    counts = np.random.default_rng(0).poisson(0.5, (60, 12))
    sparse().save_npz(tmp_path / "train_bow.npz", sparse().csr_matrix(counts))
    (tmp_path / "vocab.txt").write_text("\n".join(f"word{i}" for i in range(12)))
    for words, size in (([], "6 topics"), (["--data", ".", "--topics", 3], "3 topics")):
        out, _ = run_script(SCRIPT, "--epochs", 1, *words, folder=tmp_path)
        assert size in out
        for line in ("mixture: ELBO", "product: ELBO", "Look at topics.png", "Try next"):
            assert line in out
        assert (tmp_path / "topics.png").stat().st_size > 5000
        (tmp_path / "topics.png").unlink()
