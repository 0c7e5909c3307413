"""Tables in files: CSV, TSV and Parquet as frames of numeric columns.

A table that cannot be read raises a ``ValueError`` that names the file and the line, the column
or the row at fault.
"""

from __future__ import annotations

import csv
import difflib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

LARGEST_FLOAT = 1e308  # a whole number beyond it cannot be converted to a float


def flat_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with one text as name of each column.

    Example:
        >>> columns = pd.MultiIndex.from_tuples([("z", "mean", 0), ("z", "sd", 0)])
        >>> list(flat_columns(pd.DataFrame([[0.0, 1.0]], columns=columns)).columns)
        ['z.mean.0', 'z.sd.0']
    """
    names = [".".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in frame.columns]
    return frame.set_axis(names, axis=1)


def check_names_present(
    wanted: Iterable[str], present: Iterable[str], where: str, what: str
) -> None:
    """Raise ``ValueError`` where names that a run expects are missing, with close names as hint.

    Args:
        wanted: The names that must be present.
        present: The names that the file has.
        where: The file, or the place in the file.
        what: What the names are of: ``"columns"`` or ``"arrays"``.

    Raises:
        ValueError: If a wanted name is missing.
    """
    missing = [name for name in wanted if name not in present]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], list(present), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    names = ", ".join(f'"{name}"' for name in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    raise ValueError(f"{where}: expected the run's {what}, got none called {names}{more}{hint}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's class where it has none."""
    return (str(error) or type(error).__name__).partition("\n")[0]


def read_csv(path: Path, like: Any) -> pd.DataFrame:
    """Read a table of text with names in its first line.

    Values may be separated by commas, semicolons or tabs. A first column without a name holds the
    labels of the rows.

    Args:
        path: The file, in UTF-8.
        like: A frame whose columns are selected by name; anything else selects all columns.

    Returns:
        A frame of numeric columns. Missing cells are NaN, and a ``UserWarning`` counts them.

    Raises:
        ValueError: If the file is not a table of numbers in this form.
    """
    try:
        return _parse_csv(path, like)
    except UnicodeDecodeError as error:
        number = _first_line_not_utf8(path)
        raise ValueError(f"{path}, line {number}: expected UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as a table: {error}") from error


