"""Tables in files of text, CSV and TSV, as frames of numeric columns.

A table that cannot be read raises a ``ValueError`` that names the file and the line, the column
or the row at fault.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from ppl_vae.data.lines import (
    check_is_text,
    first_line_not_utf8,
    is_packed,
    line_of_row,
    records,
    separator_of,
)
from ppl_vae.data.numeric import mixed_columns, number_in, numeric_columns
from ppl_vae.data.selection import (
    SHOWN,
    ColumnChoice,
    ColumnChoiceError,
    first_repeated,
    listed_names,
    missing_names,
    row_labels,
)
from ppl_vae.safe_text import text_of_spreadsheet

Part: TypeAlias = tuple[pd.DataFrame, pd.DataFrame]
"""Some rows of a table: the numeric columns, and columns that are handed on as they are."""

WIDE = 1000  # pandas holds each of so many columns apart until a frame is copied


def flat_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with one text as name of each column.

    Example:
        >>> columns = pd.MultiIndex.from_tuples([("z", "mean", 0), ("z", "sd", 0)])
        >>> list(flat_columns(pd.DataFrame([[0.0, 1.0]], columns=columns)).columns)
        ['z.mean.0', 'z.sd.0']
    """
    names = [".".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in frame.columns]
    return frame.set_axis(names, axis=1)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's class where it has none."""
    return (str(error) or type(error).__name__).partition("\n")[0]


def read_csv(path: Path, choice: ColumnChoice) -> pd.DataFrame:
    """Read a table of text with names in its first line.

    Values may be separated by commas, semicolons or tabs. A first column without a name holds the
    labels of the rows. The apostrophe that ``spreadsheet_text`` puts in front of a name is taken
    off.

    Args:
        path: The file, in UTF-8; it may be packed by gzip.
        choice: Which columns to read.

    Returns:
        A frame of numeric columns. Missing cells are NaN, and a ``UserWarning`` counts them.

    Raises:
        ValueError: If the file is not a table of numbers in this form.
    """
    ((frame, _),) = csv_parts(path, choice)
    return frame


def csv_parts(
    path: Path, choice: ColumnChoice | None, rows: int | None = None, keep: Sequence[str] = ()
) -> Iterator[Part]:
    """Yield a table of text in parts of some rows; arguments and errors as ``read_csv``.

    Args:
        path: The file.
        choice: Which columns to read as numbers; ``None`` for none.
        rows: Rows of a part; ``None`` for all rows in one part.
        keep: Columns that are handed on as they stand in the file, as text.

    Yields:
        The numeric columns, and the columns to keep.
    """
    try:
        check_is_text(path)
        yield from _parse_csv(path, choice, rows, keep)
    except UnicodeDecodeError as error:
        number = first_line_not_utf8(path)
        raise ValueError(f"{path}, line {number}: expected UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as a table: {error}") from error
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path}: packed by gzip, and damaged ({first_line(error)})") from error


def _parse_csv(
    path: Path, choice: ColumnChoice | None, rows: int | None, keep: Sequence[str]
) -> Iterator[Part]:
    """Read a table with pandas; where lines have too many or too few values, find the line.

    pandas fills a short line with missing cells and takes a longer one for a column of labels
    where it can. So after pandas, wherever that may have happened, the lines are counted again.
    """
    separator = separator_of(path)
    start, written = next(records(path, separator), (1, []))
    names = [text_of_spreadsheet(name) for name in written]
    _check_column_names(path, start, names)
    labelled = names[0] == ""
    features = choice.features(names[labelled:], str(path)) if choice else []
    index = choice.index if choice else None
    check_kept(keep, names[labelled:], path)
    line, read, counted = line_of_row(path, separator), 0, False
    mixed = choice is not None and choice.mixed
    for part in _read_with_pandas(path, separator, written, (index, *keep), rows, mixed=mixed):
        suspect = len(part.columns) != len(names) - labelled or part.iloc[:, -1].isna().any()
        if suspect and not counted:
            _check_line_widths(path, separator, names)
            counted = True
        if not len(part):
            break
        place = partial(row_of_file, line, read)
        read += len(part)
        frame = _with_labels(part, names, index, keep)
        if choice and index is not None:
            frame.index = row_labels(frame[index], str(path), place, repeats=choice.repeats)
        kept, frame = frame[list(keep)], frame[features]
        if mixed:
            yield mixed_columns(frame), kept
            continue
        numeric = numeric_columns(frame.copy() if len(features) > WIDE else frame, path, place)
        _check_infinite(path, separator, names, numeric)
        yield numeric, kept
    if not read:
        raise ValueError(f"{path}: expected rows below the column names, got none")


