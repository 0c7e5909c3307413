"""In the example of pixels, every likelihood gives the 256 levels probabilities that sum to 1."""

import runpy
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from parts.extras import sklearn
from parts.scripts import run_script

sklearn("datasets")  # the example reads its photographs
FILE = Path(__file__).parents[2] / "examples" / "pixel_likelihoods.py"


def test_four_likelihoods_are_compared_in_one_figure(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5500, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x_train=images)
    words = "--epochs", 1, "--run", tmp_path / "run", "--data", tmp_path / "images.npz"
    out, _ = run_script(FILE, *words, folder=tmp_path)
    (figure,) = (tmp_path / "run").glob("*.png")
    assert figure.stat().st_size > 5000
    lines = [line.split() for line in out.splitlines() if "ogistic" in line or "ussian" in line]
    assert len(lines) == 3
    assert "continuous Bernoulli" in out
    assert "bits per pixel" in out
    assert "Try next" in out


@pytest.mark.parametrize("kind", ["Gaussian", "far Gaussian", "continuous Bernoulli"])
def test_the_levels_cells_share_all_of_a_density(kind):
    example = runpy.run_path(str(FILE))
    fn, unit = {
        "Gaussian": (dist.Normal(torch.tensor([3, 100.2, 254]), torch.tensor([9, 0.2, 50])), 1),
        "far Gaussian": (dist.Normal(torch.tensor([-90.0, 900.0]), torch.tensor(2.0)), 1),
        "continuous Bernoulli": (
            dist.ContinuousBernoulli(logits=torch.tensor([-12.0, -0.3, 0.0, 4.0])), 1 / 255,
        ),
    }[kind]  # fmt: skip
    levels = torch.arange(256.0)[:, None] * unit
    log_prob = example["Cell"](fn, unit).log_prob(levels)
    assert bool(log_prob.isfinite().all())
    total = log_prob.double().exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-5)
    middle = log_prob[100] - fn.log_prob(levels[100]) - np.log(unit)
    if kind == "continuous Bernoulli":  # a density that varies little within a cell
        torch.testing.assert_close(middle, torch.zeros_like(middle), rtol=0, atol=1e-3)
