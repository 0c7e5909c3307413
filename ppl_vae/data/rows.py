"""Data of any form as rows: a length, a gather by index, and the way back.

    rows.take(index)     ->  what the model is called with: a tuple or a mapping of tensors
    rows.restore(values) ->  the same form that the data came in

Floats become torch's default dtype, integers keep theirs, and nothing runs in Python per row.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset, default_collate

Array: TypeAlias = Tensor | np.ndarray[Any, Any] | pd.DataFrame | pd.Series
"""One field of the data; its first dimension is the rows."""

Data: TypeAlias = "Array | tuple[Array, ...] | Mapping[str, Array] | Dataset[Any] | Rows"
"""Rows of data: one array, a tuple or mapping of arrays, or a map-style torch ``Dataset``."""

Batch = tuple[Tensor, ...] | dict[str, Tensor]

_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


@dataclass(frozen=True)
class Field:
    """One array of the data, as stored and as it came.

    Attributes:
        name: Its name in errors and in a mapping; ``"data"`` or ``"data[1]"`` otherwise.
        array: A tensor, or a memory map that is read batch by batch.
        source: ``"tensor"``, ``"numpy"``, ``"frame"`` or ``"series"``.
        labels: Column names of a frame, name of a series.
        dtype: The dtype that the values came with (``None`` for a frame of mixed dtypes).
    """

    name: str
    array: Tensor | np.memmap[Any, Any]
    source: str
    labels: Any = None
    dtype: Any = None

    @classmethod
    def of(cls, values: Any, name: str) -> Field:
        """Read a tensor, array, frame or series; raises ``ValueError`` for anything else."""
        if isinstance(values, Tensor):
            if values.layout is not torch.strided:
                raise ValueError(
                    f"{name}: expected a dense tensor, got layout {values.layout}; use .to_dense()"
                )
            field = cls(name, _floats(values.detach()), "tensor", dtype=values.dtype)
        elif isinstance(values, np.ndarray):
            field = cls(name, _tensor_of_array(values, name), "numpy", dtype=values.dtype)
        elif isinstance(values, pd.DataFrame):
            dtypes = set(values.dtypes)
            dtype = dtypes.pop() if len(dtypes) == 1 else None
            field = cls(name, _tensor_of_frame(values, name), "frame", values.columns, dtype)
        elif isinstance(values, pd.Series):
            array = _tensor_of_frame(values.to_frame(), name)[:, 0]
            field = cls(name, array, "series", values.name, values.dtype)
        else:
            raise ValueError(
                f"{name}: expected a tensor, a numpy array or memmap, a pandas frame, a tuple or "
                f"mapping of those, or a torch Dataset; got {type(values).__name__}"
            )
        if field.array.ndim == 0:
            raise ValueError(f"{name}: expected rows along the first dimension, got one number")
        return field

    def take(self, index: Tensor) -> Tensor:
        """Rows at ``index``, (rows,) of int64, as a tensor."""
        if isinstance(self.array, Tensor):
            return self.array.index_select(0, index.to(self.array.device))
        taken: Tensor = _tensor_of_array(np.asarray(self.array[index.numpy()]), self.name)
        return taken

    def restore(self, values: Tensor, index: pd.Index | None) -> Any:
        """The values in the form that this field came in, integers again where they fit."""
        values = values.detach().cpu()
        if self.source == "tensor":
            return values.to(self.dtype) if _holds(self.dtype, values) else values
        array = values.numpy()
        if isinstance(self.dtype, np.dtype):
            array = array.astype(self.dtype) if _holds(_torch_dtype(self.dtype), values) else array
        if self.source == "frame":
            return pd.DataFrame(array, columns=self.labels, index=index)
        if self.source == "series":
            return pd.Series(array, name=self.labels, index=index)
        return array


class Rows:
    """N rows of one or several fields.

    Args:
        data: A tensor, a numpy array or memmap, a pandas frame (numeric columns become one
            tensor), a tuple or a mapping of those, or a map-style torch ``Dataset``, which is
            read once into memory.
        name: The argument's name, for errors.

    Raises:
        ValueError: On an unknown form, text columns, no rows, or fields of unequal length.

    Example:
        >>> rows = Rows({"x": torch.zeros(5, 3), "label": torch.arange(5)})
        >>> len(rows), rows.take(torch.tensor([4, 0]))["label"]
        (5, tensor([4, 0]))
    """

    def __init__(self, data: Data, name: str = "data") -> None:
        whole: Any = _read_dataset(data, name) if isinstance(data, Dataset) else data
        self.keys: list[str] | None = None
        self.positions: Tensor | None = None
        self.single = not isinstance(whole, Mapping | tuple)
        if isinstance(whole, Mapping):
            self.keys = [str(key) for key in whole]
            labels, arrays = [f'{name}["{key}"]' for key in whole], list(whole.values())
        elif isinstance(whole, tuple):
            labels, arrays = [f"{name}[{i}]" for i in range(len(whole))], list(whole)
        else:
            labels, arrays = [name], [whole]
        self.fields = [Field.of(array, label) for array, label in zip(arrays, labels, strict=True)]
        if not self.fields:
            raise ValueError(f"{name}: expected at least one field, got an empty container")
        lengths = {field.name: len(field.array) for field in self.fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{name}: expected fields of one length, got {lengths}")
        if len(self) == 0:
            raise ValueError(f"{name}: expected at least one row, got none")
        indices = [f.index for f in arrays if isinstance(f, (pd.DataFrame, pd.Series))]
        self.index: pd.Index = indices[0] if indices else pd.RangeIndex(len(self))

    def __len__(self) -> int:
        return len(self.fields[0].array if self.positions is None else self.positions)

    @property
    def names(self) -> list[str]:
        """Field names: the keys of a mapping, positions otherwise."""
        return self.keys if self.keys is not None else [str(i) for i in range(len(self.fields))]

    def batch(self, tensors: Sequence[Tensor]) -> Batch:
        """Tensors, one a field, as the model is called with."""
        return tuple(tensors) if self.keys is None else dict(zip(self.keys, tensors, strict=True))

    def take(self, index: Tensor, device: torch.device | None = None) -> Batch:
        """Gather rows: ``index`` is (rows,) of int64; the batch is moved to ``device``."""
        if self.positions is not None:
            index = self.positions[index]
        tensors = [field.take(index) for field in self.fields]
        if device is not None:
            tensors = [tensor.to(device, non_blocking=True) for tensor in tensors]
        return self.batch(tensors)

    def positions_in_data(self, index: Tensor) -> Tensor:
        """Positions, in the data as given, of the rows at ``index``."""
        return index if self.positions is None else self.positions[index]

    def subset(self, positions: Tensor) -> Rows:
        """The rows at ``positions``, (rows,), as rows of their own; nothing is copied."""
        part = copy.copy(self)
        part.positions = positions if self.positions is None else self.positions[positions]
        part.index = self.index[positions.numpy()]
        return part

    def split(self, fraction: float, seed: int | None) -> tuple[Rows, Rows]:
        """Part the rows at random into (training, validation)."""
        held_out = round(fraction * len(self))
        if not 0 < fraction < 1 or not 0 < held_out < len(self) - 1:
            raise ValueError(
                f"validation: expected a fraction that leaves at least one row out and two in, "
                f"got {fraction} of {len(self)} rows"
            )
        order = torch.randperm(len(self), generator=generator(seed))
        return self.subset(order[held_out:].sort().values), self.subset(order[:held_out])

    def template(self) -> dict[str, Any]:
        """Form, names, dtypes and shapes, without the values, as JSON can hold them."""
        fields = [
            {
                "source": f.source,
                "labels": _plain_labels(f.labels),
                "tensor": str(as_tuple(self.take(torch.arange(1)))[i].dtype).partition(".")[2],
                "dtype": _plain_dtype(f.dtype),
                "shape": list(f.array.shape[1:]),
            }
            for i, f in enumerate(self.fields)
        ]
        return {"single": self.single, "keys": self.keys, "fields": fields}

    def fingerprint(self) -> str:
        """Checksum of the form and of every row; of 4096 rows of data in a memory map."""
        digest = hashlib.sha256(json.dumps([len(self), self.template()]).encode())
        mapped = any(isinstance(field.array, np.memmap) for field in self.fields)
        count = min(len(self), 4096) if mapped else len(self)
        for part in torch.linspace(0, len(self) - 1, count, dtype=torch.float64).long().split(8192):
            for tensor in as_tuple(self.take(part)):
                flat = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(flat.numpy().tobytes())
        return digest.hexdigest()

    def restore(self, tensors: Sequence[Tensor], index: pd.Index | None = None) -> Any:
        """Tensors, one a field, in the form that the data came in."""
        values = [f.restore(t, index) for f, t in zip(self.fields, tensors, strict=True)]
        if self.single:
            return values[0]
        return tuple(values) if self.keys is None else dict(zip(self.keys, values, strict=True))


def example_rows(template: dict[str, Any], count: int = 2) -> Any:
    """Rows of zeros in the form that ``Rows.template`` describes."""
    values = []
    for entry in template["fields"]:
        tensor = torch.zeros((count, *entry["shape"]), dtype=getattr(torch, entry["tensor"]))
        kind, name = entry["dtype"] or ("", "")
        numpys = np.dtype(name) if kind == "numpy" else None
        dtype = getattr(torch, name) if kind == "torch" else numpys
        field = Field("data", tensor, entry["source"], entry["labels"], dtype)
        values.append(field.restore(tensor, None))
    if template["keys"] is not None:
        return dict(zip(template["keys"], values, strict=True))
    return values[0] if template["single"] else tuple(values)


def as_rows(data: Data, name: str = "data") -> Rows:
    """Read data once: rows pass through unchanged."""
    return data if isinstance(data, Rows) else Rows(data, name)


def as_tuple(batch: Batch) -> tuple[Tensor, ...]:
    """The tensors of a batch, in the order of the fields."""
    return tuple(batch.values()) if isinstance(batch, dict) else batch


def batch_rows(batch: Batch) -> int:
    """Number of rows in a batch."""
    return len(as_tuple(batch)[0])


def map_batch(batch: Batch, function: Any) -> Batch:
    """Apply a function to every tensor of a batch."""
    if isinstance(batch, dict):
        return {key: function(value) for key, value in batch.items()}
    return tuple(function(value) for value in batch)


def in_form_of(batch: Batch, tensors: Sequence[Tensor]) -> Batch:
    """Tensors in the form of a batch, one for each of its fields; more are left over."""
    if isinstance(batch, dict):
        return dict(zip(batch, tensors, strict=False))
    return tuple(tensors[: len(batch)])


def generator(seed: int | None) -> torch.Generator | None:
    """A generator of its own for ``seed``; ``None`` for the global one."""
    return None if seed is None else torch.Generator().manual_seed(seed)


def _plain_labels(labels: Any) -> Any:
    if isinstance(labels, pd.Index):
        return [label if isinstance(label, int) else str(label) for label in labels.tolist()]
    return labels if labels is None or isinstance(labels, int) else str(labels)


def _plain_dtype(dtype: Any) -> list[str] | None:
    if isinstance(dtype, torch.dtype):
        return ["torch", str(dtype).partition(".")[2]]
    return ["numpy", dtype.str] if isinstance(dtype, np.dtype) else None


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    """Torch's dtype for numpy's, a wider one where torch can do little with it."""
    native = np.zeros(1, _WIDER.get(dtype.name, dtype.newbyteorder("=")))
    return torch.from_numpy(native).dtype


def _holds(dtype: torch.dtype, values: Tensor) -> bool:
    """Whether a dtype takes the values unchanged (floats: to rounding)."""
    if dtype.is_floating_point or values.dtype == dtype:
        return True
    if values.is_floating_point() or dtype == torch.bool:
        return False
    if values.dtype == torch.bool or values.numel() == 0:
        return True
    limits = torch.iinfo(dtype)
    return limits.min <= int(values.min()) and int(values.max()) <= limits.max


def _floats(tensor: Tensor) -> Tensor:
    """Floats in torch's default dtype, everything else as it is."""
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _tensor_of_array(array: np.ndarray, name: str) -> Any:
    if isinstance(array, np.ma.MaskedArray) and bool(np.ma.getmaskarray(array).any()):
        raise ValueError(
            f"{name}: expected a plain array, got one with masked cells; fill them, "
            "array.filled(numpy.nan), and mask them in the model"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: expected numbers, got an array of dtype {array.dtype}; "
            "encode text and dates as numbers first"
        )
    if isinstance(array, np.memmap):
        return array
    if array.dtype.name in _WIDER:
        array = array.astype(_WIDER[array.dtype.name])
    if not array.flags.writeable or not array.dtype.isnative or min(array.strides, default=0) < 0:
        array = array.astype(array.dtype.newbyteorder("="), copy=True)
    return _floats(torch.from_numpy(array))


