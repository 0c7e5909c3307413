"""The kind of a column is guessed from its cells, whatever their type in pandas is."""

import datetime

import numpy as np
import pandas as pd
import pytest
from parts.extras import pyarrow

from ppl_vae import table
from ppl_vae.data.column_reading import read_column
from ppl_vae.data.kinds import atoms_of
from ppl_vae.data.plain_columns import as_typed, is_missing, plain

RANDOM = np.random.default_rng(0)
DAYS = pd.date_range("2024-01-01", periods=30)
CASES = {
    "real": [
        RANDOM.normal(size=30),
        pd.to_timedelta(np.arange(30), "h"),
        ["0.5", "-1", "2.5"] * 10,
    ],
    "positive": [RANDOM.lognormal(size=30), np.arange(30) * 1000 + 1],
    "count": [
        RANDOM.poisson(3, 30),
        ["1", "2", "3"] * 10,
        pd.array([0, 1, 2, None, 4] * 6, "Int64"),
    ],
    "binary": [
        [0, 1] * 15,
        [True, False] * 15,
        list("ab") * 15,
        [2.5, 7.5] * 15,
        [None, 1, 2] * 10,
    ],
    "categorical": [
        list("abc") * 10,
        pd.Categorical(list("abc") * 10),
        [5] * 30,
        ["007", "008", "9"] * 10,
    ],
    "ordinal": [pd.Categorical(list("abc") * 10, ordered=True), pd.cut(np.arange(30), 3)],
    "date": [
        DAYS,
        DAYS.tz_localize("Asia/Tokyo"),
        DAYS.strftime("%Y-%m-%d"),
        DAYS.date,
        pd.period_range("2024", periods=30, freq="M"),
        DAYS.strftime("%Y-%m-%dT%H:%M:%SZ"),
    ],
    "identifier": [np.arange(30), np.arange(100, 130), [f"n{i}" for i in range(30)]],
    "text": [[f"a few words of text number {i}" for i in range(30)], [[1], [2], [3]] * 10],
    "empty": [[None] * 30, [np.nan] * 30, [""] * 30, pd.array([None] * 30, "Int64")],
}


@pytest.mark.parametrize(("kind", "place"), [(k, i) for k in CASES for i in range(len(CASES[k]))])
def test_the_kind_of_a_column(kind, place):
    assert read_column(pd.Series(CASES[kind][place], name="a"), None, ()).kind == kind


@pytest.mark.parametrize("kind", ["count", "binary", "categorical", "real"])
def test_the_kind_is_the_same_in_every_type_that_holds_the_cells(kind):
    values = {"count": [0, 1, 5, 3], "binary": [0, 1, 1, 0], "real": [-1.5, 2, 0, 7]}
    cells = pd.Series(values.get(kind, ["a", "b", "c", "a"]), name="a")
    arrow = pyarrow().array(cells.tolist()).type
    others = [cells.convert_dtypes(), cells.astype(object), cells.astype(pd.ArrowDtype(arrow))]
    if kind in ("count", "binary"):
        others += [cells.astype("int8"), cells.astype(float), cells.astype("Sparse[int64]")]
    assert {read_column(other, None, ()).kind for other in [cells, *others]} == {kind}


def test_names_of_rows_need_many_rows():
    assert read_column(pd.Series(["Ann", "Bo", "Cy"]), None, ()).kind == "categorical"
    assert read_column(pd.Series(np.arange(5)), None, ()).kind == "count"
    assert (
        read_column(pd.Series(RANDOM.permutation(10**6)[:30], name="user_id"), None, ()).kind
        == "identifier"
    )
    assert (
        read_column(pd.Series(RANDOM.permutation(10**6)[:30], name="price"), None, ()).kind
        == "positive"
    )


