"""The example of styles says what both codes hold, and draws one figure; from a file, too."""

from pathlib import Path

import numpy as np
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
FILE = Path(__file__).parents[2] / "examples" / "digit_styles.py"


def test_styles_of_digits_are_decoded_under_all_labels(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (600, 6, 6), dtype=np.uint8)
    labels = np.arange(600, dtype=np.uint8) % 10
    np.savez(tmp_path / "images.npz", x_train=images, y_train=labels)
    words = "--epochs", 1, "--run", tmp_path / "run", "--data", tmp_path / "images.npz"
    out, _ = run_script(FILE, *words, folder=tmp_path)
    assert (tmp_path / "run" / "digit_styles.png").stat().st_size > 5000
    for words in (
        "of images alone tells",
        "given the label tells",
        "that was asked for",
        "Look at",
    ):
        assert words in out
