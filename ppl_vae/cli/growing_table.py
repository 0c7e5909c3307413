"""A table in a file that grows part by part, and is there only once it is whole.

    table.append(frame)         as often as needed

The rows stand in a hidden file beside it until the ``with`` block ends without an error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from ppl_vae.safe_text import spreadsheet_text


class GrowingTable:
    """A .csv, .tsv or .parquet file to which rows are appended.

    Use it in a ``with`` block: an error inside leaves no file, and the file that was there before.

    Args:
        path: The file; replaced at the end if it exists.

    Raises:
        ValueError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rows.csv")
        >>> with GrowingTable(path) as table:
        ...     table.append(pd.DataFrame({"id": ["a"], "score": [1.0]}))
        ...     table.append(pd.DataFrame({"id": ["b"], "score": [3.0]}))
        >>> path.read_text().split()
        ['id,score', 'a,1.0', 'b,3.0']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        ending = path.suffix.lower()
        separator = "\t" if ending == ".tsv" else ","
        self._hidden: _Csv | _Parquet = (
            _Parquet(self._beside) if ending == ".parquet" else _Csv(self._beside, separator)
        )

    def append(self, part: pd.DataFrame) -> None:
        """Write rows; every part has the same columns.

        Args:
            part: The rows; their index is not written.
        """
        with self._writing():
            if not part.columns.is_unique:
                repeated = part.columns[part.columns.duplicated()][0]
                raise ValueError(
                    f'expected columns of different names, got two called "{repeated}"'
                )
            self._hidden.append(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with self._writing():
                self._hidden.close()
                if error is None:
                    self._beside.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                self._beside.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what fails inside the ``with`` block into an error that names the file."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path}: cannot be written: {error}") from error


class _Csv:
    """A table of text; names and texts that a spreadsheet would take for formulas are marked."""

    def __init__(self, path: Path, separator: str) -> None:
        self.path, self.separator, self.is_new = path, separator, True

    def append(self, part: pd.DataFrame) -> None:
        columns = {
            spreadsheet_text(str(name)): values
            if pd.api.types.is_numeric_dtype(values.dtype)
            else [spreadsheet_text(v) if isinstance(v, str) else v for v in values]
            for name, values in part.items()
        }
        frame = pd.DataFrame(columns, part.index)
        with self.path.open("w" if self.is_new else "a", encoding="utf-8", newline="") as file:
            frame.to_csv(file, index=False, sep=self.separator, header=self.is_new)
        self.is_new = False

    def close(self) -> None:
        """Do nothing: each part was written as a whole."""


class _Parquet:
    """A Parquet file, each part of which is a row group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.arrow = importlib.import_module("pyarrow")
            self.parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise ValueError(
                f"{path}: writing Parquet needs pyarrow: pip install pyarrow"
            ) from error
        self.writer: Any = None

    def append(self, part: pd.DataFrame) -> None:
        schema = None if self.writer is None else self.writer.schema
        table = self.arrow.Table.from_pandas(part, schema=schema, preserve_index=False)
        if self.writer is None:
            table = table.replace_schema_metadata(None)
            self.writer = self.parquet.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table.replace_schema_metadata(None))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
