"""``ppl-vae fit --nproc 2``: one command, two processes, one output, one run."""

import json
import subprocess
import sys

import torch
from safetensors.torch import load_file

QUICK = ["bernoulli", "normal", "--epochs", 2, "--batch-size", 64]


def started(*words, folder):
    """Run the command in a process of its own, which may start others."""
    command = [sys.executable, "-m", "ppl_vae.cli", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_two_processes_print_one_result_and_store_the_bits_of_one_process(
    ppl, digits_file, tmp_path
):
    words = [*QUICK, digits_file, "--json"]
    done = started("fit", *words, "--run", "two", "--nproc", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shards"] == 2
    assert done.stderr == ""
    ppl("fit", *words, "--run", "one", "--shards", 2)
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_error_ends_all_processes_and_is_printed_once(digits_file, tmp_path):
    words = [*QUICK, digits_file, "--run", "run", "--nproc", 2]
    done = started("fit", *words, "--shards", 1, folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    assert "shards: expected 2 or more for 2 processes" in done.stderr
