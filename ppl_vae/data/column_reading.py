"""The schema of a column, read from its cells: kind, unit, range, categories, atoms, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import shown
from ppl_vae.data.kinds import (
    CATEGORIES,
    LARGEST_COUNT,
    NUMBERS,
    SMALLEST,
    atoms_of,
    guess_kind,
)
from ppl_vae.data.plain_columns import (
    as_typed,
    factorized,
    is_missing,
    key_of,
    of_python,
    place_of,
    plain,
    text_of,
)
from ppl_vae.data.schema_columns import LARGEST, ORDERED, WHOLE, SchemaColumn
from ppl_vae.data.times import are_dates, form_of, is_time, unit_of

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

    Example:
        >>> read_column(pd.Series(["low", "high", "low"], name="risk"), None, ()).categories
        ('high', 'low')
    """
    dtype: Any = column.dtype
    is_ordered = isinstance(dtype, pd.CategoricalDtype) and bool(dtype.ordered)
    known: dict[str, Any] = {
        "name": of_python(column.name), "dtype": ORDERED if is_ordered else str(dtype),
        "pandas_type": dtype,
    }  # fmt: skip
    cells = plain(column)
    missing = is_missing(cells, words)
    typed = as_typed(cells, missing)
    kind = kind or guess_kind(typed, missing)
    known["gaps"] = float(missing.mean())
    if missing.all() and kind in (*CATEGORIES, *NUMBERS):
        kind = "empty"
    if kind in CATEGORIES:
        return _of_categories(cells, missing, {**known, "kind": kind})
    if kind in NUMBERS:
        return _of_numbers(cells, typed, missing, {**known, "kind": kind})
    return SchemaColumn(kind=kind, note=_almost_typed(typed, missing), **known)


def _of_categories(
    cells: pd.Series, missing: np.ndarray[Any, Any], known: dict[str, Any]
) -> SchemaColumn:
    """Return the schema of a column of categories; arguments as ``read_column`` has them."""
    is_ordered = known["dtype"] == ORDERED
    places, values = factorized(cells)
    if is_ordered:  # those that no row has belong to the order
        gaps = set(places[missing & (places >= 0)])
        values = [value for place, value in enumerate(values) if place not in gaps]
    else:
        values = _sorted([values[place] for place in np.unique(places[~missing])])
    keys = [key_of(value) for value in values]
    if len(set(map(text_of, keys))) < len(keys):
        raise ValueError(
            f'data: column "{known["name"]}": expected categories that differ as text, got '
            f"{shown(values[:5])}; write one kind of values in the column"
        )
    note = ""
    if known["kind"] == "binary" and len(values) != 2:
        known["kind"] = "categorical"
    same = all(type(k) is type(v) and k == v for k, v in zip(keys, values, strict=True))
    looks = [k for k in keys if isinstance(k, str) and k.strip().lower() in GAPS]
    if looks:
        note = f'the category "{looks[0]}" looks like a gap: missing=["{looks[0]}"] makes it one'
    elif known["kind"] == "ordinal" and not is_ordered and any(isinstance(k, str) for k in keys):
        note = (
            f"the order of the categories is that of the alphabet, {shown(keys[:3])}: give the "
            "order by pandas.Categorical(values, categories, ordered=True), or edit the schema"
        )
    originals = None if same else tuple(values)
    return SchemaColumn(**known, categories=tuple(keys), note=note, originals=originals)


def _sorted(values: list[Any]) -> list[Any]:
    """Return values in their order; those of different types by type and text."""
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=lambda v: (str(type(v)), str(v)))


