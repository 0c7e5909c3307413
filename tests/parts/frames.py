"""Random frames of mixed columns for hypothesis: every type of pandas, gaps, odd names."""

import datetime
import decimal
import math

import pandas as pd
from hypothesis import strategies as st

from parts.extras import pyarrow

NAMES = [
    "a",
    "two words",
    "",
    " ",
    "größe",
    "年齢",
    "x",
    "seen",
    "y",
    "0",
    1,
    -3,
    ("a", 1),
    ("a", ""),
    2.5,
    None,
    True,
    pd.Timestamp("2024-01-01"),
    "<b>",
    "a=b",
    'say "hi"',
    "line\nbreak",
    "z",
    "data",
]
WORDS = ["a", "b", "é", "日本", "", "?", " a", "NaN", "True", "1", "1.0", "007", "a,b", "x" * 40]
FLOATS = [0.0, 1.0, -1.0, 0.5, 1e-40, 1e-12, -3.25, 7.0, 40.0, 1e9, -999.0, 1e15, 2e15, math.inf]
TIMES = [
    "2024-02-29",
    "1999-12-31 23:59:59",
    "2024-01-01 00:00:00.123456",
    "1969-07-20",
    "2262-01-01",
]


def _choices(values):
    return lambda rows: st.lists(st.sampled_from(values), min_size=rows, max_size=rows)


def _numbers(rows):
    ordinary = st.floats(-1e6, 1e6, allow_nan=False)
    return st.lists(
        st.one_of(ordinary, ordinary, st.sampled_from(FLOATS)), min_size=rows, max_size=rows
    )


def _whole(low, high):
    return lambda rows: st.lists(st.integers(low, high), min_size=rows, max_size=rows)


def _typed(dtype):
    return lambda values: pd.Series(values, dtype=dtype)


def _arrow(make):
    def column(values):
        dtype = pd.ArrowDtype(make(pyarrow()))
        return pd.Series(values, dtype=object).astype(dtype)

    return column


def _dates(**how):
    return lambda values: pd.Series(pd.to_datetime(pd.Series(values), format="ISO8601", **how))


def _objects(function):
    return lambda values: pd.Series(
        [None if v is None else function(v) for v in values], dtype=object
    )


def _intervals(values):
    return pd.Series(
        pd.arrays.IntervalArray.from_tuples([None if v is None else (v, v + 1) for v in values])
    )


def _ordered(values):
    return pd.Series(pd.Categorical(values, [3, 1, 2, 0], ordered=True))


MIXED = [
    1,
    "a",
    None,
    2.5,
    True,
    (1, 2),
    [1],
    {"k": 1},
    b"b",
    1j,
    decimal.Decimal("1.5"),
    math.nan,
    datetime.date(2024, 1, 1),
    datetime.time(1),
    pd.NaT,
    pd.NA,
    "1",
    10**30,
    10**400,
]
DATE = [datetime.date(2024, 1, 1), datetime.date(1999, 12, 31), datetime.date(9999, 12, 31)]
BIG = 10**15

