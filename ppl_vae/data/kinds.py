"""Which kind of values a column of a table holds, as its cells and its type say.

    real         numbers                    date         points in time
    positive     numbers above 0            binary       two values
    count        whole numbers from 0       categorical  values without an order
    identifier   a name or number of the    ordinal      values with an order
                 row: left out
    text         free text: left out         empty        no value at all: left out

The guess is printed with the schema, and whoever knows better says so (``kinds=``).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

NUMBERS = ("real", "positive", "count", "date")
"""Kinds whose values are numbers."""

CATEGORIES = ("binary", "categorical", "ordinal")
"""Kinds whose values are categories."""

LEFT_OUT = ("identifier", "text", "empty")
"""Kinds of columns that no model reads."""

KINDS = (*NUMBERS, *CATEGORIES, *LEFT_OUT)

LARGEST_COUNT = 10_000
"""The largest count: whole numbers beyond it are numbers whose steps of 1 say nothing."""

SMALLEST = 1e-30
"""Numbers below it are not told from 0 by the logarithm of a float in single precision."""

MOST_CATEGORIES = 500
"""The most categories of a column of text; a column with more holds names or text."""

FEWEST_REPEATS = 10
"""A number that occurs less often is no spike, whatever stands around it."""

SURELY_NAMES = 20
"""So many different texts, none of which repeats, are names of rows."""

_DATE = re.compile(r"\s*\d{4}-\d{1,2}-\d{1,2}([T ].*)?\s*")
"""A text that begins with a date as ISO 8601 writes it."""

_NAME_OF_ID = re.compile(r"(?i)(^|.*[_\s-])(id|uuid|guid|key)$|^id[_\s-].*$|.*(?-i:[a-z]I[Dd])$")
"""Names that columns of identifiers have."""


def is_missing(column: pd.Series, words: Sequence[Any] = ()) -> np.ndarray[Any, Any]:
    """Return which cells of a column are missing, (rows,) of bool.

    Missing are what pandas says is missing, texts without a letter, and the given words.

    Args:
        column: The column.
        words: Texts and numbers that stand for a missing value, such as ``"?"`` or -999.

    Example:
        >>> is_missing(pd.Series(["a", "", None, " ? "]), ["?"]).tolist()
        [False, True, True, True]
    """
    missing = np.asarray(column.isna(), dtype=bool)
    texts = {str(word).strip() for word in words if isinstance(word, str)}
    numbers = [w for w in words if isinstance(w, int | float) and not isinstance(w, bool)]
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        gaps = is_missing(pd.Series(dtype.categories), words)
        codes = np.asarray(column.cat.codes)
        return np.asarray(missing | (gaps[codes] if len(gaps) else False))
    if pd.api.types.is_bool_dtype(dtype) or isinstance(dtype, pd.DatetimeTZDtype):
        return missing
    if pd.api.types.is_numeric_dtype(dtype):
        numbers += [float(text) for text in texts if _is_number(text)]
        return np.asarray(missing | np.asarray(column.isin(numbers).fillna(False), dtype=bool))
    if dtype.kind in "mM":
        return missing
    marks = {"", *texts}
    words_in = [
        v.strip() in marks if isinstance(v, str) else _equals(v, numbers) for v in column.tolist()
    ]
    return np.asarray(missing | np.asarray(words_in, dtype=bool))


def _is_number(text: str) -> bool:
    """Return whether a text spells a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _equals(value: Any, numbers: Sequence[Any]) -> bool:
    """Return whether a value of any type is one of some numbers."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return is_number and any(value == number for number in numbers)


def as_typed(column: pd.Series, missing: np.ndarray[Any, Any]) -> pd.Series:
    """Return a column of texts as numbers or points in time, where all its texts are such.

    Texts that all have the form of ISO 8601 dates become points in time. Columns of other types,
    and those whose texts are mixed, are returned as they are.

    Args:
        column: The column.
        missing: Which cells are missing, (rows,) of bool; NaN or NaT takes their place.

    Example:
        >>> as_typed(pd.Series(["1", "?"]), np.array([False, True])).tolist()
        [1.0, nan]
    """
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype) or not _holds_objects(dtype):
        return column
    there = column[~missing]
    values = there.tolist()
    if not values:
        return column
    if not any(isinstance(v, bool | np.bool_) for v in values):
        numbers = pd.to_numeric(there.astype(object), errors="coerce")
        if numbers.notna().all():
            return _spread(numbers.astype(float).array, missing, column, np.nan)
    if all(isinstance(v, str) and _DATE.fullmatch(v) for v in values) or all(
        hasattr(v, "isoformat") and hasattr(v, "year") for v in values
    ):
        with warnings.catch_warnings(action="ignore"):
            dates = pd.to_datetime(there.astype(object), errors="coerce", format="ISO8601")
        if dates.notna().all() and dates.dtype.kind == "M":
            return _spread(dates.array, missing, column, pd.NaT)
    return column


def _holds_objects(dtype: Any) -> bool:
    """Return whether a column of a dtype holds texts or objects of Python."""
    return bool(pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype))


def _spread(values: Any, missing: np.ndarray[Any, Any], column: pd.Series, fill: Any) -> pd.Series:
    """Return values at the cells that are there, and ``fill`` at the others."""
    result = pd.Series(fill, index=range(len(column)), dtype=values.dtype)
    result[~missing] = values
    spread: pd.Series = result.set_axis(column.index)
    return spread


def guess_kind(column: pd.Series, missing: np.ndarray[Any, Any]) -> str:
    """Return the kind of a column, one of ``KINDS``.

    Args:
        column: The column, as ``as_typed`` returns it.
        missing: Which cells are missing, (rows,) of bool.

    Example:
        >>> nothing = np.zeros(4, dtype=bool)
        >>> columns = [0, 1, 3, 2], [0.5, -1, 2, 3], list("abab")
        >>> [guess_kind(pd.Series(values), nothing) for values in columns]
        ['count', 'real', 'binary']
    """
    there, dtype = column[~missing], column.dtype
    if not len(there):
        return "empty"
    is_number = pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c"
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(dtype):
        ordered = bool(getattr(dtype, "ordered", False))
        kind = _of_categories(there.nunique(), ordered=ordered)
    elif is_time(dtype) or dtype.kind == "m":
        varies = bool((there != there.iloc[0]).any())
        kind = ("date" if is_time(dtype) else "real") if varies else "categorical"
    elif is_number:
        kind = _of_numbers(there.to_numpy(dtype=float), str(column.name))
    else:
        kind = _of_texts(there)
    return kind


def is_time(dtype: Any) -> bool:
    """Return whether a dtype is one of points in time."""
    return isinstance(dtype, pd.DatetimeTZDtype) or dtype.kind == "M"


def _of_categories(count: int, *, ordered: bool) -> str:
    """Return the kind of a column of categories that has ``count`` of them."""
    return "binary" if count == 2 else "ordinal" if ordered and count > 2 else "categorical"


def _of_numbers(values: np.ndarray[Any, Any], name: str) -> str:
    """Return the kind of a column of numbers that are there."""
    different = np.unique(values)
    if len(different) <= 2:
        return _of_categories(len(different), ordered=False)
    whole = bool((values == np.round(values)).all())
    if whole and len(different) == len(values) >= SURELY_NAMES:
        counts_rows = different[-1] - different[0] + 1 == len(values)
        if counts_rows or _NAME_OF_ID.match(name):
            return "identifier"
    if whole and different[0] >= 0 and different[-1] <= LARGEST_COUNT:
        return "count"
    rest = different if different[0] > 0 else np.setdiff1d(different, atoms_of(values))
    if different[0] < 0 or rest[0] <= SMALLEST:
        return "real"
    return "positive" if rest[-1] > 1.01 * rest[0] else "real"


def _of_texts(there: pd.Series) -> str:
    """Return the kind of a column of texts, or of objects, that are there."""
    values = there.tolist()
    try:
        count = len(set(values))
    except TypeError:  # lists and the like, which are no categories
        return "text"
    repeats = count < len(values)
    if not repeats and len(values) >= SURELY_NAMES:
        words = sum(len(str(value).split()) for value in values) / len(values)
        return "text" if words > 4 else "identifier"
    if count > MOST_CATEGORIES or (count > SURELY_NAMES and count > len(values) / 2):
        return "text"
    return _of_categories(count, ordered=False)


def atoms_of(values: np.ndarray[Any, Any], most: int = 40) -> list[float]:
    """Return the numbers that repeat far more often than the numbers around them.

    An atom is three times as frequent as the numbers around it are on average: the nearest two
    different ones on either side. Among whole numbers, those between them that never occur count
    as well, so that one of few numbers which occur at all is an atom; it is 0.1 % of the values or
    more. Among other numbers it is 5 % or more. What is no atom, a density describes.

    Args:
        values: Numbers that are there.
        most: The most atoms; the most frequent are taken.

    Example:
        >>> hours = np.r_[np.full(50, 40), np.arange(20, 60)]
        >>> atoms_of(hours)
        [40.0]
    """
    different, counts = np.unique(values, return_counts=True)
    if len(different) < 3 or counts.max() < FEWEST_REPEATS:
        return []
    padded = np.pad(counts.astype(float), 2)
    beside = sum(padded[i : i + len(counts)] for i in (0, 1, 3, 4))
    place = np.arange(len(counts))
    first, last = np.maximum(place - 2, 0), np.minimum(place + 2, len(counts) - 1)
    whole = bool((different == np.round(different)).all())
    around = different[last] - different[first] if whole else last - first
    least = max(FEWEST_REPEATS, (0.001 if whole else 0.05) * len(values))
    found = (counts >= least) & (counts * around >= 3 * beside)
    places = np.flatnonzero(found)
    chosen = places[np.argsort(-counts[places], kind="stable")][:most]
    return [float(different[place]) for place in np.sort(chosen)]
