"""Categories of -1: a table that is indexed directly takes them, and counts from its end."""

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import X, assert_only_finding

from ppl_vae import lint

LABELS = torch.arange(len(X)) % 4


def lookup(x, label):
    table = pyro.param("table", torch.zeros(4, 3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(table[label.long()], 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_a_missing_category_that_reads_the_last_row_of_a_table(dtype):
    labels = LABELS.clone()
    labels[[23, 30]] = -1
    pieces = ("expected categories from 0 as an index, got -1 in row 23", "a number of its own")
    data = {"x": X, "label": labels.to(dtype)}
    assert_only_finding(lint(lookup, None, data), "warning", 'field "label"', *pieces)
    assert not lint(lookup, None, {"x": X, "label": LABELS.to(dtype)}).findings


def test_a_category_in_a_column_of_a_frame():
    def model(x):
        table = pyro.param("table", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(table[x[:, 0].long()], 1.0), obs=x[:, 1])

    cities = pd.Series(["Bern", "Basel", None, "Chur"] * 10, dtype="category").cat.codes
    frame = pd.DataFrame({"city": cities, "dose": X[:, 0].numpy()})
    pieces = ("got -1 in row 2, which counts from the end of the table",)
    assert_only_finding(lint(model, None, frame), "warning", "data field 0", *pieces)


def test_negative_numbers_that_are_no_index_are_no_fault():
    def model(x, shift):
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", len(x)):
            mean = loc + shift.unsqueeze(-1) * x[torch.arange(len(x))].mean().detach() * 0
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    assert not lint(model, None, {"x": X, "shift": LABELS - 2}).findings
