"""Indices: categories of -1, which count from the end of a table, and rows that share an index."""

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from parts.linter import X, assert_only_finding

from ppl_vae import lint
from ppl_vae.data.rows import Rows
from ppl_vae.guides.local import LocalGuide
from ppl_vae.models.gaussian import GaussianModel

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


def test_different_rows_of_one_index_have_no_parameters_of_their_own():
    index = torch.arange(len(X))
    index[[20, 35]] = index[[3, 30]]
    pair = GaussianModel(3, 2), LocalGuide(len(X), 2)
    pieces = "got 3 in rows 3 and 20, which are different", "torch.arange(len(x))"
    verdict = lint(*pair, {"x": X, "index": index})
    assert_only_finding(verdict, "error", 'field "index"', *pieces)
    assert not pair[1].known._forward_pre_hooks


def test_rows_of_a_subset_are_compared_by_their_own_indices():
    index = torch.arange(len(X))
    index[[20, 35]] = index[[3, 30]]
    data, pair = Rows({"x": X, "index": index}), (GaussianModel(3, 2), LocalGuide(len(X), 2))
    assert lint(*pair, data.subset(torch.arange(4, 30))).findings == ()
    assert lint(*pair, data.subset(torch.tensor([35, 1, 2, 30]))).errors


def test_the_same_row_may_come_twice_with_its_index():
    index = torch.arange(len(X))
    index[20] = 3
    x = X.clone()
    x[20] = x[3]
    for data in ({"x": x, "index": index}, {"x": X, "index": torch.arange(len(X)) % len(X)}):
        assert lint(GaussianModel(3, 2), LocalGuide(len(X), 2), data).findings == ()
