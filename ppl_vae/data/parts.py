"""Data files read in parts, for files larger than memory.

    .csv .tsv .parquet .npy     only one part is in memory at a time
    .npz                        the arrays are read as a whole and handed on in parts

A part has the form that ``read_data`` gives the whole file, and a fault of the file is told in the
same words, with its place in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from ppl_vae.data.selection import ColumnChoice, ColumnChoiceError
from ppl_vae.data.tables import Part, csv_parts, parquet_parts

if TYPE_CHECKING:
    from ppl_vae.data.rows import Data

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
        for frame, kept in _table_parts(path, chosen, rows, keep):
            data = chosen.split(frame)
            check_rows(data, path)
            yield data if like is None else in_form_of(data, like, str(path)), kept
        return
    if keep:
        raise ColumnChoiceError(
            f"keep: expected {path} to be one table whose columns have names, got arrays or fields "
            "from files of their own"
        )
    whole = read_data(path, like, **choice)
    first = next(iter(whole.values())) if isinstance(whole, Mapping) else whole
    count = np.shape(first[0] if isinstance(first, tuple) else first)[0]
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        yield _sliced(whole, slice(start, stop)), pd.DataFrame(index=range(start, stop))


def _sliced(data: Any, rows: slice) -> Any:
    """Return some rows of data of any form that ``read_data`` gives."""
    if isinstance(data, Mapping):
        return {key: _sliced(part, rows) for key, part in data.items()}
    if isinstance(data, tuple):
        return tuple(_sliced(part, rows) for part in data)
    return data.iloc[rows] if isinstance(data, pd.DataFrame | pd.Series) else data[rows]


def _table_parts(
    path: Path, choice: ColumnChoice, rows: int, keep: Sequence[str]
) -> Iterator[Part]:
    """Yield the parts of a table in a file.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        yield from _TABLES[ending_of(path)](path, choice, rows, keep)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
