"""Columns of any type of pandas as columns of few types, and cells in the type that they had.

Arrow, nullable, sparse   ->  the types of NumPy; objects of Python where a cell is missing
periods                   ->  the points in time at which they begin
text, anything else       ->  objects of Python
categories                stay categories
"""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import shown
from ppl_vae.data.times import are_dates, dates_in, is_time, parsed_dates

EXACT = 2**53
"""The largest whole number up to which a float holds each of them."""

_PADDED = re.compile(r"\s*[+-]?0\d.*")
"""A text that begins with a zero that no number needs, such as a code of digits: 00501."""


def plain(column: pd.Series) -> pd.Series:
    """Return a column in a type of NumPy, or one of times or categories, with the same cells.

    Example:
        >>> plain(pd.Series([1, None], dtype="Int64")).tolist()
        [1.0, nan]
    """
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype | pd.DatetimeTZDtype | pd.CategoricalDtype):
        return column
    if isinstance(dtype, pd.ArrowDtype):
        arrow: Any = importlib.import_module("pyarrow")  # an extra, without types
        values = arrow.array(column.array).to_pandas()
        return plain(pd.Series(values.array, index=column.index, name=column.name))
    cells: Any = column
    found: pd.Series
    if isinstance(dtype, pd.SparseDtype):
        found = cells.sparse.to_dense()
        return found
    if isinstance(dtype, pd.PeriodDtype):
        found = cells.dt.to_timestamp()
        return found
    return _of(column, _values_of(column))


def _values_of(column: pd.Series) -> np.ndarray[Any, Any]:
    """Return the cells of a nullable column, or of one of any other type, in a type of NumPy."""
    dtype: Any = column.dtype
    is_whole = pd.api.types.is_integer_dtype(dtype)
    if is_whole and not column.isna().any():
        return column.to_numpy(dtype.numpy_dtype)
    if pd.api.types.is_float_dtype(dtype) or (
        is_whole and bool((column.dropna().abs() <= EXACT).all())
    ):
        return column.to_numpy(float, na_value=np.nan)
    objects = column.astype(object)
    return objects.where(column.notna(), None).to_numpy()


def _of(column: pd.Series, values: Any) -> pd.Series:
    """Return values as a column with the index and the name of another one."""
    made: pd.Series = pd.Series(values, index=column.index, name=column.name, dtype=values.dtype)
    return made


def is_missing(column: pd.Series, words: Sequence[Any] = ()) -> np.ndarray[Any, Any]:
    """Return which cells of a column are missing, (rows,) of bool.

    Missing are what pandas says is missing, texts without a letter, and the given words.

    Args:
        column: The column, as ``plain`` returns it.
        words: Texts, numbers and dates that stand for a missing value, such as ``"?"`` or -999; a
            text that spells a number or a date stands for that, too.

    Example:
        >>> is_missing(pd.Series(["a", "", None, " ? "], dtype=object), ["?"]).tolist()
        [False, True, True, True]
    """
    missing = np.asarray(column.isna(), dtype=bool)
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        gaps = is_missing(plain(pd.Series(dtype.categories)), words)
        codes = np.asarray(column.cat.codes)
        return np.asarray(missing | (gaps[codes] if len(gaps) else False))
    texts = {word.strip() for word in words if isinstance(word, str)}
    numbers = {float(w) for w in words if _is_number(w)}
    numbers |= {number for text in texts if (number := _number_in(text)) is not None}
    if is_time(dtype):
        dates = dates_in([*texts, *(w for w in words if hasattr(w, "isoformat"))])
        zone: dict[str, Any] = {"ambiguous": True, "nonexistent": "shift_forward"}
        marks = [date.tz_localize(getattr(dtype, "tz", None), **zone) for date in dates]
        return np.asarray(missing | np.asarray(column.isin(marks), dtype=bool))
    if dtype.kind in "iuf":
        return np.asarray(missing | np.isin(column.to_numpy(), list(numbers)))
    if dtype.kind != "O":
        return missing
    texts.add("")
    stands = [
        v.strip() in texts or (bool(numbers) and _number_in(v) in numbers)
        if isinstance(v, str)
        else bool(numbers) and _is_number(v) and v in numbers
        for v in column.tolist()
    ]
    return np.asarray(missing | np.asarray(stands, dtype=bool))


