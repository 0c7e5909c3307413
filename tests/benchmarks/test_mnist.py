"""The benchmarks of MNIST and of likelihoods run; the loop by hand gives the library's numbers."""

import importlib
import json
import re
import shutil
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from parts.scripts import run_script

from ppl_vae.training import traced_step

FOLDER = Path(__file__).parents[2] / "benchmarks"


def command(script, *words, folder=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_script(FOLDER / script, *words, folder=folder)[0]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of files in the form of MNIST's, filled with noise."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (60, 28, 28), np.uint8)
    np.savez(folder / "mnist.npz", x_train=grey, x_test=grey[:30])
    packed = np.packbits(grey.reshape(60, 784) > 127, axis=1)
    np.savez(folder / "mnist_binarized.npz", train=packed, valid=packed[:20], test=packed[:30])
    return folder


@pytest.mark.parametrize(
    ("protocol", "published"),
    [
        ("meanfield", "-97.10"),
        ("rezende", "-89.90"),
        ("vae", "-86.76"),
        ("iwae5", "-85.54"),
        ("layers", "-86.05"),
        ("planar", "-87.50"),
    ],
)
def test_every_protocol_prints_the_published_and_the_measured_figure(
    protocol, published, images, tmp_path
):
    words = protocol, "--data", images, "--tiny", "--run", tmp_path / "run"
    first = command("mnist.py", *words, folder=tmp_path)
    assert published in first
    assert "seed 0, 2 epochs of batches of 50" in first
    table = first.split("nats a row")[1]
    again = command("mnist.py", *words, folder=tmp_path)  # loads the fit, and does not fit again
    assert again.split("nats a row")[1] == table


def test_results_in_the_file_are_printed_and_not_computed_again(images, tmp_path):
    words = "rezende", "rezende-warm", "--data", images, "--tiny", "--out", tmp_path / "out.jsonl"
    first = command("mnist.py", *words, folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["protocol"] for row in rows] == ["rezende", "rezende-warm"]
    shutil.rmtree(tmp_path / "runs")
    again = command("mnist.py", *words, folder=tmp_path)
    assert not (tmp_path / "runs").exists()
    for name in ("rezende:", "rezende-warm:"):
        assert again.split(name)[1].split("\n\nrez")[0] in first
    more = "rezende", "--data", images, "--tiny", "--samples", 20, "--rows", 7, *words[-2:]
    shown = command("mnist.py", *more, folder=tmp_path)  # other settings are another row
    assert "7 test rows x 20 samples" in shown
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_the_gap_of_some_rows_is_split(images, tmp_path):
    words = "diagonal", "--data", images, "--tiny", "--gap", 5, "--out", tmp_path / "out.jsonl"
    first = command("mnist.py", *words, folder=tmp_path)
    for name in ("gap", "approximation", "amortization"):
        assert re.search(rf"^{name} .*, 5 rows$", first, re.MULTILINE)
    assert "cause: " in first
    row = json.loads((tmp_path / "out.jsonl").read_text())
    parts = {name: part["mean"] for name, part in row["parts"].items()}
    assert parts["gap"] == pytest.approx(parts["approximation"] + parts["amortization"])


def test_steps_are_timed_beside_those_of_pyro(images, tmp_path):
    words = "meanfield", "--data", images, "--tiny", "--steps", 4
    with patch.object(traced_step, "compile_graph", lambda graph, *_: graph):  # not tested here
        shown = command("mnist.py", *words, folder=tmp_path)
    assert "Pyro SVI" in shown
    assert "ratio" in shown


@pytest.mark.parametrize(
    "table", [pytest.param("speed", marks=pytest.mark.slow), "decoder", "memory"]
)
def test_the_tables_of_the_likelihood_are_printed(table, tmp_path):
    shown = command("likelihood.py", table, "--tiny", folder=tmp_path)
    assert {"speed": "PyTorch by hand", "decoder": "codes a call", "memory": "MiB"}[table] in shown


def test_the_loop_by_hand_gives_the_numbers_of_log_likelihood():
    sys.path.insert(0, str(FOLDER))
    benchmark = importlib.import_module("likelihood")
    sys.path.remove(str(FOLDER))
    sys.modules.pop("likelihood")
    from ppl_vae import log_likelihood

    model, guide, x = benchmark.images(8, 3, 12)
    loop = benchmark.by_hand((model, guide), x, 4000, (5, 300))
    library = log_likelihood(model, guide, x, num_samples=4000)
    for name in ("log_prob", "elbo"):
        np.testing.assert_allclose(library[name], loop[name], atol=0.4)  # sd of a draw: 5 nats
        np.testing.assert_allclose(library[name].mean(), loop[name].mean().item(), atol=0.1)
    assert torch.all((loop["ess"] >= 1) & (loop["ess"] <= 4000))
    np.testing.assert_allclose(library["ess"].mean(), loop["ess"].mean().item(), rtol=0.2)


def test_estimators_of_discrete_latents_stand_beside_the_published_figures(images, tmp_path):
    words = "--data", images, "--tiny", "--rate", 1e-3, "--out", tmp_path / "lines.jsonl"
    first = command("discrete.py", "categorical-gumbel", "layers-network", *words, folder=tmp_path)
    assert "published  101.5" in first
    assert "published   99.8" in first
    again = command("discrete.py", "categorical-gumbel", "layers-network", *words, folder=tmp_path)
    assert again.count("-log p") == 2
    assert "steps in" not in again  # nothing was fitted again
    command("discrete.py", "--draw", tmp_path / "lines.jsonl", "curves.png", folder=tmp_path)
    assert (tmp_path / "curves.png").exists()
