"""The benchmark of checks runs, and its statistics by torch are ours."""

import importlib
import sys

import numpy as np
import pytest
import torch
from benchmarks.test_mnist import FOLDER, command

from ppl_vae.checks.statistics import ValueKind


@pytest.mark.parametrize("table", ["speed", "memory"])
def test_both_tables_of_checks_are_printed(table, tmp_path):
    shown = command("checks.py", table, "--tiny", folder=tmp_path)
    assert {"speed": "Pyro's Predictive", "memory": "MiB"}[table] in shown


def test_the_statistics_by_torch_are_the_librarys():
    sys.path.insert(0, str(FOLDER))
    benchmark = importlib.import_module("checks")
    sys.path.remove(str(FOLDER))
    sys.modules.pop("checks")
    x = torch.randn(3, 501, 4)  # 5 % of 500 steps is a whole rank: no interpolation
    theirs, ours = benchmark.by_torch(x), ValueKind("real").find(x, None)
    for name in ("mean", "sd", "minimum", "maximum", "correlation"):
        np.testing.assert_allclose(theirs[name], ours[name], atol=2e-5)
    for name in ("skewness", "kurtosis"):  # divided by n - 1 there
        np.testing.assert_allclose(theirs[name], ours[name], atol=0.05)
    np.testing.assert_allclose(theirs["quantile 0.5"], ours["median"], atol=1e-6)