def _is_number(value: Any) -> bool:
    """Return whether a value of any type is a number, and no truth value."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _number_in(text: str) -> float | None:
    """Return the number that a text spells, or ``None`` where it spells none."""
    try:
        return float(text)
    except ValueError:
        return None


def as_typed(column: pd.Series, missing: np.ndarray[Any, Any]) -> pd.Series:
    """Return a column of objects as numbers or points in time, where all its cells are such.

    Texts that all have the form of ISO 8601 dates become points in time. Columns of other types,
    and those whose cells are mixed, are returned as they are. Texts such as 007 are no numbers,
    because a number would not give them back.

    Args:
        column: The column, as ``plain`` returns it.
        missing: Which cells are missing, (rows,) of bool; NaN or NaT takes their place.

    Example:
        >>> as_typed(pd.Series(["1", "?"], dtype=object), np.array([False, True])).tolist()
        [1.0, nan]
    """
    if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype.kind != "O":
        return column
    there = column[~missing]
    values = there.tolist()
    if not values:
        return column
    numbers = _numbers_of(values)
    if numbers is not None:
        return _spread(pd.array(numbers, dtype="float64"), missing, column, np.nan)
    if are_dates(values):
        return _spread(parsed_dates(values).array, missing, column, pd.NaT)
    if all(hasattr(v, "total_seconds") for v in values):
        with warnings.catch_warnings(action="ignore"):
            return _spread(pd.Series(pd.to_timedelta(values)).array, missing, column, pd.NaT)
    return column


def _numbers_of(values: list[Any]) -> np.ndarray[Any, Any] | None:
    """Return cells as floats; ``None`` where one is no number, or a code of digits."""
    if any(isinstance(v, bool | np.bool_ | complex) for v in values):
        return None
    if any(hasattr(v, "isoformat") or hasattr(v, "total_seconds") for v in values):
        return None
    if any(isinstance(v, str) and is_code(v) for v in values):
        return None
    try:
        numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").astype(float)
    except (TypeError, ValueError, OverflowError):  # a whole number that no float holds
        return None
    return None if numbers.isna().any() else numbers.to_numpy()


def is_code(text: str) -> bool:
    """Return whether a text is a code of digits: it begins with a zero that no number needs.

    Example:
        >>> is_code("00501"), is_code("0.5")
        (True, False)
    """
    return _PADDED.fullmatch(text) is not None


def _spread(values: Any, missing: np.ndarray[Any, Any], column: pd.Series, fill: Any) -> pd.Series:
    """Return values at the cells that are there, and ``fill`` at the others."""
    result = pd.Series(fill, index=range(len(column)), dtype=values.dtype)
    result[~missing] = values
    spread: pd.Series = result.set_axis(column.index).rename(column.name)
    return spread


def factorized(column: pd.Series) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """Return the place of each cell among the different values, (rows,), and these values.

    Cells that pandas calls missing have the place -1. Lists and the like are told apart as text,
    and so are truth values beside numbers: True == 1 in Python.

    Args:
        column: The column, as ``plain`` returns it.

    Example:
        >>> places, values = factorized(pd.Series(["b", "a", "b"]))
        >>> places.tolist(), values
        ([0, 1, 0], ['b', 'a'])
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(column.cat.codes), list(column.cat.categories)
    cells = column.tolist() if column.dtype.kind == "O" else []
    try:
        if any(isinstance(v, bool) for v in cells) and any(map(_is_number, cells)):
            raise TypeError
        places, values = pd.factorize(column)
        return np.asarray(places), list(values)
    except TypeError:
        gaps = column.isna().tolist()
        texts = [None if gap else _typed_text(v) for v, gap in zip(cells, gaps, strict=True)]
        places, values = pd.factorize(pd.Series(texts, dtype=object))
        return np.asarray(places), [cells[texts.index(text)] for text in values]