def _with_labels(
    part: pd.DataFrame, names: list[str], index: str | None, keep: Sequence[str]
) -> pd.DataFrame:
    """Return a table as pandas read it with its names, and texts without the marks in front.

    Args:
        part: The table.
        names: The names of the columns; a first one that is empty stands above the row labels.
        index: The column of the row labels.
        keep: The columns to keep.
    """
    frame = part.set_axis(names[names[0] == "" :], axis=1).rename_axis(None)
    for name in dict.fromkeys(keep if index is None else (index, *keep)):
        frame[name] = pd.Series([marked[1:] for marked in frame[name]], frame.index, object)
    if names[0] == "":
        texts = [text_of_spreadsheet(v) if isinstance(v, str) else v for v in frame.index]
        frame.index = pd.Index(texts)
    return frame


def row_of_file(place: Callable[[int], str], start: int, row: int) -> str:
    """Return where a row of a part stands in the file, which has ``start`` rows before the part."""
    return place(start + row)


def check_kept(keep: Iterable[str], names: Iterable[str], path: Path) -> None:
    """Raise ``ColumnChoiceError`` where a column to keep is missing in a file."""
    if missing := missing_names(keep, names):
        raise ColumnChoiceError(f"keep: expected columns of {path}, got {missing}")


def _read_with_pandas(
    path: Path, separator: str, written: list[str], texts: Sequence[str | None], rows: int | None,
    *, mixed: bool,
) -> Iterator[pd.DataFrame]:  # fmt: skip
    """Yield a table, in parts of some rows, as pandas reads it.

    Args:
        path: The file.
        separator: The separator of values.
        written: The names of the columns as they stand in the file.
        texts: Columns whose values are texts as they stand in the file, each with a mark in front;
            without the mark, pandas would take the text ``NA`` for a missing value.
        rows: Rows of a part; ``None`` for all rows in one part.
        mixed: Whether all values are read as texts, of which ``mixed_columns`` makes numbers.
    """
    places = [p for p, name in enumerate(written) if text_of_spreadsheet(name) in texts]
    as_text = dict.fromkeys(places, "|{}".format)
    options: dict[str, Any] = {
        "sep": separator, "index_col": 0 if written[0] == "" else False, "skipinitialspace": True,
        "low_memory": False, "converters": as_text or None,
        "compression": "gzip" if is_packed(path) else None,
    }  # fmt: skip
    if mixed:
        others = (name for place, name in enumerate(written) if place not in places and name != "")
        options["dtype"] = dict.fromkeys(others, object)
    with contextlib.ExitStack() as opened:
        parts: Iterator[pd.DataFrame] | None = None
        while True:
            try:
                with warnings.catch_warnings():  # lines longer than the first
                    warnings.simplefilter("error", pd.errors.ParserWarning)
                    if rows is None:
                        parts = parts or iter([pd.read_csv(path, **options)])
                    elif parts is None:
                        parts = opened.enter_context(pd.read_csv(path, chunksize=rows, **options))
                    part = next(parts, None)
            except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
                _check_line_widths(path, separator, written)
                *_, (line, _) = records(path, separator)  # an open quote ends with the file
                raise ValueError(f"{path}, line {line}: {first_line(error)}") from error
            except OverflowError as error:  # pandas before 3.1 refuses such a number itself
                unnamed = ValueError(f"{path}: a number is too large for a float")
                raise (_too_large(path, separator, written, written) or unnamed) from error
            if part is None:
                return
            yield part