def _parse_csv(path: Path, like: Any) -> pd.DataFrame:
    """Read a table with pandas; where lines have too many or too few values, find the line.

    pandas fills a short line with missing cells and takes a longer one for a column of labels
    where it can. So after pandas, wherever that may have happened, the lines are counted again.
    """
    separator = _separator(path)
    start, names = next(_records(path, separator), (1, []))
    _check_column_names(path, start, names)
    labelled = names[0] == ""
    index = 0 if labelled else False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines longer than the first
            frame = pd.read_csv(
                path, sep=separator, index_col=index, skipinitialspace=True, low_memory=False
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        _check_line_widths(path, separator, names)
        *_, (line, _) = _records(path, separator)  # a quote that is not closed ends with the file
        raise ValueError(f"{path}, line {line}: {first_line(error)}") from error
    except OverflowError as error:  # pandas before 3.1 refuses such a number itself
        unnamed = ValueError(f"{path}: a number is too large for a float")
        raise (_too_large(path, separator, names, names) or unnamed) from error
    if len(frame.columns) != len(names) - labelled or _has_missing_cells(frame.iloc[:, -1:]):
        _check_line_widths(path, separator, names)
    if not len(frame):
        raise ValueError(f"{path}: expected rows below the column names, got none")
    numeric = _numeric(frame.rename_axis(None), path, like, _line_of_row(path, separator))
    _check_infinite(path, separator, names, numeric)
    return numeric


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
    for line, values in _records(path, separator):
        for name, value in zip(names, values, strict=False):
            is_infinite = _number(value) in (math.inf, -math.inf) and any(map(str.isdigit, value))
            if is_infinite and name in columns:
                return ValueError(f'{path}: column "{name}": too large a number in line {line}')
    return None


def _check_infinite(path: Path, separator: str, names: list[str], frame: pd.DataFrame) -> None:
    """Raise ``ValueError`` where an infinite cell of a frame is a finite number in the file."""
    cells = np.isinf(frame.to_numpy(dtype=np.float64, na_value=np.nan)).any(0)
    infinite = [str(name) for name in frame.columns[cells]]
    error = _too_large(path, separator, names, infinite) if infinite else None
    if error is not None:
        raise error


def _first_line_not_utf8(path: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 1


def _separator(path: Path) -> str:
    """Return the separator: a tab for ``.tsv``, else the most frequent one in the first line."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    if not first:
        raise ValueError(f"{path}: expected column names and rows, got an empty file")
    return max(",;\t", key=first.count)


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of every line that is not blank, with the line's number.

    A quoted value may span several lines; the number is that of the first of them.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        line = 1
        for record in reader:
            if len(record) > 1 or "".join(record).strip():
                yield line, record
            line = reader.line_num + 1


def _check_column_names(path: Path, line: int, names: list[str]) -> None:
    """Raise ``ValueError`` where the first line does not hold one different name per column."""
    where = f"{path}, line {line}"
    if not names:
        raise ValueError(f"{path}: expected column names and rows, got an empty file")
    for position, name in enumerate(names):
        if not name and position:
            raise ValueError(f"{where}: column {position + 1} has no name; give it a name")
        if name in names[:position]:
            raise ValueError(f'{where}: two columns are called "{name}"; rename one of them')
    numbers = [_number(name) for name in names if name]
    if numbers and None not in numbers:
        values = [float(number or 0) for number in numbers]
        whole = all(value.is_integer() for value in values)
        if not whole or values != sorted(values):  # 0, 1, 2, ... may well be names of pixels
            shown = ", ".join(names[:3])
            raise ValueError(
                f"{where}: expected column names, got numbers ({shown}, ...); "
                "write a first line with a name for each column"
            )


def _number(text: str) -> float | None:
    """Return the number that a text spells, or ``None`` where it spells none."""
    try:
        return float(text)
    except ValueError:
        return None


def _check_line_widths(path: Path, separator: str, names: list[str]) -> None:
    """Raise ``ValueError`` for the first line with another number of values than of columns."""
    for line, record in _records(path, separator):
        if len(record) != len(names):
            raise ValueError(
                f"{path}, line {line}: expected {len(names)} values, one for each column, "
                f"got {len(record)}"
            )


def _line_of_row(path: Path, separator: str) -> Callable[[int], str]:
    """Return a function from a row's number to its line in the file, for messages.

    The file is read again only when the function is called, which happens for faults alone.
    """

    def line(row: int) -> str:
        for position, (number, _) in enumerate(_records(path, separator), -1):
            if position == row:
                return f"line {number}"
        return f"row {row}"

    return line


def read_parquet(path: Path, like: Any) -> pd.DataFrame:
    """Read a Parquet file; arguments, result and errors are those of ``read_csv``."""
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise ValueError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    except Exception as error:  # pyarrow has errors of many classes for a damaged file
        reason = first_line(error)
        raise ValueError(f"{path}: not a Parquet file, or damaged ({reason})") from error
    if not len(frame.columns):
        raise ValueError(f"{path}: expected columns, got none")
    return _numeric(flat_columns(frame), path, like, lambda row: f"row {row}")


def _numeric(
    frame: pd.DataFrame, path: Path, like: Any, place: Callable[[int], str]
) -> pd.DataFrame:
    """Return the wanted columns of a frame as numbers, and warn of missing cells.

    Args:
        frame: The table as read.
        path: The file, for messages.
        like: A frame whose columns are wanted; anything else means all columns.
        place: Tells where a row stands in the file, for messages.
    """
    wanted = [str(column) for column in like.columns] if isinstance(like, pd.DataFrame) else None
    if wanted is not None:
        check_names_present(wanted, list(frame.columns), str(path), "columns")
        frame = frame[wanted]
    text = [c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c].dtype)]
    numbers = {column: _as_numbers(frame[column], path, place) for column in text}
    frame = frame.assign(**numbers) if numbers else frame
    if _has_missing_cells(frame):
        counts = frame.isna().sum()
        columns = [
            f'column "{name}" has {count} missing values, the first in '
            f"{place(int(frame[name].isna().to_numpy().argmax()))}"
            for name, count in counts[counts > 0].items()
        ]
        more = f"; and {len(columns) - 5} more columns" if len(columns) > 5 else ""
        warnings.warn(f"{path}: {'; '.join(columns[:5])}{more}", stacklevel=2)
    return frame


def _as_numbers(column: Any, path: Path, place: Callable[[int], str]) -> Any:
    """Return a column of text as floats; the error names the first value that is not a number."""
    large = [n for n, v in enumerate(column) if isinstance(v, int) and abs(v) > LARGEST_FLOAT]
    if large:
        raise ValueError(f'{path}: column "{column.name}": too large a number in {place(large[0])}')
    values = pd.to_numeric(column.astype(object), errors="coerce")
    not_numbers = (values.isna() & column.notna()).to_numpy()
    if not not_numbers.any():
        return values.astype(np.float64)
    row = int(not_numbers.argmax())
    value = str(column.iloc[row])[:40]
    decimal = _number(value.replace(",", ".", 1)) is not None
    mend = "write decimals with a point" if decimal else "drop the column or encode it as numbers"
    raise ValueError(
        f'{path}: column "{column.name}": expected numbers, got "{value}" in {place(row)} '
        f"({int(not_numbers.sum())} of {len(column)} values are text); {mend}"
    )


def _has_missing_cells(frame: pd.DataFrame) -> bool:
    """Return whether any cell of a frame is missing."""
    return bool(frame.isna().to_numpy().any())