def _typed_text(value: Any) -> str:
    """Return the text of a value, with a letter for texts, truth values and others in front."""
    letter = "t" if isinstance(value, str) else "b" if isinstance(value, bool) else "o"
    return letter + text_of(value)


def text_of(value: Any) -> str:
    """Return a category, or the name of a column, as text by which it is found again.

    Whole numbers are written without a point, so that a column of them is the same with gaps and
    without; points in time at midnight are written as dates.

    Example:
        >>> text_of(1.0), text_of("1"), text_of(True), text_of(pd.Timestamp("2024-05-01"))
        ('1', '1', 'True', '2024-05-01')
    """
    value = of_python(value)
    if isinstance(value, float) and math.isfinite(value) and value == round(value):
        return str(int(value))
    is_moment = hasattr(value, "year") and hasattr(value, "hour")
    return str(value).removesuffix(" 00:00:00") if is_moment else str(value)


def of_python(value: Any) -> Any:
    """Return a scalar of NumPy as one of Python, in a tuple as well; others as they are.

    Example:
        >>> of_python(("a", np.int64(1)))
        ('a', 1)
    """
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(of_python, value))
    return value.item() if isinstance(value, np.generic) else value


def key_of(value: Any) -> Any:
    """Return a category as JSON can hold it: texts, truth values and numbers, others as text.

    Example:
        >>> key_of(np.int64(3)), key_of(pd.Interval(0, 1))
        (3, '(0, 1]')
    """
    value = of_python(value)
    if type(value) in (str, bool, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return text_of(value)


def type_named(name: str) -> Any:
    """Return the type of pandas of a name; that of objects where pandas knows none.

    Example:
        >>> type_named("int64"), type_named("a type of a package")
        (dtype('int64'), dtype('O'))
    """
    with warnings.catch_warnings(action="ignore"):
        try:
            dtype = pd.api.types.pandas_dtype(name)
        except (TypeError, ValueError, NotImplementedError, ImportError, SyntaxError):
            return np.dtype(object)
    return np.dtype(object) if dtype.kind in "US" else dtype  # "str" before pandas 3


def in_type(cells: pd.Series, dtype: Any) -> pd.Series:
    """Return cells in a type of pandas, where the type can hold them; else as they are.

    A type of NumPy for whole numbers or truth values holds no missing cells: such a column becomes
    one of floats or objects.

    Example:
        >>> in_type(pd.Series([1.0, None]), np.dtype("int64")).tolist()
        [1.0, nan]
    """
    missing = bool(cells.isna().any())
    if isinstance(dtype, np.dtype) and dtype.kind in "iub" and missing:
        return cells.astype(float) if dtype.kind != "b" and _holds_numbers(cells) else cells
    if isinstance(dtype, pd.SparseDtype):
        cells = in_type(cells, dtype.subtype)
    if isinstance(dtype, pd.PeriodDtype):
        freq: Any = dtype.freq
        return pd.to_datetime(cells).dt.to_period(freq)
    try:
        with warnings.catch_warnings(action="ignore"):
            return cells.astype(dtype)
    except (TypeError, ValueError, NotImplementedError, OverflowError):
        return cells  # the values are right; pandas has no way from them to the type


def _holds_numbers(cells: pd.Series) -> bool:
    """Return whether all cells that are there are numbers."""
    return all(map(_is_number, cells.dropna()))


def place_of(frame: Any, row: int) -> str:
    """Return where a row stands, for messages: its position and its label, where it has one.

    Example:
        >>> place_of(pd.DataFrame(index=["a", "b"]), 1)
        "row 1 (label 'b')"
    """
    label = frame.index[row]
    is_position = isinstance(label, int | np.integer) and label == row
    return f"row {row}" if is_position else f"row {row} (label {shown(label)})"


def as_float(value: Any) -> float:
    """Return a cell as a float: infinity for a number that is too large, NaN for no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
    except OverflowError:
        return math.inf


def limits_of(dtype: Any) -> tuple[float, float]:
    """Return the smallest and the largest float that a type of whole numbers holds."""
    limits = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
    most = float(limits.max)
    return float(limits.min), most if int(most) <= limits.max else float(np.nextafter(most, 0.0))
