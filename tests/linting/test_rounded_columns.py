"""Columns whose differences single precision rounds are named."""

import numpy as np
import pandas as pd
import pytest
import torch

from ppl_vae import lint
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

NOISE = np.random.default_rng(0).normal(size=(300, 3))


def found(table):
    table = table.set_axis(["a", "b", "c"], axis=1)
    told = lint(GaussianModel(3, 2), NormalGuide(3, 2), table).warnings
    return [str(finding) for finding in told if "tells apart" in str(finding)]


@pytest.mark.filterwarnings("ignore")
def test_columns_far_from_zero_are_named_and_others_are_not():
    table = pd.DataFrame(NOISE)
    assert found(table) == []
    assert found(table * [1e-30, 1e30, 0.0] + [0.0, 0.0, 1e6]) == []  # one value is another fault
    assert found(table.add([2000.0, -1e4, 0.0])) == []  # years
    (message,) = found(table * [1.0, 1000.0, 1e-6] + [0.0, 1.7e9, 0.0])  # an hour of seconds
    assert "got 1 whose" in message
    assert '"b"' in message
    torch.set_default_dtype(torch.float64)
    try:
        assert found(table * [1.0, 1000.0, 1.0] + [0.0, 1.7e9, 0.0]) == []
    finally:
        torch.set_default_dtype(torch.float32)
