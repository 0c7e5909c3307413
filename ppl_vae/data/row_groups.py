"""Row groups of Parquet files and slices of Arrow tables: their columns, and their numbers.

A file is opened for its footer, which has the names and types of the columns and the size of each
row group. The numbers of a row group are read when they are asked for; a file that was changed or
removed since is an error that names it.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ppl_vae.data.selection import first_repeated, listed_names, missing_names
from ppl_vae.data.tables import first_line

MEMORY = 1 << 28
"""Bytes of a table that are in memory at once, at most; more where four row groups take more."""

SLICE = 1 << 16
"""Rows of an Arrow table that are taken for a row group."""


class RowGroup(Protocol):
    """Rows that are read together.

    Attributes:
        rows: How many rows.
        source: The file or the table, for messages.
        first: Position of the first row in the file or the table.
        schema: The columns and their types, as an Arrow schema.
    """

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def first(self) -> int: ...  # noqa: D102
    @property
    def schema(self) -> Any: ...  # noqa: D102

    def has_gaps(self, name: str) -> bool:
        """Return whether a column has missing cells in these rows."""

    def read(self, names: Sequence[str]) -> Any:
        """Return columns of the rows, as an Arrow table."""


@dataclass(frozen=True)
class TableSlice:
    """Some rows of an Arrow table, which may be mapped from a file."""

    table: Any
    first: int = 0
    source: str = "the table"

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.table.num_rows)

    @property
    def schema(self) -> Any:
        """The columns and their types."""
        return self.table.schema

    def has_gaps(self, name: str) -> bool:
        """Return whether a column has missing cells in these rows."""
        return bool(self.table.column(name).null_count)

    def read(self, names: Sequence[str]) -> Any:
        """Return columns of the rows, as an Arrow table."""
        return self.table.select(list(names))


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file whose footer was read.

    Attributes:
        path: The file.
        filesystem: Where it is, as Arrow calls it.
        metadata: The footer.
        schema: The columns and their types, those that the names of its folders give last.
        state: Size and time of the last change, when the footer was read.
        chosen: The numbers of the row groups that are data, in their order.
        keys: Columns that the names of its folders give, as ``year=2024``.
    """

    path: str
    filesystem: Any
    metadata: Any
    schema: Any
    state: tuple[Any, Any]
    chosen: tuple[int, ...]
    keys: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_fragment(cls, fragment: Any) -> ParquetFile:
        """Read the footer of a file.

        Raises:
            ValueError: If the file is no Parquet file, or damaged, or has two columns of one name.
        """
        dataset: Any = importlib.import_module("pyarrow.dataset")
        path = fragment.path
        if fragment.filesystem.type_name == "local":
            path = str(Path(path).absolute())  # whatever folder is the current one later
        try:
            metadata = fragment.metadata
            names = fragment.physical_schema.names
            state = _state(fragment.filesystem, path)
            chosen = tuple(group.id for group in fragment.row_groups)
        except Exception as error:  # pyarrow has errors of many classes for a damaged file
            raise ValueError(
                f"{path}: not a Parquet file, or damaged ({first_line(error)})"
            ) from error
        if repeated := first_repeated(names):
            raise ValueError(_repeated(path, repeated))
        keys = dataset.get_partition_keys(fragment.partition_expression)
        arrow: Any = importlib.import_module("pyarrow")
        schema = metadata.schema.to_arrow_schema()
        for name in [name for name in keys if name not in schema.names]:
            schema = schema.append(arrow.field(name, arrow.scalar(keys[name]).type))
        return cls(path, fragment.filesystem, metadata, schema, state, chosen, keys)

    def groups(self) -> Iterator[RowGroup]:
        """Yield the row groups of the file that have rows."""
        count = self.metadata.num_row_groups
        rows = [self.metadata.row_group(number).num_rows for number in range(count)]
        first = [0, *itertools.accumulate(rows)]
        for number in self.chosen:
            if rows[number]:
                yield ParquetGroup(self, number, rows[number], first[number])

    def check_unchanged(self) -> None:
        """Raise ``ValueError`` where the file was changed or removed since its footer was read."""
        try:
            state = _state(self.filesystem, self.path)
        except Exception as error:
            raise ValueError(f"{self.path}: cannot be read: {first_line(error)}") from error
        if state != self.state:
            gone = state[0] is None
            raise ValueError(
                f"{self.path}: expected the file that was there when the data were opened, got "
                f"{'none: it was removed' if gone else 'one that was changed'} since"
            )