def _of_numbers(
    column: pd.Series, typed: pd.Series, missing: np.ndarray[Any, Any], known: dict[str, Any]
) -> SchemaColumn:
    """Return the schema of a column of numbers; arguments as ``read_column`` has them."""
    kind = known["kind"]
    if is_time(typed.dtype) or typed.dtype.kind == "m":
        known["unit"] = unit_of(typed, missing)
        if column.dtype.kind == "O" and is_time(typed.dtype):
            known["form"] = form_of(column[~missing].tolist())
    blank = SchemaColumn(**known)
    whole_column = blank.numbers(column, missing, "data")
    numbers = whole_column[~missing]
    if "unit" not in known and (numbers == np.round(numbers)).all():
        blank = replace(blank, form=WHOLE)
    if kind == "positive":  # numbers that repeat need not be above 0
        blank = replace(blank, atoms=tuple(atoms_of(numbers)))
    blank.check_numbers(column, whole_column, ~missing, "data")
    lower, upper = float(numbers.min()), float(numbers.max())
    offset = lower if kind == "date" else 0.0
    if kind == "real":
        middle = float(np.median(numbers))
        is_far = abs(middle) > 1000 * max(upper - lower, 1e-300)
        offset = middle if is_far else 0.0
    shifted = numbers - offset
    _check_spread(column, missing, shifted, kind)
    atoms = atoms_of(shifted) if kind != "date" else []
    loc, scale = _moments(shifted, atoms, logarithm=kind == "positive")
    odd = [n for n in (lower, upper) if n in GAP_NUMBERS and _stands_apart(numbers, n)]
    note = (
        f"the number {odd[0]:g} looks like a gap: missing=[{odd[0]:g}] makes it one" if odd else ""
    )
    if kind == "count" and upper > LARGEST_COUNT:
        note = note or f"counts up to {upper:g}: kinds= positive or real describes them faster"
    return replace(
        blank, offset=offset, lower=lower, upper=upper, atoms=tuple(atoms), loc=loc, scale=scale,
        note=note,
    )  # fmt: skip


def _check_spread(
    column: pd.Series, missing: np.ndarray[Any, Any], shifted: np.ndarray[Any, Any], kind: str
) -> None:
    """Raise ``ValueError`` where single precision does not tell numbers apart, or is left by them.

    Args:
        column: The column.
        missing: Which cells are missing, (rows,) of bool.
        shifted: The numbers that are there, less the offset.
        kind: The kind of the column.
    """
    spread = float(shifted.max() - shifted.min())
    if 0 < spread < SMALLEST or (kind == "date" and spread > LARGEST):
        row = int(np.flatnonzero(~missing)[int(shifted.argmax())])
        size = "smaller" if spread < 1 else "larger"
        expected = f"numbers that differ by {SMALLEST:g} to {LARGEST:g}"
        raise ValueError(
            f'data: column "{text_of(column.name)}" ({kind}): expected {expected}, got '
            f"{shown(column.iloc[row])} in {place_of(column, row)} and numbers at most {spread:g} "
            f"from it; give the column in a {size} unit"
        )


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
    return loc, scale if scale > 1e-12 * abs(loc) else 1.0


def _almost_typed(typed: pd.Series, missing: np.ndarray[Any, Any]) -> str:
    """Return a note on a column of text in which most cells are numbers or dates; "" for others."""
    if isinstance(typed.dtype, pd.CategoricalDtype) or typed.dtype.kind != "O":
        return ""
    values = [value for value in typed[~missing].tolist() if isinstance(value, str)]
    if not values:
        return ""
    is_number = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").notna().to_numpy()
    for what, fits in (
        ("numbers", is_number),
        ("dates", np.array([are_dates([v]) for v in values])),
    ):
        others = [value for value, fit in zip(values, fits, strict=True) if not fit]
        if others and len(others) < len(values) / 2:
            word = shown(others[0])
            return (
                f"{len(others)} of {len(values)} cells are no {what}, such as {word}: correct "
                f"them, or make them gaps, missing=[{word}]"
            )
    return ""


def check_words(words: Sequence[Any]) -> None:
    """Raise ``ValueError`` where a word for missing values is no text, number or date."""
    for word in words:
        is_word = isinstance(word, str | int | float | np.number) or hasattr(word, "isoformat")
        if isinstance(word, bool) or not (is_word or word is None):
            raise ValueError(
                f'missing: expected texts, numbers or dates, such as ["?", -999], got {shown(word)}'
            )