def _tensor_of_frame(frame: pd.DataFrame, name: str) -> Tensor:
    text = [(c, d) for c, d in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(d)]
    if text:
        kinds = ", ".join(f'"{c}" ({d})' for c, d in text[:5])
        raise ValueError(
            f"{name}: expected numeric columns, got {kinds}"
            + (f" and {len(text) - 5} more" if len(text) > 5 else "")
            + "; drop them or encode them (pandas.get_dummies, or .cat.codes)"
        )
    gaps = frame.isna().to_numpy().any()  # nullable integers cannot hold NaN: read them as floats
    array = frame.to_numpy(dtype=np.float64, na_value=np.nan) if gaps else frame.to_numpy()
    if array.dtype == object:  # several extension dtypes
        array = frame.to_numpy(dtype=np.float64)
    tensor: Tensor = _tensor_of_array(array, name)
    return tensor


def _read_dataset(dataset: Any, name: str) -> Any:
    """All items of a map-style dataset, stacked: tensors, tuples or mappings of them."""
    if isinstance(dataset, TensorDataset):
        tensors = dataset.tensors
        return tensors[0] if len(tensors) == 1 else tuple(tensors)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"{name}: expected a map-style Dataset with a length, got {type(dataset).__name__}; "
            "write a stream to a numpy memmap and pass that"
        )
    if len(dataset) == 0:
        raise ValueError(f"{name}: expected at least one row, got an empty Dataset")
    items = default_collate([dataset[i] for i in range(len(dataset))])
    if isinstance(items, list):
        return items[0] if len(items) == 1 else tuple(items)
    return items
