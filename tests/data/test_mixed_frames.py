"""Any frame becomes a table and comes back, or is refused by the name of a column."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from parts.frames import frames

from ppl_vae import build, fit, generate, table
from ppl_vae.data.plain_columns import is_missing, plain, text_of
from ppl_vae.data.schema import Schema
from ppl_vae.guides.table import TableGuide
from ppl_vae.models.table import TableModel


def often(count):
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given]
    return settings(
        deadline=None, derandomize=True, database=None, max_examples=count,
        suppress_health_check=quiet,
    )  # fmt: skip


AS_NUMBERS = {"number text", "decimal", "arrow decimal", "complex", "lists", "mixed", "long text"}
"""Kinds of columns whose cells may come back in another type: numbers that stood as text."""


def names_a_column(error, frame):
    text = str(error)
    few = len(frame) < 2 and "at least 2 rows" in text
    assert few or any(text_of(name) in text for name in frame.columns), text
    assert "expected" in text


def read(frame):
    """The table of a frame; ``None`` where it is refused, by the name of a column."""
    try:
        return table(frame)
    except ValueError as error:
        names_a_column(error, frame)
        return None


def types_and_columns_are_kept(made, frame, schema):
    kept = [text_of(c.name) for c in schema.columns if not c.is_left_out]
    places = [i for i, name in enumerate(frame.columns) if text_of(name) in kept]
    wanted = frame.iloc[:, places]
    assert made.columns.equals(wanted.columns)
    assert made.columns.names == wanted.columns.names
    for place in range(len(places)):
        kind = frame.attrs["kinds"][places[place]]
        if kind not in AS_NUMBERS:
            assert made.iloc[:, place].dtype == wanted.iloc[:, place].dtype, kind


@often(400)
@given(frames())
def test_a_frame_comes_back_from_its_numbers(frame):
    data = read(frame)
    if data is None:
        return
    schema = data.schema
    x, seen = schema.encoded(frame, schema.modelled)
    assert np.isfinite(x).all()
    assert x.shape == tuple(data["x"].shape)
    back = schema.decoded(x, seen, index=frame.index)
    assert back.index.equals(frame.index)
    if seen.all():
        types_and_columns_are_kept(back, frame, schema)
    again, seen_again = schema.encoded(back, schema.modelled)
    assert (seen_again == seen).all()
    assert np.allclose(again[seen], x[seen], rtol=1e-9, atol=0)
    for column in schema.modelled:
        place = next(i for i, n in enumerate(frame.columns) if text_of(n) == text_of(column.name))
        cells = plain(frame.iloc[:, place])
        there = ~is_missing(cells)
        assert (there == seen[:, schema.modelled.index(column)]).all()
    str(schema)
    copy = Schema.of_json(json.loads(json.dumps(schema.to_json())))
    assert copy.codes == schema.codes
    reread = frame.sample(frac=1, random_state=0)
    assert (copy.encoded(frame, copy.modelled)[0] == x).all()
    shuffled = table(reread, schema=copy)
    assert sorted(map(tuple, shuffled["x"].tolist())) == sorted(map(tuple, data["x"].tolist()))


@often(30)
@given(frames(most_rows=12))
def test_a_pair_of_any_table_fits_and_generates_valid_rows(frame):
    data = read(frame)
    if data is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one-valued columns, few rows
        model = build(TableModel, data, latents=2, hidden=(4,))
        guide = build(TableGuide, data, latents=2, hidden=(4,))
        try:
            fit(model, guide, data, epochs=2, batch_size=8, progress=False, compile=False)
        except ValueError as error:
            names_a_column(error, frame)
            return
        made = generate(model, guide, frame, num_samples=5, progress=False)
    types_and_columns_are_kept(made, frame, data.schema)
    x, seen = data.schema.encoded(made, data.schema.modelled)
    assert seen.all()
    assert np.isfinite(x).all()


def test_the_fuzz_reads_most_frames():
    """The tests above would show nothing of frames that are all refused."""
    accepted = []

    @often(60)
    @given(frames())
    def count(frame):
        accepted.append(read(frame) is not None)

    count()
    assert np.mean(accepted) > 0.5


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tables_of_few_rows_are_read(rows):
    frame = pd.DataFrame({"a": [1.5, 2.5, 0.1], "b": ["u", None, "v"]}).head(rows)
    assert table(frame)["x"].shape[0] == rows
