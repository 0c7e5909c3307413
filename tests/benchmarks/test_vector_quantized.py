"""The benchmark of codes prints both rows, at equal nats, and computes none of them again."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from parts.scripts import run_script

from ppl_vae import reconstruct

FILE = Path(__file__).parents[2] / "benchmarks" / "vector_quantized.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a file in the form of MNIST's, filled with noise."""
    path = tmp_path_factory.mktemp("images")
    grey = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    np.savez(path / "mnist.npz", x_train=grey, x_test=grey[:30])
    return path


def test_both_rows_are_measured_once(folder, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = "--data", folder, "--tiny", "--out", out, "--draw", tmp_path / "new.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = run_script(FILE, *words, folder=tmp_path)[0]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["row"] for line in lines] == ["codes", "normal"]
    assert all(line["nats"] > 0 and line["squared_error"] > 0 for line in lines)
    assert (tmp_path / "new.png").stat().st_size > 5000
    assert "codes are in use" in shown
    assert run_script(FILE, *words, folder=tmp_path)[0] == shown
    assert len(out.read_text().splitlines()) == 2


def test_the_error_is_the_squared_distance_from_the_expected_image(imported):
    benchmark = imported("vector_quantized")
    x = torch.rand(20, 1, 28, 28)
    model = benchmark.build(benchmark.VectorQuantizedModel, x, codes=4)
    guide = benchmark.build(benchmark.NearestCodeGuide, x, model=model)
    expected = (reconstruct(model, guide, x) - x).square().sum((1, 2, 3)).mean()
    sigma = float(0.5 * model.scale.mean())
    assert benchmark.squared_error(model, guide, x, sigma) == pytest.approx(expected.item(), 1e-3)


def test_the_two_grids_are_means_and_then_variances_of_the_same_places(imported):
    benchmark = imported("vector_quantized")
    both, x = benchmark.TwoGrids(3, (4, 5)), torch.rand(2, 1, 28, 28)
    each = both.grid(x).reshape(2, 49, 6)
    mean, variance = both(x).chunk(2, -1)
    torch.testing.assert_close(mean.reshape(2, 49, 3), each[..., :3])
    torch.testing.assert_close(variance.reshape(2, 49, 3), each[..., 3:])
