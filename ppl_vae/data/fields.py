"""One field of the data: an array of any kind as a tensor, and the way back.

    field.take(index)             rows of the array as a tensor
    field.restore(tensor, index)  a tensor in the form that the array came in

Floats become torch's default dtype; integers and booleans keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ppl_vae.data.columns import (
    Columns,
    NamedFields,
    column_names,
    column_order,
    owner_of_columns,
)
from ppl_vae.data.conversion import (
    Place,
    check_numbers,
    fits,
    tensor_of_array,
    tensor_of_frame,
    tensor_of_tensor,
)
from ppl_vae.data.sparse import SparseArray, SparseMatrix, is_sparse
from ppl_vae.data.stored import StoredTable

Array: TypeAlias = (
    Tensor | np.ndarray[Any, Any] | pd.DataFrame | pd.Series | SparseMatrix | StoredTable
)
"""One field of the data; its first dimension is the rows."""


@dataclass(frozen=True)
class Field:
    """One array of the data, in the form that it came in and as a tensor or memory map.

    A sparse matrix is a way to hold a NumPy array: what is made in its form is dense.

    Attributes:
        name: The field's name in errors and in a mapping; otherwise ``"data"`` or ``"data[1]"``.
        array: (rows, ...), a tensor; or a memory map, a sparse matrix or a stored table, of which
            the rows of a batch are read.
        source: ``"tensor"``, ``"numpy"``, ``"frame"`` or ``"series"``.
        labels: Names of the columns, an index: those of a frame, or of the last dimension of an
            array in ``NamedFields``; the name of a series; ``None`` without names.
        dtype: The dtype that the values came with (``None`` for a frame of mixed dtypes).
        given_order: Positions of the columns in the order in which the data had them; ``None``
            for the same order.
    """

    name: str
    array: Tensor | np.memmap[Any, Any] | SparseArray | StoredTable
    source: str
    labels: Any = None
    dtype: Any = None
    given_order: list[int] | None = None

    @classmethod
    def of(cls, values: Any, name: str) -> Field:
        """Make a field of a tensor, an array, a sparse matrix, a frame or a series.

        Args:
            values: The array; its first dimension is the rows.
            name: The field's name, for messages.

        Raises:
            ValueError: If ``values`` has another form, or is a single number, or holds numbers
                that no tensor can hold.
        """
        if isinstance(values, Tensor):
            if values.is_nested:
                raise ValueError(
                    f"{name}: expected rows of one shape, got a nested tensor; pad "
                    "them to one length (.to_padded_tensor) and pass their lengths beside them"
                )
            if values.layout is not torch.strided:
                raise ValueError(
                    f"{name}: expected a dense tensor, got layout {values.layout}; use .to_dense()"
                )
            field = cls(
                name, tensor_of_tensor(values.detach(), Place(name)), "tensor", dtype=values.dtype
            )
        elif isinstance(values, np.ndarray):
            check_numbers(values, name)
            array: Any = values  # a memory map is read batch by batch
            if not isinstance(values, np.memmap):
                array = tensor_of_array(values, Place(name))
            field = cls(name, array, "numpy", dtype=values.dtype)
        elif is_sparse(values):
            field = cls(name, SparseArray(values, name), "numpy", dtype=values.dtype)
        elif isinstance(values, pd.DataFrame):
            dtypes = set(values.dtypes)
            dtype = dtypes.pop() if len(dtypes) == 1 else None
            field = cls(name, tensor_of_frame(values, name), "frame", values.columns, dtype)
        elif isinstance(values, pd.Series):
            array = tensor_of_frame(values.to_frame(), name)[:, 0]
            field = cls(name, array, "series", values.name, values.dtype)
        elif isinstance(values, StoredTable):
            source, labels = (
                ("frame", values.columns) if values.ndim > 1 else ("series", values.name)
            )
            field = cls(name, values, source, labels, values.shared_dtype)
        else:
            raise _other_form(values, name)
        if field.array.ndim == 0:
            raise ValueError(f"{name}: expected rows along the first dimension, got one number")
        return field

    @classmethod
    def zeros(cls, entry: dict[str, Any], count: int) -> Field:
        """Make a field of zeros from its entry in ``Rows.template()``, with ``count`` rows."""
        tensor = torch.zeros((count, *entry["shape"]), dtype=getattr(torch, entry["tensor"]))
        package, name = entry["dtype"] or ("", "")
        numpy_dtype = np.dtype(name) if package == "numpy" else None
        dtype = getattr(torch, name) if package == "torch" else numpy_dtype
        labels = entry["labels"]
        if isinstance(labels, list):
            labels = pd.Index(labels, tupleize_cols=False)
        return cls("data", tensor, entry["source"], labels, dtype)

    @property
    def columns(self) -> list[Any] | None:
        """Names of the columns, as JSON can hold them; ``None`` where the field has none."""
        return column_names(self.labels) if isinstance(self.labels, pd.Index) else None

    def with_names(self, names: list[Any]) -> Field:
        """Return the field of an array with names of its columns, the last dimension.

        Raises:
            ValueError: If the array has another number of columns.
        """
        shape = tuple(self.array.shape)
        if len(shape) < 2 or shape[-1] != len(names):
            raise ValueError(
                f"{self.name}: expected the {len(names)} columns whose names the data hold, "
                f"{', '.join(map(str, names[:9]))}, got shape {shape}; pass {{**data}}, which has "
                "no names"
            )
        return replace(self, labels=pd.Index(names, tupleize_cols=False))

    def with_columns(self, positions: list[int]) -> Field:
        """Return the field with the columns at some positions, in that order."""
        return replace(
            self,
            array=self.array.with_columns(positions)
            if isinstance(self.array, SparseArray | StoredTable)
            else torch.as_tensor(self.array)[..., positions],
            labels=self.labels[positions],
            given_order=sorted(range(len(positions)), key=positions.__getitem__),
        )

    def in_order(self, values: Tensor) -> Tensor:
        """Return values with the columns in the order of this field.

        Args:
            values: (..., columns), with the columns in the order in which the data had them.
        """
        if self.given_order is None:
            return values
        return values[..., torch.tensor(self.given_order, device=values.device).argsort()]

    def take(self, index: Tensor) -> Tensor:
        """Return the rows at ``index``, (rows,) of int64, as a tensor."""
        if isinstance(self.array, Tensor):
            return self.array.index_select(0, index.to(self.array.device))
        if isinstance(self.array, StoredTable):
            return self.array.take(index)
        taken = np.asarray(self.array[index.numpy()])
        return tensor_of_array(taken, Place(self.name, rows=index))

    def restore(self, values: Tensor, index: pd.Index | None) -> Any:
        """Return values in the form that this field came in.

        Values that were integers become integers again where all of them fit the dtype. Columns
        with names come in the order in which the data had them.

        Args:
            values: (rows, ...).
            index: The index for a frame or a series; ``None`` numbers the rows.
        """
        values = values.detach().cpu()
        if self.given_order is not None and self.source != "frame":
            values = values[..., self.given_order]
        if self.source == "tensor":
            return values.to(self.dtype) if fits(self.dtype, values) else values
        array = values.numpy()
        if isinstance(self.dtype, np.dtype):
            array = array.astype(self.dtype) if fits(self.dtype, values) else array
        if self.source == "frame":
            frame = pd.DataFrame(array, columns=self.labels, index=index)
            return frame if self.given_order is None else frame.iloc[:, self.given_order]
        if self.source == "series":
            return pd.Series(array, name=self.labels, index=index)
        return array

    def template(self, tensor_dtype: torch.dtype) -> dict[str, Any]:
        """Return the field's form, dtypes and shape, without the values, for JSON.

        Args:
            tensor_dtype: The dtype that the field has in a batch.
        """
        return {
            "source": self.source,
            "labels": _labels_for_json(self.labels),
            "tensor": str(tensor_dtype).partition(".")[2],
            "dtype": _dtype_for_json(self.dtype),
            "shape": list(self.array.shape[1:]),
        }


def columns_of_fits(fitted: Sequence[Columns], key: str, source: str) -> list[list[Any]]:
    """Return the names of a field's columns in each fit that knows them (see ``Rows``)."""
    owner = owner_of_columns(key, source)
    return [columns[owner] for columns in fitted if owner in columns]