COLUMNS = {
    "float64": (_numbers, _typed("float64"), True),
    "float32": (_numbers, _typed("float32"), True),
    "Float64": (_numbers, _typed("Float64"), True),
    "int64": (_whole(-50, 50), _typed("int64"), False),
    "counts": (_whole(0, 9), _typed("int32"), False),
    "int8": (_whole(-128, 127), _typed("int8"), False),
    "large": (_whole(-2 * BIG, 2 * BIG), _typed("int64"), False),
    "uint64": (_whole(0, 2**64 - 1), _typed("uint64"), False),
    "Int64": (_whole(0, 20), _typed("Int64"), True),
    "Int8": (_whole(-3, 3), _typed("Int8"), True),
    "bool": (_choices([True, False]), _typed("bool"), False),
    "boolean": (_choices([True, False]), _typed("boolean"), True),
    "bool objects": (_choices([True, False]), _typed(object), True),
    "text": (_choices(WORDS), _typed(object), True),
    "str": (_choices(WORDS), _typed("str"), True),
    "string": (_choices(WORDS), _typed("string"), True),
    "long text": (
        lambda n: st.lists(st.text(max_size=20), min_size=n, max_size=n),
        _typed(object),
        True,
    ),
    "number text": (_choices(["1", "2.5", "-3", "1e3", "40"]), _typed(object), True),
    "category": (_choices(["a", "b", "é"]), _typed("category"), True),
    "number category": (_choices([0, 1, 2]), _typed("category"), True),
    "ordered": (_choices([0, 1, 2, 3]), _ordered, True),
    "interval": (_choices([0, 1, 2, 5]), _intervals, True),
    "interval category": (_choices([0, 1, 2, 5]), lambda v: _intervals(v).astype("category"), True),
    "period": (
        _choices(["2024-01", "2024-05", "1999-01"]),
        lambda v: pd.Series(pd.PeriodIndex(v, freq="M")),
        True,
    ),
    "datetime": (_choices(TIMES), _dates(), True),
    "seconds": (_choices(TIMES[:2]), lambda v: _dates()(v).astype("datetime64[s]"), True),
    "zone": (
        _choices(TIMES),
        lambda v: _dates()(v).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        True,
    ),
    "ISO": (_choices(TIMES), _typed(object), True),
    "ISO zone": (
        _choices(["2024-01-01T10:00:00Z", "2024-05-01T10:00:00+02:00"]),
        _typed(object),
        True,
    ),
    "date": (_choices(DATE), _typed(object), True),
    "timedelta": (_whole(-(10**6), 10**6), lambda v: pd.Series(pd.to_timedelta(v, "s")), True),
    "one value": (_choices([3.5]), _typed("float64"), True),
    "one date": (_choices(["2024-01-01"]), _dates(), True),
    "missing": (_choices([None]), _typed(object), True),
    "NaN": (_choices([math.nan]), _typed("float64"), True),
    "complex": (_choices([1j, 1 + 2j, 0j]), _typed("complex128"), False),
    "mixed": (_choices(MIXED), _typed(object), True),
    "lists": (_choices([[1], [1, 2], []]), _typed(object), True),
    "decimal": (_choices([decimal.Decimal("1.5"), decimal.Decimal(2)]), _typed(object), True),
    "sparse": (_whole(0, 3), lambda v: pd.Series(v, dtype="int64").astype("Sparse[int64]"), False),
    "arrow int": (_whole(0, 30), _arrow(lambda pa: pa.int64()), True),
    "arrow text": (_choices(["a", "b", ""]), _arrow(lambda pa: pa.string()), True),
    "arrow bool": (_choices([True, False]), _arrow(lambda pa: pa.bool_()), True),
    "arrow date": (_choices(DATE), _arrow(lambda pa: pa.date32()), True),
    "arrow decimal": (
        _choices([decimal.Decimal("1.50")]),
        _arrow(lambda pa: pa.decimal128(5, 2)),
        True,
    ),
    "arrow category": (
        _choices(["a", "b"]),
        _arrow(lambda pa: pa.dictionary(pa.int32(), pa.string())),
        True,
    ),
    "arrow time": (
        _choices([datetime.datetime(2024, 1, 1, 5), datetime.datetime(2024, 2, 1)]),
        _arrow(lambda pa: pa.timestamp("us", "UTC")),
        True,
    ),
}
"""For each kind of column: its values for some rows, the column, whether cells may be gaps."""


@st.composite
def frames(draw, most_rows=30, most_columns=4):
    """Return a frame with the kinds of its columns in ``attrs``."""
    rows = draw(st.one_of(st.integers(1, 3), st.integers(4, most_rows)))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=most_columns))
    names = draw(st.permutations(NAMES))[: len(kinds)]
    made = []
    for kind in kinds:
        values, make, gaps = COLUMNS[kind]
        cells = draw(values(rows))
        holes = draw(st.lists(st.integers(0, rows - 1), max_size=rows // 2)) if gaps else []
        made.append(make([None if row in holes else cell for row, cell in enumerate(cells)]))
    frame = pd.concat(made, axis=1)
    frame.columns = pd.Index(names, tupleize_cols=False)
    if draw(st.booleans()) and all(isinstance(name, str) for name in names):
        frame.columns = pd.MultiIndex.from_tuples([(name, 1) for name in names], names=["k", None])
    index = draw(st.sampled_from(["rows", "text", "twice", "levels", "dates", "nothing"]))
    frame.index = {
        "rows": lambda: pd.RangeIndex(rows), "text": lambda: [f"r{i}" for i in range(rows)],
        "twice": lambda: [0] * rows, "dates": lambda: pd.date_range("2024", periods=rows),
        "levels": lambda: pd.MultiIndex.from_product([["a"], range(rows)]),
        "nothing": lambda: [None] * rows,
    }[index]()  # fmt: skip
    frame.attrs["kinds"] = kinds
    return frame
