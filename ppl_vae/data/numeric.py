"""The columns of a table as numbers; every column that holds none is named at once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ppl_vae.data.plain_columns import is_code
from ppl_vae.data.selection import SHOWN
from ppl_vae.safe_text import text_of_spreadsheet

LARGEST_FLOAT = 1e308  # a whole number beyond it cannot be converted to a float

Place = Callable[[int], str]
"""Tells where a row stands in a file, for messages: ``"line 3"``."""

_GROUPED = re.compile(r"[+-]?\d{1,3}([,.'\u2019_\s])\d{3}(\1\d{3})*([.,]\d+)?")
"""A number whose digits stand in groups of three, such as 1,234 or 1.234,5 or 12 345."""

LEAVE_OUT = (
    "drop the column or encode it as numbers; drop= leaves columns out; the model of tables, "
    "models/table.py, takes columns of text"
)


@dataclass(frozen=True)
class _Fault:
    """A column that does not hold numbers: what was found where, and what to do."""

    text: str
    mend: str = ""


def numeric_columns(frame: pd.DataFrame, path: Path, place: Place) -> pd.DataFrame:
    """Return the columns of a frame as numbers, and warn of missing cells.

    Columns of lists, as files of sequences have, stay as they are.

    The time grows with the number of cells, for a table of any width.

    Args:
        frame: The wanted columns, as read, each with a name of its own.
        path: The file, for messages.
        place: Tells where a row stands in the file.

    Raises:
        ValueError: If columns hold text; names the first five of them, each with its first text.
    """
    is_number = {dtype: pd.api.types.is_numeric_dtype(dtype) for dtype in set(frame.dtypes)}
    text = [c for c, dtype in zip(frame.columns, frame.dtypes, strict=True) if not is_number[dtype]]
    text = [column for column in text if not holds_lists(frame[column])]
    if text:
        converted = {name: _as_numbers(frame[name]) for name in text}
        bad = [name for name, values in converted.items() if values is None]
        if bad:
            raise _not_numbers(frame, bad, path, place)
        numbers = pd.DataFrame(converted, index=frame.index)
        frame = pd.concat([frame.drop(columns=text), numbers], axis=1)[list(frame.columns)]
    missing = frame.isna().to_numpy()
    if missing.any():
        _warn_of_missing(frame, missing, path, place)
    return frame


def mixed_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return columns of any kind, with texts that ``spreadsheet_text`` marked as they were.

    Columns of texts that all spell numbers become numbers. Codes of digits, such as 00501, stay
    texts: the number would be another code.
    """
    found = {}
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if not (pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype)):
            continue
        texts = frame[name].map(_unmarked)
        numbers = _numbers_in(texts)
        found[name] = texts if numbers is None else numbers
    return frame.assign(**found) if found else frame


def _unmarked(value: object) -> object:
    """Return a text of a file without the mark in front."""
    return text_of_spreadsheet(value) if isinstance(value, str) else value


def _numbers_in(column: pd.Series) -> pd.Series | None:
    """Return a column of texts as numbers; ``None`` where one is no number, or a code of digits."""
    there = column.dropna()
    if not len(there) or not all(isinstance(v, str) and not is_code(v) for v in there):
        return None
    numbers: pd.Series = pd.to_numeric(column, errors="coerce")
    return None if (numbers.isna() & column.notna()).any() else numbers


def holds_lists(column: pd.Series) -> bool:
    """Return whether the first cell of a column that is not missing holds a list or an array.

    Example:
        >>> holds_lists(pd.Series([None, [0.5, 1.5]])), holds_lists(pd.Series(["a"]))
        (True, False)
    """
    if pd.api.types.is_numeric_dtype(column):
        return False
    first = next((cell for cell in column if isinstance(cell, Sized) or not pd.isna(cell)), None)
    return isinstance(first, list | tuple | np.ndarray)


def number_in(text: str) -> float | None:
    """Return the number that a text spells, or ``None`` where it spells none."""
    try:
        return float(text)
    except ValueError:
        return None


def _as_numbers(column: pd.Series) -> pd.Series | None:
    """Return a column of text as floats; ``None`` where a value is no number, or is too large."""
    if _too_large(column):
        return None
    values = pd.to_numeric(column.astype(object), errors="coerce")
    return None if (values.isna() & column.notna()).any() else values.astype(np.float64)


def _too_large(column: pd.Series) -> list[int]:
    """Return the rows with whole numbers that no float can hold."""
    return [n for n, v in enumerate(column) if isinstance(v, int) and abs(v) > LARGEST_FLOAT]


def _not_numbers(frame: pd.DataFrame, bad: list[str], path: Path, place: Place) -> ValueError:
    """Return the error that names the columns without numbers; arguments as ``numeric_columns``."""
    faults = [_fault(frame[name], place) for name in bad[:SHOWN]]
    more = f"; and {len(bad) - SHOWN} more columns" if len(bad) > SHOWN else ""
    mends = "".join(f"; {mend}" for mend in dict.fromkeys(f.mend for f in faults if f.mend))
    return ValueError(f"{path}: {'; '.join(fault.text for fault in faults)}{more}{mends}")


def _fault(column: pd.Series, place: Place) -> _Fault:
    """Return what is wrong with a column that does not hold numbers."""
    if large := _too_large(column):
        return _Fault(f'column "{column.name}": too large a number in {place(large[0])}')
    values = pd.to_numeric(column.astype(object), errors="coerce")
    not_numbers = (values.isna() & column.notna()).to_numpy()
    row = int(not_numbers.argmax())
    value = str(column.iloc[row])[:40]
    return _Fault(
        f'column "{column.name}": expected numbers, got "{value}" in {place(row)} '
        f"({int(not_numbers.sum())} of {len(column)} values are text)",
        _mend([str(text).strip() for text in column[not_numbers]]),
    )


def _mend(texts: list[str]) -> str:
    """Return what to do about texts in a column of numbers."""
    if all(_GROUPED.fullmatch(text) for text in texts):
        comma = ", and decimals with a point" if any("," in text for text in texts) else ""
        return f"write numbers without thousands separators, as 1234{comma}"
    if number_in(texts[0].replace(",", ".", 1)) is not None:
        return "write decimals with a point"
    return LEAVE_OUT


def _warn_of_missing(frame: pd.DataFrame, missing: np.ndarray, path: Path, place: Place) -> None:
    """Warn of missing cells, by column: how many, and where the first one stands.

    Args:
        frame: The table.
        missing: (rows, columns), whether a cell is missing.
        path: The file.
        place: Tells where a row stands in the file.
    """
    counts = missing.sum(0)
    positions = counts.nonzero()[0]
    columns = [
        f'column "{frame.columns[position]}" has {counts[position]} missing values, the first in '
        f"{place(int(missing[:, position].argmax()))}"
        for position in positions[:SHOWN]
    ]
    more = f"; and {len(positions) - SHOWN} more columns" if len(positions) > SHOWN else ""
    warnings.warn(f"{path}: {'; '.join(columns)}{more}", stacklevel=2)