def read_field(
    array: Any, name: str, key: str, fitted: Sequence[Columns], names: list[Any] | None
) -> Field:
    """Make a field, with columns that have names in the order of a fit.

    Args:
        array: The field's values.
        name: The field's name, for messages.
        key: The field's name in a mapping, or its position.
        fitted: Names of the columns that the model and the guide were fitted to, where known.
        names: Names of the columns of an array; ``None`` without names.
    """
    has_columns = isinstance(array, pd.DataFrame | StoredTable) and array.ndim > 1
    if not has_columns:
        field = Field.of(array, name)
        if names is None:
            return field
        field = field.with_names(names)
        order = column_order(field.labels, columns_of_fits(fitted, key, field.source), name)
        return field if order is None else field.with_columns(order)
    order = column_order(array.columns, columns_of_fits(fitted, key, "frame"), name)
    if order is None:
        return Field.of(array, name)
    given = sorted(order)  # columns of other names are left out before values are read
    place = {position: number for number, position in enumerate(given)}
    is_stored = isinstance(array, StoredTable)
    chosen = array.with_columns(given) if is_stored else array.iloc[:, given]
    return Field.of(chosen, name).with_columns([place[p] for p in order])


def _other_form(values: Any, name: str) -> ValueError:
    """Return the error for values in none of the forms that a field can have, with the mend.

    Args:
        values: The values.
        name: The field's name.
    """
    expected = (
        "a tensor, a numpy array or memmap, a sparse matrix of scipy, or a frame or series of "
        "pandas, polars, Arrow or duckdb"
    )
    if isinstance(values, DataLoader):
        expected = "rows, from which batches are made"
        mend = "pass loader.dataset, and batch_size= to fit"
    elif isinstance(values, str | Path):
        mend = "pass read_data(path)"
    elif isinstance(values, list):
        mend = (
            "pass numpy.array(rows) for rows of one shape, ppl_vae.sequences(rows) for sequences "
            "of different lengths, or a tuple for several fields"
        )
    else:
        mend = "pass one of these, a tuple or mapping of them, or a map-style torch Dataset"
    return ValueError(f"{name}: expected {expected}, got {type(values).__name__}; {mend}")


