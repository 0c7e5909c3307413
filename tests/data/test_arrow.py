"""Tables of polars, Arrow and duckdb as data: the numbers are those of the same pandas frame."""

import sys

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from parts.extras import duckdb, polars, pyarrow

import ppl_vae
from ppl_vae import build, fit, sequences
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(RANDOM.normal(size=(40, 3)) * [1, 10, 0.1], columns=["a", "b", "c"])
ROW = FRAME.assign(flag=RANDOM.random(40) > 0.5, count=RANDOM.poisson(3, 40))


def of_duckdb(frame):
    return duckdb().from_arrow(pyarrow().Table.from_pandas(frame, preserve_index=False))


KINDS = {
    "polars": lambda frame: polars().DataFrame({name: frame[name].to_numpy() for name in frame}),
    "table": lambda frame: pyarrow().Table.from_pandas(frame, preserve_index=False),
    "batch": lambda frame: pyarrow().RecordBatch.from_pandas(frame, preserve_index=False),
    "duckdb": of_duckdb,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("frame", [FRAME, ROW], ids=["floats", "mixed"])
def test_rows_are_those_of_the_frame(kind, frame):
    rows, wanted = Rows(KINDS[kind](frame)), Rows(frame)
    assert rows.fingerprint() == wanted.fingerprint()
    assert rows.template() == wanted.template()
    assert rows.columns == wanted.columns
    assert rows.index.equals(wanted.index)


@every_kind
def test_every_function_gives_the_numbers_of_the_frame(kind):
    pyro.set_rng_seed(0)
    table, others = KINDS[kind](FRAME), KINDS[kind](FRAME[["c", "a", "b"]])  # found by their names
    pair = build(GaussianModel, table, latents=2), build(NormalGuide, table, latents=2)
    pyro.set_rng_seed(0)
    peers = build(GaussianModel, FRAME, latents=2), build(NormalGuide, FRAME, latents=2)
    how = {"epochs": 2, "batch_size": 10, "progress": False, "compile": False}
    history, wanted = fit(*pair, table, **how), fit(*peers, FRAME, **how)
    assert history.frame["elbo"].equals(wanted.frame["elbo"])
    for name, more in {
        "encode": {},
        "log_likelihood": {"num_samples": 300},
        "elbo_terms": {},
        "anomaly_scores": {},
        "reconstruct": {},
    }.items():
        function = getattr(ppl_vae, name)
        found = function(*pair, others, **more)
        right = function(*peers, FRAME[["c", "a", "b"]], **more)
        pd.testing.assert_frame_equal(found, right)
    drawn = ppl_vae.generate(*pair, table, num_samples=3)
    pd.testing.assert_frame_equal(drawn, ppl_vae.generate(*peers, FRAME, num_samples=3))
    check = ppl_vae.predictive_check(*pair, table, num_samples=20).frame
    assert check.equals(ppl_vae.predictive_check(*peers, FRAME, num_samples=20).frame)


def test_missing_values_are_nan_and_decimals_are_numbers():
    table = polars().DataFrame({"a": [1, None, 3], "b": [0.5, None, 2.0]})
    (rows,) = as_tuple(Rows(table).take(torch.arange(3)))
    assert rows[1].isnan().all()
    assert rows[[0, 2]].tolist() == [[1.0, 0.5], [3.0, 2.0]]
    decimals = duckdb().sql("select 2.5 as a, 1 as b union all select 0.5, 2 order by a")
    assert of_pandas(decimals, "data")["a"].tolist() == [0.5, 2.5]


def test_columns_are_fields_of_a_mapping():
    arrow = pyarrow()
    columns = [
        polars().Series([2, 0, 1]),
        arrow.array([2, 0, 1]),
        arrow.chunked_array([[2, 0], [1]]),
    ]
    for column in columns:
        rows = Rows({"x": polars().DataFrame({"a": [0.0, 1.0, 2.0]}), "y": column})
        assert as_tuple(rows.take(torch.arange(3)))[1].tolist() == [2, 0, 1]


@every_kind
def test_long_tables_are_sequences(kind):
    long = pd.DataFrame({"id": [7, 7, 3], "t": [0, 2, 5], "y": [0.5, 1.5, 2.5]})
    found = sequences(KINDS[kind](long), id="id", step="t")
    wanted = sequences(long, id="id", step="t")
    assert torch.equal(found["x"], wanted["x"])
    assert torch.equal(found["seen"], wanted["seen"])
    assert found["lengths"].equals(wanted["lengths"])


def test_what_cannot_be_read_is_named(monkeypatch):
    table = polars().DataFrame({"a": [1.0]})
    with pytest.raises(ValueError, match=r"data: expected a table, got a LazyFrame; use .collect"):
        Rows(table.lazy())
    with pytest.raises(ValueError, match='data: expected numeric columns, got "a"'):
        Rows(polars().DataFrame({"a": ["red", "blue"]}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="data: reading a polars DataFrame needs pyarrow"):
        Rows(table)
