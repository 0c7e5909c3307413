"""The example of a codebook prints what codes take and draws one figure, of digits or of a file."""

from pathlib import Path

import numpy as np
import pytest
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its digits
FILE = Path(__file__).parents[2] / "examples" / "codebook.py"


@pytest.mark.filterwarnings("ignore:fit. the .* still rising")
@pytest.mark.parametrize("of_file", [False, True], ids=["digits", "file"])
def test_codes_are_counted_and_drawn_in_one_figure(of_file, tmp_path):
    words = ["--epochs", 1, "--run", tmp_path / "run"]
    if of_file:
        grey = np.random.default_rng(0).integers(0, 256, (364, 28, 28), np.uint8)
        np.savez(tmp_path / "images.npz", x_train=grey)
        words += ["--data", tmp_path / "images.npz"]
    out, _ = run_script(FILE, *words, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    codes, positions = ("64", "49") if of_file else ("32", "16")
    assert f"of {codes} codes are in use, {positions} of them in an image" in out
    assert "nats" in out
    assert "Try next" in out