@dataclass(frozen=True)
class ParquetGroup:
    """A row group of a Parquet file.

    Attributes:
        file: The file.
        number: The group's number in the file, from 0.
        rows: How many rows.
        first: Position of the first row in the file.
    """

    file: ParquetFile
    number: int
    rows: int
    first: int

    @property
    def source(self) -> str:
        """The file."""
        return self.file.path

    @property
    def schema(self) -> Any:
        """The columns and their types: those of the file."""
        return self.file.schema

    def has_gaps(self, name: str) -> bool:
        """Return whether a column has missing cells in these rows."""
        if name in self.file.keys:
            return self.file.keys[name] is None
        group = self.file.metadata.row_group(self.number)
        for position in range(group.num_columns):
            column = group.column(position)
            counted = column.is_stats_set and column.statistics.has_null_count
            if column.path_in_schema == name and counted:
                return bool(column.statistics.null_count)
        return bool(self.read([name]).column(name).null_count)

    def read(self, names: Sequence[str]) -> Any:
        """Return columns of the rows, as an Arrow table.

        Raises:
            ValueError: If the file is damaged, or was changed or removed.
        """
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
        self.file.check_unchanged()
        own = [name for name in names if name not in self.file.keys]
        try:
            with parquet.ParquetFile(
                self.file.path, metadata=self.file.metadata, filesystem=self.file.filesystem
            ) as file:
                table = file.read_row_group(self.number, columns=own)
        except Exception as error:
            self.file.check_unchanged()
            raise ValueError(f"{self.file.path}: damaged ({first_line(error)})") from error
        columns = {name: table.column(name) for name in own}
        for name in set(names) - set(own):
            columns[name] = arrow.repeat(self.file.keys[name], self.rows)
        return arrow.table([columns[name] for name in names], names=list(names))


def row_groups_of(dataset: Any, name: str, *, by_name: bool = False) -> list[RowGroup]:
    """Return the row groups of an Arrow data set, in the order of its files and tables.

    Args:
        dataset: A ``pyarrow.dataset.Dataset`` of Parquet files or of tables.
        name: The data's name, for messages.
        by_name: Whether files are taken in the order of their names.

    Raises:
        ValueError: If the data set is filtered, has files of another format, has no rows, or a file
            is damaged or lacks a column.
    """
    if getattr(dataset, "_scan_options", None):
        raise ValueError(
            f"{name}: expected all rows of a data set, got one with a filter; write the rows that "
            "pass it to files of their own, or pass dataset.to_table() where they fit into memory"
        )
    fragments = list(dataset.get_fragments())
    if by_name:
        fragments.sort(key=lambda fragment: str(fragment.path))
    groups: list[RowGroup] = []
    first_file: ParquetFile | None = None
    tables = 0  # rows of the tables so far
    for fragment in fragments:
        if hasattr(fragment, "path"):
            if fragment.format.default_extname != "parquet":
                kind = fragment.format.default_extname
                raise ValueError(f"{fragment.path}: expected Parquet files, got {kind}")
            file = ParquetFile.of_fragment(fragment)
            first_file = first_file or file
            _check_names(file, first_file, dataset.schema.names)
            groups.extend(file.groups())
            continue
        table = fragment.to_table()
        for start in range(0, table.num_rows, SLICE):
            groups.append(TableSlice(table.slice(start, SLICE), tables + start, name))
        tables += table.num_rows
    if not groups:
        raise ValueError(f"{name}: expected at least one row, got none")
    return groups


