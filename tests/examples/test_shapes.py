"""The example of shapes prints both tables, draws one figure, and renders what factors say."""

import runpy
from pathlib import Path

import torch
from parts.extras import sparse
from parts.scripts import run_script

sparse()  # the example takes Student's t from scipy
FILE = Path(__file__).parents[2] / "examples" / "shapes.py"


def test_pairs_of_two_weights_are_scored(tmp_path):
    options = "--seeds", 1, "--epochs", 1, "--run", tmp_path / "run"
    out, _ = run_script(FILE, *options, folder=tmp_path)
    assert (tmp_path / "run" / "shapes.png").stat().st_size > 5000
    for words in ("beta = 1 ", "beta = 4 ", "mig", "Difference from beta = 1", "Try next"):
        assert words in out


def test_every_factor_changes_the_images():
    shapes = runpy.run_path(str(FILE))
    factors = shapes["drawn_factors"]().head(20)
    images = shapes["rendered"](factors)
    assert images.shape == (20, 144)
    assert 0 <= images.min() < images.max() <= 1
    for name in factors:
        moved = shapes["rendered"](factors.assign(**{name: factors[name] + 0.05}))
        assert ((moved - images).abs().amax(1) > 0.01).all(), name
    brighter = shapes["rendered"](factors.assign(brightness=2 * factors["brightness"]))
    assert torch.allclose(brighter, 2 * images)