def _too_large(
    path: Path, separator: str, names: list[str], columns: Iterable[str]
) -> ValueError | None:
    """Return the error that names the first number in digits that no float can hold.

    Args:
        path: The file.
        separator: The separator of values.
        names: The names of all columns.
        columns: The names of the columns to look at.

    Returns:
        The error; ``None`` where there is no such number.
    """
    looked_at = set(columns)
    for line, values in records(path, separator):
        for name, value in zip(names, values, strict=False):
            if name not in looked_at or not any(map(str.isdigit, value)):
                continue
            if number_in(value) in (math.inf, -math.inf):
                return ValueError(f'{path}: column "{name}": too large a number in line {line}')
    return None


def _check_infinite(path: Path, separator: str, names: list[str], frame: pd.DataFrame) -> None:
    """Raise ``ValueError`` where an infinite cell of a frame is a finite number in the file."""
    cells = np.isinf(frame.to_numpy(dtype=np.float64, na_value=np.nan)).any(0)
    infinite = [str(name) for name in frame.columns[cells]]
    error = _too_large(path, separator, names, infinite) if infinite else None
    if error is not None:
        raise error


def _check_column_names(path: Path, line: int, names: list[str]) -> None:
    """Raise ``ValueError`` where the first line does not hold one different name per column."""
    where = f"{path}, line {line}"
    if not names:
        raise ValueError(f"{path}: expected column names and rows, got an empty file")
    unnamed = [position for position, name in enumerate(names, 1) if not name and position > 1]
    if len(unnamed) == 1:
        raise ValueError(f"{where}: column {unnamed[0]} has no name; give it a name")
    if unnamed:
        more = f" and {len(unnamed) - SHOWN} more" if len(unnamed) > SHOWN else ""
        numbers = ", ".join(map(str, unnamed[:SHOWN]))
        raise ValueError(f"{where}: columns {numbers}{more} have no name; give each a name")
    check_names_differ(names, where)
    values = [number_in(name) for name in names if name]
    if values and None not in values:
        numbers_found = [float(value or 0) for value in values]
        whole = all(value.is_integer() for value in numbers_found)
        if not whole or numbers_found != sorted(numbers_found):  # 0, 1, 2, ... may name pixels
            shown = ", ".join(names[:3])
            raise ValueError(
                f"{where}: expected column names, got numbers ({shown}, ...); "
                "write a first line with a name for each column"
            )


def check_names_differ(names: Sequence[str], where: str) -> None:
    """Raise ``ValueError`` where columns have one name; every such name is said."""
    if first_repeated(names) is None:
        return
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    repeated = [name for name, count in counts.items() if count > 1]
    several = "two" if len(repeated) == 1 and counts[repeated[0]] == 2 else "several"
    raise ValueError(
        f"{where}: {several} columns are called {listed_names(repeated)}; "
        f"rename {'one of them' if several == 'two' else 'them'}"
    )


def _check_line_widths(path: Path, separator: str, names: list[str]) -> None:
    """Raise ``ValueError`` for the first line with another number of values than of columns."""
    for line, record in records(path, separator):
        if len(record) != len(names):
            raise ValueError(
                f"{path}, line {line}: expected {len(names)} values, one for each column, "
                f"got {len(record)}{_split_number(record, separator, len(names))}"
            )


def _split_number(record: list[str], separator: str, count: int) -> str:
    """Return a mend for a line whose numbers a comma may have split, as in 1,234; else ""."""
    parts = itertools.pairwise(record)
    split = any(a.lstrip("+-").isdigit() and len(b) == 3 and b.isdigit() for a, b in parts)
    if separator == "," and len(record) > count and split:
        return "; if it has numbers such as 1,234, write them without thousands separators"
    return ""
