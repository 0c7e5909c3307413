"""Data files in the forms that the functions take.

    .csv .tsv    frame; the first line names the columns, a first column without a name labels rows
    .parquet     frame
    .npy         array, rows first
    .npz         one array, or several as a mapping of fields

Nothing in a file is ever executed. A file that cannot be read says where: line, column, array.
"""

from __future__ import annotations

import csv
import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

LARGE = 1 << 30  # bytes of an .npy file from which it is read batch by batch
LARGEST = 1e308  # a whole number beyond it is no float


def read_data(path: str | Path, like: Any = None) -> Any:
    """Read a data file.

    Args:
        path: A file; its extension says what it is.
        like: Rows in the form to bring the data into: their columns are selected by name, in
            their order, and other columns may hold anything.

    Returns:
        A frame of numeric columns, an array, or a mapping of arrays; N rows each. Missing cells
        are NaN, and a ``UserWarning`` counts them.

    Raises:
        ValueError: Where the file is missing or damaged, holds text, or is not like ``like``.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "rows.csv")
        >>> pd.DataFrame({"height": [1.8, 1.6], "weight": [70, 50]}).to_csv(file, index=False)
        >>> read_data(file).shape
        (2, 2)
    """
    path = Path(path)
    check_exists(path)
    try:
        data = _reader(path)(path, like)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    _check_rows(data, path)
    return data if like is None else _conform(data, like, str(path))


def check_exists(path: Path) -> None:
    """Raise a ``ValueError`` where there is no such file, with the close names beside it."""
    if path.is_file():
        return
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, got a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such file; there is no folder {path.parent}")
    others = [other.name for other in path.parent.iterdir() if other.is_file()]
    near = difflib.get_close_matches(path.name, others, n=3, cutoff=0.5)
    near = near or [name for name in sorted(others) if Path(name).suffix.lower() in _READERS][:5]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"{path}: no such file{hint}")


def flat_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one name a column: ``("z", "mean", 0)`` becomes ``z.mean.0``."""
    names = [".".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in frame.columns]
    return frame.set_axis(names, axis=1)


def _reader(path: Path) -> Callable[[Path, Any], Any]:
    try:
        return _READERS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(_READERS)
        raise ValueError(f"{path}: expected one of {known}, got {_ending(path)}") from None


def _ending(path: Path) -> str:
    return path.suffix or "no extension"


# Tables


def _read_csv(path: Path, like: Any) -> pd.DataFrame:
    try:
        return _parse_csv(path, like)
    except UnicodeDecodeError as error:
        number = _first_line_not_utf8(path)
        raise ValueError(f"{path}, line {number}: expected UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error


def _parse_csv(path: Path, like: Any) -> pd.DataFrame:
    separator = _separator(path)
    start, names = next(_records(path, separator), (1, []))
    _check_names(path, start, names)
    labelled = names[0] == ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines longer than the first
            frame = pd.read_csv(
                path,
                sep=separator,
                index_col=0 if labelled else False,
                skipinitialspace=True,
                low_memory=False,
                encoding="utf-8",
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        _check_widths(path, separator, names)
        *_, (line, _) = _records(path, separator)  # a quote that is not closed ends with the file
        raise ValueError(f"{path}, line {line}: {_first(error)}") from error
    if len(frame.columns) != len(names) - labelled or _has_gaps(frame.iloc[:, -1:]):
        _check_widths(path, separator, names)  # a short line looks like one with missing cells
    if not len(frame):
        raise ValueError(f"{path}: expected rows below the column names, got none")
    return _numeric(frame.rename_axis(None), path, like, _line_of(path, separator))


def _first_line_not_utf8(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _separator(path: Path) -> str:
    """The one of comma, semicolon and tab that the first line has most of."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    if not first:
        raise ValueError(f"{path}: expected column names and rows, got an empty file")
    return max(",;\t", key=first.count)


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank, with the line that it begins on."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        line = 1
        for record in reader:
            if len(record) > 1 or "".join(record).strip():
                yield line, record
            line = reader.line_num + 1


def _check_names(path: Path, line: int, names: list[str]) -> None:
    where = f"{path}, line {line}"
    if not names:
        raise ValueError(f"{path}: expected column names and rows, got an empty file")
    for position, name in enumerate(names):
        if not name and position:
            raise ValueError(f"{where}: column {position + 1} has no name")
        if name in names[:position]:
            raise ValueError(f'{where}: two columns are called "{name}"')
    numbers = [_number(name) for name in names if name]
    if numbers and None not in numbers:
        values = [float(number or 0) for number in numbers]
        whole = all(value.is_integer() for value in values)
        if not whole or values != sorted(values):  # 0, 1, 2, ... are names of pixels
            shown = ", ".join(names[:3])
            raise ValueError(f"{where}: expected column names, got numbers ({shown}, ...)")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check_widths(path: Path, separator: str, names: list[str]) -> None:
    """Raise for the first line of another width."""
    for line, record in _records(path, separator):
        if len(record) != len(names):
            raise ValueError(
                f"{path}, line {line}: expected {len(names)} values, one for each column, "
                f"got {len(record)}"
            )


def _line_of(path: Path, separator: str) -> Callable[[int], str]:
    """Where a row stands, for messages; the file is only read again when one is asked for."""

    def line(row: int) -> str:
        for position, (number, _) in enumerate(_records(path, separator), -1):
            if position == row:
                return f"line {number}"
        return f"row {row}"

    return line


