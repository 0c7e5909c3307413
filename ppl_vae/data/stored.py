"""Parquet files and Arrow tables as tables of numbers that are read row group by row group.

    rows = read_data("rows/")      the names and sizes of the columns are read, no numbers
    rows.take(index)               the row groups of these rows are read
    rows.order(generator)          an order of the rows in which few row groups are in use at once

At most ``row_groups.MEMORY`` bytes of a table are in memory. A table that fits into them is read
once, and an epoch takes its rows in any order, as those of an array. Of a larger table, an epoch
takes the row groups in a random order, some at a time (a pool: half of those bytes), and the rows
of a pool in a random order, each row once. So rows that were written in an order are mixed within
pools alone. ``lint`` says where that matters, and ``ppl-vae shuffle`` writes such a table anew.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import names_in, shown
from ppl_vae.data import row_groups
from ppl_vae.data.conversion import Place, tensor_of_array
from ppl_vae.data.numeric import LEAVE_OUT
from ppl_vae.data.row_groups import RowGroup, numbers_of, numpy_dtype, open_folder, row_groups_of
from ppl_vae.data.selection import ColumnChoice, missing_names, row_labels

FEWEST = 4
"""Row groups that are in memory at once, at least: those of two pools of two."""


@dataclass(frozen=True)
class GroupMoments:
    """What ``lint`` asks of a row group: how many rows, and mean and variance of each column."""

    rows: int
    mean: np.ndarray[Any, Any]
    variance: np.ndarray[Any, Any]


class StoredTable:
    """Columns of numbers in Parquet files or in an Arrow table, read row group by row group.

    Args:
        groups: The row groups, in the order of the rows.
        names: Names of the columns; or one name, for one column as a series.
        index: Labels of the rows; ``None`` numbers them.

    Attributes:
        columns: The labels of the columns, as those of a frame.
        index: The labels of the rows.
        shape: (rows, columns), or (rows,) of one column as a series.

    Example:
        >>> import pyarrow, pyarrow.dataset
        >>> table = pyarrow.table({"a": [1.0, 2.0, 3.0], "b": [1, 0, 1], "city": ["x", "y", "z"]})
        >>> rows = of_dataset(pyarrow.dataset.dataset(table), "data")
        >>> rows[["a", "b"]].shape, rows["b"].take(torch.tensor([2, 1]))
        ((3, 2), tensor([1, 0]))
    """

    def __init__(
        self, groups: Sequence[RowGroup], names: str | Sequence[str], index: pd.Index | None = None
    ) -> None:
        self._groups = list(groups)
        self.name = names if isinstance(names, str) else None
        self.columns = pd.Index([names] if isinstance(names, str) else list(names))
        self._starts = torch.tensor([0, *(group.rows for group in groups)]).cumsum(0)
        rows = int(self._starts[-1])
        self.index: pd.Index = pd.RangeIndex(rows) if index is None else index
        self.shape: tuple[int, ...] = (
            (rows,) if self.name is not None else (rows, len(self.columns))
        )
        self.ndim = len(self.shape)
        self.moments: dict[int, GroupMoments] = {}  # of each row group that was read
        self._slots: Tensor | None = None  # (slots, rows of the largest group, columns)
        self._slot_of = torch.full((len(self._groups),), -1)
        self._in_memory: dict[int, None] = {}  # row groups, the oldest first

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        names = ", ".join(str(name) for name in self.columns[:9])
        more = ", ..." if len(self.columns) > 9 else ""
        return (
            f"StoredTable of {len(self):,} rows in {len(self._groups):,} row groups: {names}{more}"
        )

    def __iter__(self) -> Any:
        raise TypeError("a StoredTable is read by the functions of ppl_vae: pass the table itself")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "a StoredTable may be larger than memory: take(index) returns some rows as a tensor"
        )

    # Columns

    def __getitem__(self, names: str | Sequence[str]) -> StoredTable:
        """Return some columns as a table, or one as a series, as of a frame."""
        if not isinstance(names, str) and not (
            isinstance(names, Sequence | pd.Index) and all(isinstance(n, str) for n in names)
        ):
            raise TypeError(f"expected names of columns, as table[['a', 'b']], got {shown(names)}")
        listed = [names] if isinstance(names, str) else list(names)
        if missing := missing_names(listed, self.columns):
            raise ValueError(f"data: expected columns of the table, got {missing}")
        return StoredTable(self._groups, names, self.index)

    def drop(self, columns: str | Sequence[str]) -> StoredTable:
        """Return the table without some columns."""
        left_out = names_in("columns", columns)
        if missing := missing_names(left_out, self.columns):
            raise ValueError(f"columns: expected columns of the table, got {missing}")
        return self[[name for name in self.columns if name not in set(left_out)]]

    def with_columns(self, positions: Sequence[int]) -> StoredTable:
        """Return the columns at some positions, in that order."""
        return StoredTable(self._groups, list(self.columns[list(positions)]), self.index)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that a frame of these columns would have as an array."""
        found = self._dtypes
        is_mixed = np.dtype(bool) in found and len(found) > 1  # pandas has objects there
        if is_mixed or (any(kind.kind != "f" for kind in found) and self._has_gaps):
            return np.dtype(np.float64)
        return np.result_type(*found)

    @property
    def shared_dtype(self) -> np.dtype[Any] | None:
        """The dtype of every column; ``None`` where they differ, or cannot hold missing cells."""
        return self.dtype if {self.dtype} == self._dtypes else None

    @cached_property
    def _dtypes(self) -> set[np.dtype[Any]]:
        """The dtypes of the columns in all files.

        Raises:
            ValueError: If a column holds no numbers; the first file in which it does is named.
        """
        found: set[np.dtype[Any]] = set()
        faults: dict[str, str] = {}
        seen: Any = None
        for group in self._groups:
            if group.schema is seen:
                continue  # of the same file
            seen = group.schema
            for name in self.columns:
                found_type = seen.field(name).type
                kind = numpy_dtype(found_type)
                if kind is None:
                    faults.setdefault(name, f'"{name}" ({found_type}, {group.source})')
                else:
                    found.add(kind)
        if faults:
            raise ValueError(
                f"data: expected columns of numbers, got {', '.join(list(faults.values())[:5])}"
                f"{f' and {len(faults) - 5} more' if len(faults) > 5 else ''}; {LEAVE_OUT}"
            )
        return found

    @cached_property
    def _has_gaps(self) -> bool:
        """Return whether a column has missing cells, which whole numbers cannot hold."""
        return any(group.has_gaps(name) for group in self._groups for name in self.columns)

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return self.dtype.itemsize

    # Rows

    def take(self, index: Tensor) -> Tensor:
        """Return the rows at ``index``, (rows,) of int64, as a tensor, (rows, columns) or (rows,).

        Raises:
            ValueError: If a file cannot be read, or was changed or removed since it was opened, or
                holds a number that is too large.
        """
        group_of = torch.searchsorted(self._starts, index, right=True) - 1
        if self._slots is not None and bool((self._slot_of[group_of] >= 0).all()):
            values = self._gather(group_of, index)
        else:
            values = self._read(group_of, index)
        return values[:, 0] if self.name is not None else values

    def order(self, generator: torch.Generator | None, positions: Tensor | None = None) -> Tensor:
        """Draw an order of the rows for an epoch, (rows,).

        Args:
            generator: Draws the order.
            positions: Positions of some of the rows; the order is then one of them, from 0.
        """
        count = len(self) if positions is None else len(positions)
        if self._capacity >= len(self._groups):
            return torch.randperm(count, generator=generator)
        by_place = None
        ends = self._starts
        if positions is not None:
            is_sorted = bool((positions[1:] >= positions[:-1]).all())
            by_place = None if is_sorted else positions.argsort()
            ordered = positions if by_place is None else positions[by_place]
            ends = torch.searchsorted(ordered, self._starts)
        groups = torch.randperm(len(self._groups), generator=generator)
        order, done = torch.empty(count, dtype=torch.long), 0
        for pool in groups.split(self._pool):
            rows = torch.cat([torch.arange(int(ends[g]), int(ends[g + 1])) for g in pool])
            rows = rows[torch.randperm(len(rows), generator=generator)]
            order[done : done + len(rows)] = rows
            done += len(rows)
        return order if by_place is None else by_place[order]

    @property
    def groups_mixed(self) -> int | None:
        """How many row groups a pool mixes; ``None`` where all rows are mixed."""
        return None if self._capacity >= len(self._groups) else self._pool

    @property
    def layout(self) -> list[int]:
        """What an order depends on besides its generator: a pool's row groups, and their rows."""
        return [self._pool, *(group.rows for group in self._groups)]

    @cached_property
    def _capacity(self) -> int:
        """How many row groups are in memory at once, at most."""
        largest = max(group.rows for group in self._groups)
        number = torch.get_default_dtype().itemsize if self.dtype.kind == "f" else self.itemsize
        return max(FEWEST, row_groups.MEMORY // (largest * len(self.columns) * number))

    @property
    def _pool(self) -> int:
        """How many row groups an epoch mixes: a batch may have rows of two pools."""
        return self._capacity // 2

    def _gather(self, group_of: Tensor, index: Tensor) -> Tensor:
        """Return the rows at ``index``, (rows,), of row groups that are in memory."""
        assert self._slots is not None
        place = self._slot_of[group_of] * self._slots.shape[1] + index - self._starts[group_of]
        return self._slots.flatten(0, 1).index_select(0, place)

    def _read(self, group_of: Tensor, index: Tensor) -> Tensor:
        """Return the rows at ``index``, (rows,), of any row groups, reading those not in memory.

        Args:
            group_of: The row group of each row, (rows,).
            index: The rows.
        """
        wanted = group_of.unique().tolist()
        parts, pieces = [], []
        for first in range(0, len(wanted), self._capacity):  # no more groups than fit at once
            some = wanted[first : first + self._capacity]
            for group in some:
                if group not in self._in_memory:
                    self._load(group, set(some))
            pieces.append(torch.isin(group_of, torch.tensor(some)).nonzero()[:, 0])
            parts.append(self._gather(group_of[pieces[-1]], index[pieces[-1]]))
        read = torch.cat(parts)
        values = torch.empty_like(read)
        values[torch.cat(pieces)] = read
        return values

    def _load(self, number: int, keep: set[int]) -> None:
        """Read a row group into memory, in place of the one that was read longest ago.

        Args:
            number: The row group.
            keep: Row groups that must stay in memory.
        """
        group = self._groups[number]
        names = list(self.columns)
        array = numbers_of(group.read(names), names, self.dtype)
        if number not in self.moments:
            self.moments[number] = _moments(array)
        rows = torch.arange(group.first, group.first + group.rows)
        values = tensor_of_array(array, Place(group.source, self.columns, rows))
        if self._slots is None:
            largest = max(other.rows for other in self._groups)
            slots = min(self._capacity, len(self._groups))
            self._slots = values.new_empty((slots, largest, len(names)))
        slot = len(self._in_memory)
        if slot == len(self._slots):
            oldest = next(other for other in self._in_memory if other not in keep)
            del self._in_memory[oldest]
            slot, self._slot_of[oldest] = int(self._slot_of[oldest]), -1
        self._slots[slot, : len(values)] = values
        self._slot_of[number] = slot
        self._in_memory[number] = None


def of_dataset(values: Any, name: str) -> Any:
    """Return a data set of Arrow, or of ``datasets``, as a stored table; anything else unchanged.

    A data set of ``datasets`` is an Arrow table mapped from its file, unless its rows were selected
    or shuffled: these are then read into memory.

    Args:
        values: Anything.
        name: The data's name, for messages.

    Raises:
        ValueError: As ``row_groups_of``.
    """
    package = type(values).__module__.partition(".")[0]
    if package == "datasets" and hasattr(values, "with_format") and hasattr(values, "__len__"):
        dataset: Any = importlib.import_module("pyarrow.dataset")
        values = dataset.dataset(values.with_format("arrow")[:])
    elif package != "pyarrow" or not hasattr(values, "get_fragments"):
        return values
    groups = row_groups_of(values, name)
    names, label = _names_and_label(values.schema)
    return StoredTable(groups, names, None if label is None else _labels(groups, label))


def read_folder(path: Path, choice: ColumnChoice) -> StoredTable:
    """Return the columns of a choice, of the Parquet files in a folder; errors as ``read_data``."""
    dataset = open_folder(path)
    groups = row_groups_of(dataset, str(path), by_name=True)
    names, label = _names_and_label(dataset.schema)
    features = choice.features(names, str(path), label)
    index = None
    if choice.index not in (None, label):
        values = _column(groups, choice.index)
        index = row_labels(values, str(path), "row {}".format)
    elif label is not None:
        index = _labels(groups, label)
    return StoredTable(groups, features, index)


def _names_and_label(schema: Any) -> tuple[list[str], str | None]:
    """Return the names of the columns, and of that with the row labels which pandas has written."""
    of_pandas = (schema.pandas_metadata or {}).get("index_columns", [])
    stored = [name for name in of_pandas if isinstance(name, str) and name in schema.names]
    label = stored[0] if len(stored) == 1 else None
    return [name for name in schema.names if name not in stored], label


def _column(groups: Sequence[RowGroup], name: str | None) -> pd.Series:
    """Return one column of all rows as it stands in the files."""
    parts = [group.read([str(name)]).column(str(name)).to_pandas() for group in groups]
    values: pd.Series = pd.concat(parts, ignore_index=True).rename(name)
    return values


def _labels(groups: Sequence[RowGroup], column: str) -> pd.Index:
    """Return the labels of all rows, from the column in which pandas has stored them."""
    index: pd.Index = pd.Index(_column(groups, column))
    return index.rename(None if column.startswith("__index_level_") else column)


def _moments(array: np.ndarray[Any, Any]) -> GroupMoments:
    """Return mean and variance of each column, (columns,) each, of its finite numbers."""
    values = array.astype(np.float64)
    seen = np.isfinite(values)
    count = np.maximum(seen.sum(0), 1)
    with np.errstate(over="ignore"):
        mean = np.where(seen, values, 0.0).sum(0) / count
        variance = (np.where(seen, values - mean, 0.0) ** 2).sum(0) / count
    return GroupMoments(len(array), mean, variance)
