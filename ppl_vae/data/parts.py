"""Data files read in parts, for files larger than memory.

    .csv .tsv .parquet .npy     only one part is in memory at a time
    .npz                        the arrays are read as a whole and handed on in parts

A part has the form that ``read_data`` gives the whole file, and a fault of the file is told in the
same words, with its place in the file.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ppl_vae.data.files import (
    check_exists,
    check_rows,
    ending_of,
    files_of_fields,
    in_form_of,
    read_data,
)
from ppl_vae.data.mixed_tables import Table, joined_tables
from ppl_vae.data.parquet import parquet_parts
from ppl_vae.data.plain_columns import text_of
from ppl_vae.data.selection import ColumnChoice, ColumnChoiceError
from ppl_vae.data.tables import Part, csv_parts

if TYPE_CHECKING:
    from ppl_vae.data.rows import Data

SAMPLE = 1 << 20  # bytes of a table of text whose lines are counted

_TABLES = {
    ".csv": csv_parts, ".tsv": csv_parts, ".csv.gz": csv_parts, ".tsv.gz": csv_parts,
    ".parquet": parquet_parts,
}  # fmt: skip


def read_parts(
    path: str | Path,
    rows: int,
    like: Data | None = None,
    *,
    columns: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    index: str | None = None,
    fields: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
) -> Iterator[tuple[Any, pd.DataFrame]]:
    r"""Yield a data file in parts; arguments and errors are those of ``read_data``.

    Args:
        path: The file.
        rows: Rows of a part; the last part may have fewer.
        like: Rows in the form that a part must have.
        columns: The columns of a table to read.
        drop: Columns of a table to leave out.
        index: The column of a table that holds the labels of the rows.
        fields: Columns or arrays that are fields of their own, by the field's name.
        keep: Columns of a table that are handed on as they stand in the file.

    Yields:
        The rows of a part, and a frame of the columns to keep.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "rows.csv")
        >>> _ = file.write_text("name,height\nAnn,1.8\nBo,1.6\nCy,1.7\n")
        >>> parts = read_parts(file, 2, columns="height", keep=["name"])
        >>> [(len(part), list(kept["name"])) for part, kept in parts]
        [(2, ['Ann', 'Bo']), (1, ['Cy'])]
    """
    path = Path(path)
    check_exists(path)
    choice: dict[str, Any] = {"columns": columns, "drop": drop, "index": index, "fields": fields}
    if ending_of(path) in _TABLES and not files_of_fields(fields):
        chosen = ColumnChoice.of(**choice, like=like)
        for part, kept in _table_parts(path, chosen, rows, keep):
            frame = part
            if isinstance(like, Table):  # columns to keep need not be columns of the fit
                known = {text_of(column.name) for column in like.schema.columns}
                frame = frame.drop(columns=[c for c in keep if c in frame and c not in known])
            data = chosen.split(frame)
            check_rows(data, path)
            yield data if like is None else in_form_of(data, like, str(path)), kept
        return
    if keep:
        raise _no_table(path)
    whole = read_data(path, like, **choice)
    count = number_of_rows(whole)
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        yield _sliced(whole, slice(start, stop)), pd.DataFrame(index=range(start, stop))


def regrouped(parts: Iterable[Any], rows: int) -> Iterator[Any]:
    """Yield the rows of some parts, in their order, in parts of ``rows`` rows; the rest is last.

    Args:
        parts: Data of one form: frames, series, arrays, tensors, or mappings or tuples of them.
        rows: Rows of a part.

    Raises:
        ValueError: If parts that are put together differ in their kind, fields or columns: the
            cells of a column that some do not have would be missing values.

    Example:
        >>> [part.tolist() for part in regrouped([np.arange(3), np.arange(3, 5)], 2)]
        [[0, 1], [2, 3], [4]]
    """
    waiting: list[Any] = []
    count = 0
    for part in parts:
        waiting, count = [*waiting, part], count + number_of_rows(part)
        if count < rows:
            continue
        whole = _joined(waiting)
        for start in range(0, count - rows + 1, rows):
            yield _sliced(whole, slice(start, start + rows))
        left = count % rows
        waiting, count = ([_sliced(whole, slice(count - left, count))] if left else []), left
    if waiting:
        yield _joined(waiting)


def number_of_rows(data: Any) -> int:
    """Return the number of rows of data of any form that ``read_data`` gives."""
    while isinstance(data, Mapping | tuple):
        data = next(iter(data.values() if isinstance(data, Mapping) else data))
    return int(data.shape[0])


def _joined(parts: Sequence[Any]) -> Any:
    """Return data of one form, one below the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    _refuse_other_forms(parts)
    if isinstance(first, Table):
        return joined_tables(parts)
    if isinstance(first, Mapping):
        return {key: _joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined(fields) for fields in zip(*parts, strict=True))
    join: Callable[[Sequence[Any]], Any]
    if isinstance(first, pd.DataFrame | pd.Series):
        join = pd.concat
    elif isinstance(first, np.ndarray):
        join = np.concatenate
    elif hasattr(first, "tocsr"):
        join = partial(importlib.import_module("scipy.sparse").vstack, format="csr")
    else:
        join = importlib.import_module("torch").cat
    return join(parts)


