"""The benchmark of checks runs, and its statistics by torch equal those of the library."""

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


def test_statistics_by_torch_equal_those_of_the_library():
    sys.path.insert(0, str(FOLDER))
    benchmark = importlib.import_module("checks")
    sys.path.remove(str(FOLDER))
    sys.modules.pop("checks")
    x = torch.randn(3, 501, 4)  # 5 % of 500 steps is a whole rank: no interpolation
    by_torch, by_library = benchmark.by_torch(x), ValueKind("real").compute(x, None)
    for name in ("mean", "sd", "minimum", "maximum", "correlation"):
        np.testing.assert_allclose(by_torch[name], by_library[name], atol=2e-5)
    for name in ("skewness", "kurtosis"):  # torch divides by n - 1
        np.testing.assert_allclose(by_torch[name], by_library[name], atol=0.05)
    np.testing.assert_allclose(by_torch["quantile 0.5"], by_library["median"], atol=1e-6)