def _labels_for_json(labels: Any) -> Any:
    """Return column names as a list, the name of a series as it is; anything but int as text."""
    if isinstance(labels, pd.Index):
        return column_names(labels)
    return labels if labels is None or isinstance(labels, int) else str(labels)


def _dtype_for_json(dtype: Any) -> list[str] | None:
    """Return a dtype as [package, name]; ``None`` for none and for pandas' own dtypes."""
    if isinstance(dtype, torch.dtype):
        return ["torch", str(dtype).partition(".")[2]]
    return ["numpy", dtype.str] if isinstance(dtype, np.dtype) else None


def named_mapping(
    keys: Sequence[str], fields: Sequence[Field], values: Sequence[Any]
) -> dict[str, Any]:
    """Return values by field; with the names of the columns that they have, where arrays have any.

    Args:
        keys: Names of the fields.
        fields: The fields.
        values: In the form of each field, with the columns in the order in which the data had them.
    """
    mapping = dict(zip(keys, values, strict=True))
    columns: Columns = {}
    for key, field in zip(keys, fields, strict=True):
        names = None if field.source == "frame" else field.columns
        if names is not None:
            order = field.given_order or range(len(names))
            columns[owner_of_columns(key)] = [names[position] for position in order]
    return NamedFields(mapping, columns) if columns else mapping