def numbers_of(table: Any, names: Sequence[str], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return columns of an Arrow table as an array, (rows, columns); missing cells are NaN.

    Args:
        table: The table; its columns are numbers.
        names: The columns, in this order.
        dtype: The array's dtype, of floats where a column has missing cells.
    """
    array = np.empty((table.num_rows, len(names)), dtype)
    for position, name in enumerate(names):
        column = table.column(name)
        arrow: Any = importlib.import_module("pyarrow")
        if arrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.null_count or arrow.types.is_decimal(column.type):
            column = column.cast(arrow.float64())
        array[:, position] = column.to_numpy()
    return array


def numpy_dtype(arrow_type: Any) -> np.dtype[Any] | None:
    """Return the dtype of NumPy that holds a column's numbers; ``None`` where it holds none.

    Args:
        arrow_type: The Arrow type of the column; a dictionary of numbers counts as numbers.
    """
    types: Any = importlib.import_module("pyarrow").types
    if types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if types.is_null(arrow_type) or types.is_decimal(arrow_type):
        return np.dtype(np.float64)
    is_number = types.is_integer(arrow_type) or types.is_floating(arrow_type)
    if is_number or types.is_boolean(arrow_type):
        dtype: np.dtype[Any] = np.dtype(arrow_type.to_pandas_dtype())
        return dtype
    return None


def _check_names(file: ParquetFile, first: ParquetFile, wanted: Sequence[str]) -> None:
    """Raise ``ValueError`` where a file lacks columns that the first one or the schema has."""
    names = file.schema.names
    if missing := missing_names(first.schema.names, names):
        raise ValueError(f"{file.path}: expected the columns of {first.path}, got {missing}")
    if missing := missing_names(wanted, names):
        raise ValueError(f"{file.path}: expected the columns of the data's schema, got {missing}")
    if more := [name for name in names if name not in set(first.schema.names)]:
        raise ValueError(
            f"{first.path}: expected the columns of {file.path}, got none called "
            f"{listed_names(more)}"
        )


def _repeated(path: Any, name: str) -> str:
    """Return the message for a file with two columns of one name."""
    return f'{path}: expected columns of different names, got two called "{name}"'


def _state(filesystem: Any, path: str) -> tuple[Any, Any]:
    """Return the size of a file and the time of its last change; ``None`` where there is none."""
    info = filesystem.get_file_info(path)
    return info.size, info.mtime_ns


def open_folder(path: Path) -> Any:
    """Return the Parquet files of a folder as an Arrow data set.

    Folders within it that are named as ``year=2024`` give the column ``year``.

    Raises:
        ValueError: If pyarrow is missing, the folder has no files, or the first one is no Parquet
            file.
    """
    try:
        dataset: Any = importlib.import_module("pyarrow.dataset")
    except ImportError as error:
        raise ValueError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from error
    try:
        found = dataset.dataset(path, format="parquet", partitioning="hive")
    except Exception as error:
        _name_bad_file(path)
        raise ValueError(
            f"{path}: expected a folder of Parquet files ({first_line(error)})"
        ) from error
    if not found.files:
        raise ValueError(f"{path}: expected Parquet files, got an empty folder")
    return found


def _name_bad_file(path: Path) -> None:
    """Raise ``ValueError`` for the first file of a folder that is no Parquet file, by its name."""
    parquet: Any = importlib.import_module("pyarrow.parquet")
    for file in sorted(path.rglob("*.parquet")):
        try:
            names = parquet.read_schema(file).names
        except Exception as error:
            message = f"{file}: not a Parquet file, or damaged ({first_line(error)})"
            raise ValueError(message) from error
        if repeated := first_repeated(names):
            raise ValueError(_repeated(file, repeated))
