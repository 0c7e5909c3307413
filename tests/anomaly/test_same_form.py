"""Rows are brought into the form of the calibration rows by the names of their fields."""

import pandas as pd
import torch
from pyro import distributions as dist
from pyro import plate, sample

from ppl_vae import AnomalyDetector


def shifted_model(x, group):
    """Rows whose mean depends on a whole number, which no float of 32 bits can hold."""
    with plate("data", len(x)):
        sample("x", dist.Normal((group % 2)[:, None], 1.0).to_event(1), obs=x)


def test_fields_of_a_mapping_keep_their_dtypes_in_any_order():
    rows = {"x": torch.randn(30, 3), "group": 2**24 + torch.arange(30)}
    detector = AnomalyDetector(shifted_model, None, rows)
    reordered = detector({"group": rows["group"], "x": rows["x"]})
    pd.testing.assert_frame_equal(reordered, detector(rows))
