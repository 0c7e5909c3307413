"""Data of any form as rows: their number, batches of them by index, and the way back.

    rows.take(index)     ->  what the model is called with: a tuple or a mapping of tensors
    rows.restore(values) ->  the same form that the data came in

Rows are gathered by tensor operations: no Python code runs for each row.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ppl_vae.data.annotated import from_anndata, is_anndata
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.columns import (
    Columns,
    NamedFields,
    TableColumns,
    column_order,
    owner_of_columns,
    schema_of,
)
from ppl_vae.data.fields import Array, columns_of_fits, named_mapping, read_field
from ppl_vae.data.mixed_tables import Table, of_fields, read_by_schema, schema_of_fits
from ppl_vae.data.schema import Schema
from ppl_vae.data.selection import check_one_order
from ppl_vae.data.sparse import is_sparse
from ppl_vae.data.stored import StoredTable, of_dataset
from ppl_vae.data.torch_datasets import read_dataset

Data: TypeAlias = "Array | tuple[Array, ...] | Mapping[str, Array] | Dataset[Any] | Rows"
"""Rows of data: one array, a tuple or mapping of arrays, or a map-style torch ``Dataset``."""

Batch = tuple[Tensor, ...] | dict[str, Tensor]
"""Rows as a model or guide is called with them: tensors by position or by name, (rows, ...)."""

PIECE = 1 << 20  # most numbers of a field that a checksum reads at once


class Rows:
    """N rows of one or several fields.

    Args:
        data: A tensor, a NumPy array or memory map, a sparse matrix of scipy (made dense batch by
            batch), a frame of pandas, polars, Arrow or duckdb (its numeric columns become one
            tensor), a table in Parquet files or an Arrow data set (read row group by row group), a
            tuple or a mapping of those, an AnnData object, or a map-style torch ``Dataset``, which
            is read once into memory.
        name: The argument's name, for messages.
        fitted: The columns that the model and the guide were fitted to. The columns of a frame,
            and of ``NamedFields``, are put into their order; columns of other names are left out.

    Attributes:
        fields: The fields, one for each array of the data.
        keys: The names of a mapping's fields; ``None`` for other data.
        positions: Positions in the data of a subset's rows, (rows,); ``None`` for all rows.
        name: The argument's name, for messages.
        first: Position of the first row in the whole data, where the data are a part of them.
        single: Whether the data came as one array instead of a tuple or mapping.
        index: The pandas index of the rows.
        schema: Of a table (``ppl_vae.table``), its schema; else ``None``.
        frame: Of a table, the frame that it was read from, where there is one.
        trim: Applied to the fields of every batch; ``None`` leaves them as they are.

    Raises:
        ValueError: If the data have an unknown form, text columns, no rows, or fields of unequal
            length, or the data lack columns of the fit.

    Example:
        >>> rows = Rows({"x": torch.zeros(5, 3), "label": torch.arange(5)})
        >>> len(rows), rows.take(torch.tensor([4, 0]))["label"]
        (5, tensor([4, 0]))
    """

    def __init__(self, data: Data, name: str = "data", fitted: Sequence[Columns] = ()) -> None:
        whole: Any = from_anndata(data) if is_anndata(data) else data
        whole = read_dataset(whole, name) if isinstance(whole, Dataset) else whole
        whole = read_by_schema(of_pandas(whole, name), list(map(schema_of, fitted)), name)
        self.schema: Schema | None = whole.schema if isinstance(whole, Table) else None
        self.frame: pd.DataFrame | None = whole.frame if isinstance(whole, Table) else None
        self.keys: list[str] | None = None
        self.positions: Tensor | None = None
        self.first, self.name = 0, name
        self.trim: Callable[[list[Tensor]], list[Tensor]] | None = None
        is_mapping = isinstance(whole, Mapping) and not is_sparse(whole)  # scipy has a dictionary
        self.single = not is_mapping and not isinstance(whole, tuple)
        if is_mapping:
            self.keys = [str(key) for key in whole]
            labels, arrays = [f'{name}["{key}"]' for key in whole], list(whole.values())
        elif isinstance(whole, tuple):
            labels, arrays = [f"{name}[{i}]" for i in range(len(whole))], list(whole)
        else:
            labels, arrays = [name], [whole]
        names = self.keys or [str(position) for position in range(len(arrays))]
        arrays = list(map(of_dataset, map(of_pandas, arrays, labels), labels))
        named = whole.names_of if isinstance(whole, NamedFields) else lambda _: None
        self.fields = [
            read_field(array, label, key, fitted, named(key))
            for array, label, key in zip(arrays, labels, names, strict=True)
        ]
        if not self.fields:
            raise ValueError(f"{name}: expected at least one field, got an empty container")
        lengths = {field.name: len(field.array) for field in self.fields}
        if len(set(lengths.values())) > 1:
            mend = "" if is_mapping else "; pass ppl_vae.sequences(list) for a list of sequences"
            raise ValueError(f"{name}: expected fields of one length, got {lengths}{mend}")
        if len(self) == 0:
            raise ValueError(f"{name}: expected at least one row, got none")
        indices = (
            [whole.index] if isinstance(whole, NamedFields) and whole.index is not None else []
        )
        indices += [
            f.index for f in arrays if isinstance(f, (pd.DataFrame, pd.Series, StoredTable))
        ]
        check_one_order(indices, name)
        self.index: pd.Index = indices[0] if indices else pd.RangeIndex(len(self))

    def __len__(self) -> int:
        return len(self.fields[0].array if self.positions is None else self.positions)

    @property
    def names(self) -> list[str]:
        """Names of the fields: the keys of a mapping, otherwise "0", "1", ..."""
        return self.keys if self.keys is not None else [str(i) for i in range(len(self.fields))]

    @property
    def bytes_per_row(self) -> int:
        """Memory of one row, in bytes."""
        each = (field.array for field in self.fields)
        return sum(a.itemsize * math.prod(a.shape[1:]) for a in each)

    @property
    def columns(self) -> Columns:
        """Names of the columns of each field that has them (see ``owner_of_columns``)."""
        named = zip(self.names, self.fields, strict=True)
        found = {owner_of_columns(n, f.source): c for n, f in named if (c := f.columns) is not None}
        return TableColumns(found, self.schema)

    def with_columns_of(self, fitted: Sequence[Columns], name: str) -> Rows:
        """Return the rows with columns that have names in the order of a fit (see ``Rows``)."""
        schema = schema_of_fits(list(map(schema_of, fitted)), name)
        if schema is not None and self.schema is not None and self.schema.codes != schema.codes:
            arrays = zip(self.names, (field.array for field in self.fields), strict=True)
            whole = Table(dict(arrays), self.schema, self.frame)
            read = Rows(whole, name, fitted)
            return read if self.positions is None else read.subset(self.positions)
        part = copy.copy(self)
        part.fields = list(self.fields)
        for position, (key, field) in enumerate(zip(self.names, self.fields, strict=True)):
            if field.columns is not None:
                wanted = columns_of_fits(fitted, key, field.source)
                order = column_order(field.labels, wanted, name)
                part.fields[position] = field if order is None else field.with_columns(order)
        return part

    def batch(self, tensors: Sequence[Tensor]) -> Batch:
        """Return tensors, one for each field, in the form that the model is called with."""
        return tuple(tensors) if self.keys is None else dict(zip(self.keys, tensors, strict=True))

    def take(self, index: Tensor, device: torch.device | None = None) -> Batch:
        """Return the rows at ``index``, (rows,) of int64, as a batch.

        Args:
            index: Positions among these rows.
            device: Where the batch goes; ``None`` leaves the tensors on the data's device.
        """
        if self.positions is not None:
            index = self.positions[index]
        tensors = [field.take(index) for field in self.fields]
        if self.trim is not None:
            tensors = self.trim(tensors)
        if device is not None:
            tensors = [tensor.to(device, non_blocking=True) for tensor in tensors]
        return self.batch(tensors)

    def positions_in_data(self, index: Tensor) -> Tensor:
        """Return the positions in the data as given, (rows,), of the rows at ``index``."""
        return index if self.positions is None else self.positions[index]

    def places(self, index: Tensor) -> Tensor:
        """Return where rows stand in the whole data, (rows,), for messages."""
        return self.first + self.positions_in_data(index)

    def subset(self, positions: Tensor) -> Rows:
        """Return the rows at ``positions``, (rows,), as ``Rows``; no data are copied."""
        part = copy.copy(self)
        part.positions = positions if self.positions is None else self.positions[positions]
        part.index = self.index[positions.numpy()]
        return part

    def alone(self) -> Rows:
        """Return the rows of a subset without the data that they are part of; else the rows."""
        if self.positions is None:
            return self
        return self.with_values(as_tuple(self.take(torch.arange(len(self)))))

    def with_values(self, tensors: Sequence[Tensor]) -> Rows:
        """Return rows of the same form with other values.

        Args:
            tensors: (rows, ...) for each field, of the shapes and dtypes of a batch.
        """
        part = copy.copy(self)
        part.first, part.positions = self.first, None
        fields = zip(self.fields, tensors, strict=True)
        part.fields = [replace(field, array=values) for field, values in fields]
        return part

    def order(self, generator: torch.Generator | None) -> Tensor:
        """Draw an order of the rows for an epoch, (rows,): any order, unless they are stored.

        Of rows in files, few row groups are mixed at a time (see ``StoredTable.order``).
        """
        table = self._stored()
        if table is None:
            return torch.randperm(len(self), generator=generator)
        return table.order(generator, self.positions)

    def split(self, fraction: float, seed: int | None) -> tuple[Rows, Rows]:
        """Split the rows at random into (training, validation).

        Args:
            fraction: Share of the rows that go to validation.
            seed: Seed of the split; ``None`` draws from the global generator.

        Raises:
            ValueError: If no row would be left for validation, or fewer than two for training.
        """
        held_out = round(fraction * len(self))
        if not 0 < fraction < 1 or not 0 < held_out < len(self) - 1:
            raise ValueError(
                f"validation: expected a fraction that leaves at least one row out and two in, "
                f"got {fraction} of {len(self)} rows"
            )
        order = torch.randperm(len(self), generator=generator(seed))
        return self.subset(order[held_out:].sort().values), self.subset(order[:held_out])

    def template(self) -> dict[str, Any]:
        """Return the form of the data, without the values: names, dtypes and shapes, for JSON.

        ``templates.example_rows`` makes rows of zeros from the result.
        """
        first = as_tuple(self.take(torch.arange(1)))
        pairs = zip(self.fields, first, strict=True)
        fields = [field.template(tensor.dtype) for field, tensor in pairs]
        schema = {} if self.schema is None else {"schema": self.schema.to_json()}
        return {"single": self.single, "keys": self.keys, "fields": fields, **schema}

    def fingerprint(self) -> str:
        """Return a checksum of the form and of every row, of memory-mapped rows as well.

        All rows are read once, which takes a small part of the time that ``lint`` takes to look at
        all rows before a fit.
        """
        return self._checksum(len(self))

    def older_fingerprint(self) -> str | None:
        """Return the checksum of 4096 rows that older versions took where data are memory-mapped.

        Returns:
            The checksum, by which a run of an older version is known; ``None`` for other data.
        """
        mapped = any(isinstance(field.array, np.memmap) for field in self.fields)
        return self._checksum(4096) if mapped and len(self) > 4096 else None

    def _checksum(self, count: int) -> str:
        """Return the checksum of the form and of ``count`` rows, evenly spaced."""
        form = self.template()
        for entry in form["fields"]:
            if entry["source"] in ("tensor", "numpy"):
                entry["labels"] = None  # older versions had no names of arrays' columns
        digest = hashlib.sha256(json.dumps([len(self), form, *self._mixing()]).encode())
        for part in _spaced(len(self), count):
            for field in self.fields:  # a field after the other, by pieces that fit into memory
                piece = max(1, PIECE // max(1, math.prod(field.array.shape[1:])))
                for index in self.positions_in_data(part).split(piece):
                    flat = field.take(index).cpu().contiguous().reshape(-1).view(torch.uint8)
                    digest.update(flat.numpy().data)
        return digest.hexdigest()

    def _mixing(self) -> list[Any]:
        """Return which row groups an epoch mixes, where it does not mix all of them.

        A resumed epoch goes on in the same order only where they are the same.
        """
        table = self._stored()
        return [] if table is None or table.groups_mixed is None else [table.layout]

    def _stored(self) -> StoredTable | None:
        """Return the widest stored table among the fields, whose row groups an order follows."""
        stored = [f.array for f in self.fields if isinstance(f.array, StoredTable)]
        return max(stored, key=lambda table: len(table.columns), default=None)

    def restore(self, tensors: Sequence[Tensor], index: pd.Index | None = None) -> Any:
        """Return tensors, one for each field, in the form that the data came in.

        Args:
            tensors: (rows, ...) each.
            index: The index for frames and series; ``None`` numbers the rows.
        """
        if self.schema is not None:
            named = dict(zip(self.names, tensors, strict=True))
            return of_fields(self.schema, named, index)
        values = [f.restore(t, index) for f, t in zip(self.fields, tensors, strict=True)]
        if self.single:
            return values[0]
        return tuple(values) if self.keys is None else named_mapping(self.keys, self.fields, values)


def as_rows(data: Data, name: str = "data", fitted: Sequence[Columns] = ()) -> Rows:
    """Return the data as ``Rows``, with columns that have names in the order of a fit.

    Args:
        data: The data; what is ``Rows`` already is not read again.
        name: The argument's name, for messages.
        fitted: The columns that the model and the guide were fitted to (see ``Pair.rows``).
    """
    if isinstance(data, Rows):
        return data.with_columns_of(fitted, name) if fitted else data
    return Rows(data, name, fitted)


def as_tuple(batch: Batch) -> tuple[Tensor, ...]:
    """Return the tensors of a batch, in the order of the fields."""
    return tuple(batch.values()) if isinstance(batch, dict) else batch


def batch_rows(batch: Batch) -> int:
    """Return the number of rows in a batch."""
    return len(as_tuple(batch)[0])


def map_batch(batch: Batch, function: Callable[..., Tensor]) -> Batch:
    """Return the batch with a function applied to each of its tensors."""
    if isinstance(batch, dict):
        return {key: function(value) for key, value in batch.items()}
    return tuple(function(value) for value in batch)


def in_form_of(batch: Batch, tensors: Sequence[Tensor]) -> Batch:
    """Return tensors in the form of a batch; those beyond the number of its fields are ignored."""
    if isinstance(batch, dict):
        return dict(zip(batch, tensors, strict=False))
    return tuple(tensors[: len(batch)])


def evenly_spaced(rows: int, count: int) -> Tensor:
    """Return the positions of ``count`` of some rows at equal distances, first and last included.

    Single precision, which ``torch.linspace`` takes by itself, has no numbers for positions beyond
    16,777,216.

    Example:
        >>> evenly_spaced(10, 4)
        tensor([0, 3, 6, 9])
    """
    return torch.linspace(0, rows - 1, count, dtype=torch.float64).long()


def generator(seed: int | None) -> torch.Generator | None:
    """Return a new random generator with this seed; ``None``, the global one, for no seed."""
    return None if seed is None else torch.Generator().manual_seed(int(seed))


def _spaced(rows: int, count: int) -> Iterator[Tensor]:
    """Yield the positions of ``count`` of the rows, evenly spaced, some at a time."""
    if count < rows:
        yield from evenly_spaced(rows, count).split(8192)
        return
    for start in range(0, rows, 8192):
        yield torch.arange(start, min(start + 8192, rows))