def _read_parquet(path: Path, like: Any) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise ValueError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    except Exception as error:  # whatever pyarrow stumbles over in a damaged file
        raise ValueError(f"{path}: not a Parquet file, or damaged ({_first(error)})") from error
    if not len(frame.columns):
        raise ValueError(f"{path}: expected columns, got none")
    return _numeric(flat_columns(frame), path, like, lambda row: f"row {row}")


def _numeric(
    frame: pd.DataFrame, path: Path, like: Any, place: Callable[[int], str]
) -> pd.DataFrame:
    """The frame with every column a number; its gaps are counted in a warning."""
    wanted = [str(column) for column in like.columns] if isinstance(like, pd.DataFrame) else None
    if wanted is not None:
        _check_held(wanted, list(frame.columns), str(path), "columns")
        frame = frame[wanted]
    text = [c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c].dtype)]
    numbers = {column: _numbers(frame[column], path, place) for column in text}
    frame = frame.assign(**numbers) if numbers else frame
    if _has_gaps(frame):
        counts = frame.isna().sum()
        held = [
            f'column "{name}" has {count} missing values, the first in '
            f"{place(int(frame[name].isna().to_numpy().argmax()))}"
            for name, count in counts[counts > 0].items()
        ]
        more = f"; and {len(held) - 5} more columns" if len(held) > 5 else ""
        warnings.warn(f"{path}: {'; '.join(held[:5])}{more}", stacklevel=2)
    return frame


def _numbers(column: Any, path: Path, place: Callable[[int], str]) -> Any:
    """A column as numbers, or the error that names the first value that is none."""
    large = [n for n, v in enumerate(column) if isinstance(v, int) and abs(v) > LARGEST]
    if large:
        raise ValueError(f'{path}: column "{column.name}": too large a number in {place(large[0])}')
    values = pd.to_numeric(column.astype(object), errors="coerce")
    wrong = (values.isna() & column.notna()).to_numpy()
    if not wrong.any():
        return values.astype(np.float64)
    row = int(wrong.argmax())
    value = str(column.iloc[row])[:40]
    decimal = _number(value.replace(",", ".", 1)) is not None
    mend = "write decimals with a point" if decimal else "drop the column or encode it as numbers"
    raise ValueError(
        f'{path}: column "{column.name}": expected numbers, got "{value}" in {place(row)} '
        f"({int(wrong.sum())} of {len(column)} values are text); {mend}"
    )


def _has_gaps(frame: pd.DataFrame) -> bool:
    return bool(frame.isna().to_numpy().any())


# Arrays


def _read_numpy(path: Path, like: Any) -> Any:
    large = path.stat().st_size > LARGE and path.suffix.lower() == ".npy"
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if large else None)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # whatever NumPy stumbles over in a damaged file
        raise ValueError(f"{path}: {_reason(error)}") from error
    if not arrays:
        raise ValueError(f"{path}: expected arrays, got none")
    single = len(arrays) == 1 and not isinstance(like, Mapping | tuple)
    return next(iter(arrays.values())) if single else arrays


def _reason(error: Exception) -> str:
    if "Object arrays" in str(error):
        return "holds Python objects, which are never loaded; save arrays of numbers"
    if "pickle" in str(error):
        return "not a NumPy file"
    return f"not a NumPy file, or damaged ({_first(error)})"


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def _check_rows(data: Any, path: Path) -> None:
    """Numbers, at least one row, the same number of rows in every field."""
    named = data.items() if isinstance(data, Mapping) else [("", data)]
    lengths = {}
    for name, array in named:
        where = f'{path}: array "{name}"' if name else str(path)
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf":
            raise ValueError(f"{where}: expected numbers, got dtype {array.dtype}")
        if np.ndim(array) == 0:
            raise ValueError(f"{where}: expected rows along the first dimension, got one number")
        if len(array) == 0:
            raise ValueError(f"{where}: expected at least one row, got none")
        lengths[name] = len(array)
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: expected arrays of one length, got {lengths}")


# The form of a run's data


def _conform(data: Any, like: Any, where: str) -> Any:
    if isinstance(like, tuple):
        _check_fields(data, len(like), where)
        fields = zip(data.items(), like, strict=True)
        return tuple(_conform(field, part, f'{where}["{key}"]') for (key, field), part in fields)
    if isinstance(like, Mapping):
        _check_fields(data, len(like), where)
        _check_held(like, data, where, "arrays")
        return {key: _conform(data[key], part, f'{where}["{key}"]') for key, part in like.items()}
    if isinstance(data, Mapping):
        raise ValueError(f"{where}: expected one table or array, got arrays {list(data)}")
    if isinstance(like, pd.DataFrame) and isinstance(data, pd.DataFrame):
        return data.set_axis(like.columns, axis=1)  # selected before their text was looked at
    expected, got = tuple(like.shape[1:]), tuple(data.shape[1:])
    if expected != got:
        raise ValueError(f"{where}: expected rows of shape {expected}, got {got}")
    return data


def _check_fields(data: Any, count: int, where: str) -> None:
    held = len(data) if isinstance(data, Mapping) else 1
    if held < count:
        raise ValueError(f"{where}: expected an .npz file of {count} arrays, got {held}")


def _check_held(wanted: Iterable[str], held: Iterable[str], where: str, what: str) -> None:
    missing = [name for name in wanted if name not in held]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], list(held), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    names = ", ".join(f'"{name}"' for name in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    raise ValueError(f"{where}: expected the run's {what}, got none called {names}{more}{hint}")


_READERS: dict[str, Callable[[Path, Any], Any]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
}
