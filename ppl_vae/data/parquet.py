"""Parquet files as frames of numeric columns, whole or in parts.

A file that cannot be read raises a ``ValueError`` that names the file and the column or the row at
fault.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ppl_vae.data.numeric import numeric_columns
from ppl_vae.data.selection import ColumnChoice, row_labels
from ppl_vae.data.tables import (
    Part,
    check_kept,
    check_names_differ,
    first_line,
    flat_columns,
    row_of_file,
)


def read_parquet(path: Path, choice: ColumnChoice) -> pd.DataFrame:
    """Read a Parquet file; arguments, result and errors are those of ``read_csv``."""
    ((frame, _),) = parquet_parts(path, choice)
    return frame


def parquet_parts(
    path: Path, choice: ColumnChoice | None, rows: int | None = None, keep: Sequence[str] = ()
) -> Iterator[Part]:
    """Yield a Parquet file in parts of some rows; arguments and errors as ``csv_parts``.

    Columns to keep have the types that they have in the file.
    """
    read = 0
    for frame, kept in _frames(path, rows, keep):
        names = list(frame.columns)
        check_names_differ(names, str(path))
        features = choice.features(names, str(path), frame.index.name) if choice else []
        place = partial(row_of_file, "row {}".format, read)
        read += len(frame)
        index = choice.index if choice else None
        if choice and index is not None and index != frame.index.name:
            frame.index = row_labels(frame[index], str(path), place, repeats=choice.repeats)
        mixed = choice is not None and choice.mixed
        found = frame[features] if mixed else numeric_columns(frame[features], path, place)
        yield found, kept.set_axis(frame.index)


def list_columns(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file that hold lists; none for other files."""
    if path.suffix.lower() != ".parquet":
        return []
    try:
        types = importlib.import_module("pyarrow").types
        schema = importlib.import_module("pyarrow.parquet").read_schema(path)
    except Exception:  # whoever reads the file next says why
        return []
    tests = types.is_list, types.is_large_list, types.is_fixed_size_list
    return [column.name for column in schema if any(test(column.type) for test in tests)]


def _frames(path: Path, rows: int | None, keep: Sequence[str]) -> Iterator[Part]:
    """Yield all columns of a Parquet file, and those to keep, in parts; one at least.

    Raises:
        ValueError: If the file is no Parquet file, or damaged, or pyarrow is missing.
    """
    try:
        parquet = importlib.import_module("pyarrow.parquet")  # an extra, without types
        schema = parquet.read_schema(path)
    except ImportError as error:
        raise ValueError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    except Exception as error:  # pyarrow has errors of many classes for a damaged file
        raise _damaged(path, error) from error
    check_names_differ(schema.names, str(path))  # pandas cannot read two columns of one name
    check_kept(keep, schema.names, path)
    parts: Iterator[Part] | None = None
    while True:
        try:
            if rows is None:
                parts = parts or iter([(pd.read_parquet(path), pd.DataFrame())])
            else:
                parts = parts or _regrouped(parquet.ParquetFile(path), rows, keep)
            part = next(parts, None)
        except Exception as error:
            raise _damaged(path, error) from error
        if part is None:
            return
        frame, kept = part
        if not len(frame.columns):
            raise ValueError(f"{path}: expected columns, got none")
        yield flat_columns(frame), kept.set_axis(frame.index) if rows else frame[[]]


def _regrouped(file: Any, rows: int, keep: Sequence[str]) -> Iterator[Part]:
    """Yield the rows of an open Parquet file in parts of ``rows`` rows, whatever its row groups.

    Row labels of numbers that count the rows go on from part to part.
    """
    arrow = importlib.import_module("pyarrow")
    read, waiting = 0, arrow.Table.from_batches([], schema=file.schema_arrow)
    batches, more = file.iter_batches(batch_size=rows), True
    while more:
        batch = next(batches, None)
        more = batch is not None
        if more:
            waiting = arrow.concat_tables([waiting, arrow.Table.from_batches([batch])])
        while len(waiting) >= rows or (not more and (len(waiting) or not read)):
            part = waiting.slice(0, rows)
            frame = part.to_pandas()
            if isinstance(frame.index, pd.RangeIndex):
                frame.index = pd.RangeIndex(read, read + len(frame), name=frame.index.name)
            kept = part.select(list(keep)).to_pandas(
                types_mapper=pd.ArrowDtype, ignore_metadata=True
            )
            yield frame, kept
            if not len(frame):
                return
            read, waiting = read + len(frame), waiting.slice(rows)


def _damaged(path: Path, error: Exception) -> ValueError:
    """Return the error for a file that pyarrow cannot read."""
    return ValueError(f"{path}: not a Parquet file, or damaged ({first_line(error)})")