def test_missing_is_what_pandas_says_empty_texts_and_the_given_words():
    cells = pd.Series(["a", "", "  ", None, np.nan, pd.NA, " ? ", "-9", -9, "b"], dtype=object)
    assert is_missing(cells).tolist() == [False, *[True] * 5, *[False] * 4]
    assert is_missing(cells, ["?", -9]).tolist() == [False, *[True] * 8, False]
    assert is_missing(cells, ["?", "-9"]).tolist() == [False, *[True] * 8, False]
    assert is_missing(pd.Series([1.0, -9, np.nan]), ["-9"]).tolist() == [False, True, True]
    assert is_missing(pd.Series(["x", "?"], dtype="category"), ["?"]).tolist() == [False, True]
    dates = pd.Series(pd.to_datetime(["1900-01-01", "2024-01-01", None]))
    assert is_missing(dates, ["1900-01-01"]).tolist() == [True, False, True]
    assert is_missing(dates, [datetime.date(1900, 1, 1)]).tolist() == [True, False, True]
    zone = dates.dt.tz_localize("Asia/Tokyo")
    assert is_missing(zone, ["1900-01-01"]).tolist() == [True, False, True]
    assert not is_missing(pd.Series([True, False]), ["1", 0]).any()


def test_texts_become_numbers_only_where_a_number_gives_them_back():
    def typed(values):
        column = pd.Series(values, dtype=object)
        return as_typed(column, is_missing(column)).dtype.kind

    assert typed(["1", "2.5", None, "1e3"]) == "f"
    assert (
        typed(["1", "x"]) == typed(["007", "1"]) == typed([True, 1]) == typed(["nan", "1"]) == "O"
    )
    assert typed([10**400, 1]) == typed([[1], 1]) == typed([1j, 1]) == "O"
    assert typed(["2024-02-29", "1999-01-01 10:00"]) == "M"
    assert typed(["2024-02-30", "2024-01-01"]) == "O"  # February has no 30th
    assert typed(["2024-01-01T10:00Z", "2024-01-01T10:00"]) == "O"  # one has no time zone


def test_plain_columns_hold_the_same_cells():
    pa = pyarrow()
    dictionary = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    for values, dtype, kind in [
        ([2**60 + 1, None], "Int64", "O"),  # no float holds it
        ([2**60 + 1, 5], "Int64", "i"),
        ([0.5, None], "Float64", "f"),
        (["a", None], dictionary, None),
        (["a", None], "string", "O"),
        ([True, None], "boolean", "O"),
    ]:
        cells = plain(pd.Series(values, dtype=object).astype(dtype))
        assert kind is None or cells.dtype.kind == kind
        assert [None if pd.isna(v) else v for v in cells] == values


def test_atoms_are_numbers_that_repeat_far_more_often_than_their_neighbours():
    smooth = RANDOM.normal(size=2000).round(1)
    assert atoms_of(smooth) == []
    assert atoms_of(np.r_[smooth, np.full(900, 0.3)]) == [0.3]
    assert atoms_of(np.array([0.0, 0.0, 1.0])) == []
    assert len(atoms_of(np.repeat(np.arange(40.0), [50, 1, 1, 1, 1] * 8))) == 8


def test_notes_say_what_looks_like_a_gap():
    def note(values, **how):
        return table(pd.DataFrame({"a": values}), **how).schema.columns[0].note

    assert 'missing=["?"]' in note(list("ab?") * 5)
    assert note(list("ab?") * 5, missing="?") == ""
    assert "missing=[-999]" in note([*range(10), *range(10), -999])
    assert note([*range(10), *range(10), -999], missing=-999) == ""
    assert note([*range(10), *range(10), -1]) == ""  # near the others
    assert "order of the categories" in note(["low", "mid", "high"], kinds={"a": "ordinal"})
    assert note([3, 1, 2], kinds={"a": "ordinal"}) == ""


def test_a_column_of_text_that_is_almost_numbers_has_a_note():
    frame = pd.DataFrame({"a": [*map(str, RANDOM.normal(size=40)), "unknown!"], "b": range(41)})
    columns = table(frame, kinds={"b": "count"}).schema.columns
    assert columns[0].kind == "identifier"
    assert "1 of 41 cells are no numbers, such as 'unknown!'" in columns[0].note
    frame["a"] = [*pd.date_range("2024", periods=40).strftime("%Y-%m-%d"), "2024-02-30"]
    assert (
        "no dates, such as '2024-02-30'"
        in table(frame, kinds={"b": "count"}).schema.columns[0].note
    )