def _refuse_other_forms(parts: Sequence[Any]) -> None:
    """Raise ``ValueError`` unless parts are of one kind, with the same fields or columns."""
    first = _form(parts[0])
    for other in map(_form, parts[1:]):
        if other != first:
            raise ValueError(
                f"data: expected parts with the same fields and columns, got {first} and {other}"
            )


def _form(part: Any) -> str:
    """Return the kind of a part of the data, and the names of its fields or columns, sorted."""
    if hasattr(part, "tocsr"):
        return "sparse matrix"  # of any layout
    kinds = (pd.DataFrame, pd.Series, np.ndarray, Mapping, tuple)
    kind = next((kind for kind in kinds if isinstance(part, kind)), type(part))
    named = part if isinstance(part, Mapping) else getattr(part, "columns", ())
    return f"{kind.__name__}({', '.join(sorted(map(str, named)))})"


def _sliced(data: Any, rows: slice) -> Any:
    """Return some rows of data of any form that ``read_data`` gives."""
    if isinstance(data, Table):
        return data.part(rows)
    if isinstance(data, Mapping):
        return {key: _sliced(part, rows) for key, part in data.items()}
    if isinstance(data, tuple):
        return tuple(_sliced(part, rows) for part in data)
    return data.iloc[rows] if isinstance(data, pd.DataFrame | pd.Series) else data[rows]


def rows_in_file(path: str | Path) -> int | None:
    """Return how many rows a data file has, of a table of text about; ``None`` where unknown."""
    path = Path(path)
    kind = ending_of(path)
    with contextlib.suppress(Exception):  # a damaged file is refused where it is read
        if kind == ".parquet":
            metadata = importlib.import_module("pyarrow.parquet").read_metadata(path)
            return int(metadata.num_rows)
        if kind == ".npy":
            return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
        if kind in (".csv", ".tsv"):
            with path.open("rb") as file:
                start = file.read(SAMPLE)
            return max(1, round(path.stat().st_size / len(start) * start.count(b"\n")) - 1)
    return None


def kept_parts(path: str | Path, rows: int, keep: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yield some columns of a table in a file as they stand in it; arguments as ``read_parts``."""
    for _, kept in _table_parts(Path(path), None, rows, keep):
        yield kept


def _table_parts(
    path: Path, choice: ColumnChoice | None, rows: int, keep: Sequence[str]
) -> Iterator[Part]:
    """Yield the parts of a table in a file.

    Raises:
        ValueError: If the file cannot be read.
    """
    if ending_of(path) not in _TABLES:
        raise _no_table(path)
    try:
        yield from _TABLES[ending_of(path)](path, choice, rows, keep)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def _no_table(path: Path) -> ColumnChoiceError:
    """Return the error for columns to keep of a file that has none."""
    return ColumnChoiceError(
        f"keep: expected {path} to be one table whose columns have names, got arrays or fields "
        "from files of their own"
    )
