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
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.data.times import is_time

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
"""The smallest positive number: single precision tells smaller ones from 0 with few digits."""

MOST_CATEGORIES = 500
"""The most categories of a column of text; a column with more holds names or text."""

FEWEST_REPEATS = 10
"""A number that occurs less often is no spike, whatever stands around it."""

SURELY_NAMES = 20
"""So many different texts, none of which repeats, are names of rows."""

_NAME_OF_ID = re.compile(r"(?i)(^|.*[_\s-])(id|uuid|guid|key)$|^id[_\s-].*$|.*(?-i:[a-z]I[Dd])$")
"""Names that columns of identifiers have."""


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
    if isinstance(dtype, pd.CategoricalDtype) or dtype.kind == "b":
        ordered = bool(getattr(dtype, "ordered", False))
        kind = _of_categories(there.nunique(), ordered=ordered)
    elif is_time(dtype) or dtype.kind == "m":
        varies = bool((there != there.iloc[0]).any())
        kind = ("date" if is_time(dtype) else "real") if varies else "categorical"
    elif dtype.kind in "iuf":
        kind = _of_numbers(there.to_numpy(dtype=float), str(column.name))
    else:
        kind = _of_texts(there)
    return kind


def _of_categories(count: int, *, ordered: bool) -> str:
    """Return the kind of a column of categories that has ``count`` of them."""
    return "binary" if count == 2 else "ordinal" if ordered and count > 2 else "categorical"


def _of_numbers(values: np.ndarray[Any, Any], name: str) -> str:
    """Return the kind of a column of numbers that are there."""
    different = np.unique(values)
    if np.isinf(values).any():
        return "real"  # which refuses the cell
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
