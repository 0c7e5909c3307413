"""The schema of a column, read from its cells: kind, unit, range, categories, atoms, notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import shown
from ppl_vae.data.kinds import (
    CATEGORIES,
    LARGEST_COUNT,
    NUMBERS,
    as_typed,
    atoms_of,
    guess_kind,
    is_missing,
    is_time,
)
from ppl_vae.data.schema_columns import UNITS, SchemaColumn, key_of, seconds_of

GAPS = {"?", "na", "n/a", "nan", "null", "none", "unknown", "missing", "-", "--", ".", "#n/a"}
"""Categories that look as if they stood for a missing value."""

GAP_NUMBERS = {-1.0, -9.0, -99.0, -999.0, -9999.0, 9999.0, 99999.0}
"""Numbers that often stand for a missing value."""


def read_column(column: pd.Series, kind: str | None, words: Sequence[Any]) -> SchemaColumn:
    """Return the schema of a column.

    Args:
        column: The column.
        kind: Its kind, where the user has said it; else it is guessed.
        words: Texts and numbers that stand for a missing value.

    Raises:
        ValueError: If a cell is not of the kind that the user has said.
    """
    missing = is_missing(column, words)
    typed = as_typed(column, missing)
    kind = kind or guess_kind(typed, missing)
    gaps = float(missing.mean())
    known: dict[str, Any] = {"name": column.name, "dtype": str(column.dtype), "gaps": gaps}
    if kind in CATEGORIES:
        return _of_categories(column, typed, missing, {**known, "kind": kind})
    if kind in NUMBERS:
        return _of_numbers(column, typed, missing, {**known, "kind": kind})
    return SchemaColumn(kind=kind, **known)


def _of_categories(
    column: pd.Series, typed: pd.Series, missing: np.ndarray[Any, Any], known: dict[str, Any]
) -> SchemaColumn:
    """Return the schema of a column of categories; arguments as ``read_column`` has them."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        held = set(column[~missing])
        values = [v for v in dtype.categories if dtype.ordered or v in held]
    else:
        source = column if typed.dtype == column.dtype or _holds_text(column, missing) else typed
        values = list(pd.unique(source[~missing]))
        try:
            values.sort()
        except TypeError:  # texts beside numbers
            values.sort(key=lambda v: (str(type(v)), str(v)))
    if not values:
        return SchemaColumn(**{**known, "kind": "empty"})
    keys = [key_of(value) for value in values]
    if len(set(map(str, keys))) < len(keys):
        raise ValueError(
            f'column "{column.name}": expected categories that differ as text, got '
            f"{shown(values[:5])}; write one kind of values in the column"
        )
    if known["kind"] == "binary" and len(values) != 2:
        known["kind"] = "categorical"
    same = all(type(k) is type(v) and k == v for k, v in zip(keys, values, strict=True))
    looks = [k for k in keys if isinstance(k, str) and k.strip().lower() in GAPS]
    note = (
        f'the category "{looks[0]}" looks like a gap: missing=["{looks[0]}"] makes it one'
        if (looks)
        else ""
    )
    originals = None if same else tuple(values)
    return SchemaColumn(**known, categories=tuple(keys), note=note, originals=originals)


def _holds_text(column: pd.Series, missing: np.ndarray[Any, Any]) -> bool:
    """Return whether a column of objects has a text among the cells that are there."""
    return any(isinstance(v, str) for v in column[~missing])


def _of_numbers(
    column: pd.Series, typed: pd.Series, missing: np.ndarray[Any, Any], known: dict[str, Any]
) -> SchemaColumn:
    """Return the schema of a column of numbers; arguments as ``read_column`` has them."""
    kind = known["kind"]
    unit = None
    if is_time(typed.dtype) or typed.dtype.kind == "m":
        seconds = seconds_of(typed)[~missing]
        unit = "days" if (seconds % UNITS["days"] == 0).all() else "seconds"
    blank = SchemaColumn(**known, unit=unit)
    numbers = blank._numbers(column, missing, "data")[~missing]
    if not len(numbers):
        return SchemaColumn(**{**known, "kind": "empty"})
    if kind == "positive":  # numbers that repeat need not be above 0
        blank = SchemaColumn(**known, unit=unit, atoms=tuple(atoms_of(numbers)))
    whole_column = np.full(len(missing), np.nan)
    whole_column[~missing] = numbers
    blank._check_numbers(column, whole_column, ~missing, "data")
    lower, upper = float(numbers.min()), float(numbers.max())
    offset = 0.0
    if kind in ("real", "date"):
        middle = float(np.median(numbers))
        far = abs(middle) > 1000 * max(upper - lower, 1e-300) or kind == "date"
        offset = (lower if kind == "date" else middle) if far else 0.0
    shifted = numbers - offset
    atoms = atoms_of(shifted) if kind != "date" else []
    loc, scale = _moments(shifted, atoms, logarithm=kind == "positive")
    odd = [n for n in (lower, upper) if n in GAP_NUMBERS and _stands_apart(numbers, n)]
    note = (
        f"the number {odd[0]:g} looks like a gap: missing=[{odd[0]:g}] makes it one" if odd else ""
    )
    if kind == "count" and upper > LARGEST_COUNT:
        note = note or f"counts up to {upper:g}: kinds= positive or real describes them faster"
    return SchemaColumn(
        **known, unit=unit, offset=offset, lower=lower, upper=upper, atoms=tuple(atoms), loc=loc,
        scale=scale, note=note,
    )  # fmt: skip


def _stands_apart(numbers: np.ndarray[Any, Any], number: float) -> bool:
    """Return whether a number is farther from all others than these are from one another."""
    others = numbers[numbers != number]
    if len(others) < 2 or len(others) == len(numbers):
        return False
    spread = float(others.max() - others.min())
    return float(np.abs(others - number).min()) > spread


def _moments(
    numbers: np.ndarray[Any, Any], atoms: Sequence[float], *, logarithm: bool
) -> tuple[float, float]:
    """Return mean and standard deviation of the numbers that are no atoms; of all where few are."""
    rest = numbers[~np.isin(numbers, atoms)]
    if len(rest) < 2 or rest.min() == rest.max():
        rest = numbers
    if logarithm:
        rest = np.log(rest[rest > 0])
    loc, scale = float(rest.mean()), float(rest.std())
    return loc, scale if scale > 1e-12 * max(1.0, abs(loc)) else 1.0
