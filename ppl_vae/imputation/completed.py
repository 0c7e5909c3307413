"""The data with values in their missing cells, in the form and the order in which they came."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Rows
from ppl_vae.imputation.missing import MissingCells
from ppl_vae.imputation.of_tables import completed_table


def completed_data(data: Any, rows: Rows, cells: MissingCells, values: Tensor) -> Any:
    """Return a copy of the data in which the missing cells alone are written.

    Tensors, arrays of NumPy, frames and series of pandas, and tuples and mappings of these, are
    copied, so that all other cells stay what they were, bit by bit; a field without missing cells
    is the very object that was given. Data of other forms (frames of
    polars, sparse matrices, tables in files) come back in the form that ``reconstruct`` gives.

    Args:
        data: The data as they were given.
        rows: The same data as rows.
        cells: The missing cells.
        values: Their values, (cells,), in double precision.
    """
    if rows.schema is not None:
        return completed_table(rows, cells, values)
    of_fields = [_of_field(cells, values, number) for number in range(len(rows.fields))]
    if rows.single:
        return _written(data, rows.fields[0], rows, *of_fields[0])
    if not isinstance(data, Mapping | tuple):
        fields = zip(rows.fields, of_fields, strict=True)
        return rows.restore([_as_tensor(field, rows, *new) for field, new in fields], rows.index)
    keys = list(data) if isinstance(data, Mapping) else range(len(data))
    parts = {
        key: _written(data[key], field, rows, *new) if len(new[0]) else data[key]
        for key, field, new in zip(keys, rows.fields, of_fields, strict=True)
    }
    if isinstance(data, tuple):
        return tuple(parts.values())
    result: Any = copy.copy(data) if isinstance(data, dict) else dict(data)
    result.update(parts)
    return result


def _of_field(cells: MissingCells, values: Tensor, number: int) -> tuple[np.ndarray, ...]:
    """Return rows, places and values of the missing cells of one field, (cells,) each."""
    chosen = cells.fields == number
    return tuple(each[chosen].numpy() for each in (cells.rows, cells.places, values))


def _as_tensor(
    field: Field, rows: Rows, row: np.ndarray, place: np.ndarray, values: np.ndarray
) -> Tensor:
    """Return one field as a tensor of floats or whole numbers, with values in some of its cells."""
    tensor = field.take(torch.arange(len(rows)))
    if not tensor.is_floating_point() and bool((values != np.round(values)).any()):
        tensor = tensor.to(torch.get_default_dtype())
    tensor.view(len(tensor), -1)[row, place] = torch.from_numpy(values).to(tensor.dtype)
    return tensor


def _written(
    given: Any, field: Field, rows: Rows, row: np.ndarray, place: np.ndarray, values: np.ndarray
) -> Any:
    """Return a copy of one field with values in some of its cells.

    Args:
        given: The field as it was given.
        field: The field.
        rows: The data.
        row: Positions of the rows, (cells,).
        place: Positions of the cells in their rows, (cells,).
        values: The values, (cells,).
    """
    if isinstance(given, pd.DataFrame):
        return _frame_written(given, field, row, place, values)
    if isinstance(given, pd.Series):
        return _series_written(given, row, values)
    if isinstance(given, Tensor) or type(given) in (np.ndarray, np.memmap):
        source = np.argsort(field.given_order) if field.given_order is not None else None
        if source is not None:  # columns with names, which the rows have in the order of a fit
            width = len(source)
            place = place // width * width + source[place % width]
        if isinstance(given, Tensor):
            return _tensor_written(given, row, place, values)
        dtype = _dtype_for(given.dtype, values)
        array = np.array(given, dtype, order="C")
        array.reshape(len(array), -1)[row, place] = values.astype(dtype)
        return array
    return field.restore(_as_tensor(field, rows, row, place, values), rows.index)


def _tensor_written(
    given: Tensor, row: np.ndarray, place: np.ndarray, values: np.ndarray
) -> Tensor:
    """Return a copy of a tensor with values in some of its cells."""
    whole = bool((values == values.round()).all())
    wide = not (given.is_floating_point() or whole)
    tensor = given.detach().to(torch.double if wide else given.dtype, copy=True).contiguous()
    new = torch.from_numpy(values).to(tensor.device, tensor.dtype)
    flat = tensor.view(len(tensor), -1)
    flat[torch.from_numpy(row), torch.from_numpy(place)] = new
    return tensor


def _frame_written(
    given: pd.DataFrame, field: Field, row: np.ndarray, place: np.ndarray, values: np.ndarray
) -> pd.DataFrame:
    """Return a copy of a frame with values in some of its cells; columns are found by name."""
    frame = given.copy()
    same = len(field.labels) == given.shape[1] and bool((field.labels == given.columns).all())
    for column in np.unique(place):
        position: Any = int(column) if same else given.columns.get_loc(field.labels[column])
        chosen = place == column
        frame.isetitem(
            position, _series_written(given.iloc[:, position], row[chosen], values[chosen])
        )
    return frame


def _series_written(given: Any, row: np.ndarray, values: np.ndarray) -> Any:
    """Return a copy of a series with values in some rows; whole numbers become floats if needed."""
    if not len(row):
        return given.copy()
    if isinstance(given.dtype, np.dtype):
        dtype = _dtype_for(given.dtype, values)
        array = np.array(given.to_numpy(), dtype)
        array[row] = values.astype(dtype)
        return pd.Series(array, given.index, name=given.name)
    whole = bool((values == np.round(values)).all())
    series = given.copy() if whole or given.dtype.kind == "f" else given.astype("Float64")
    series.iloc[row] = pd.array(values).astype(series.dtype)
    return series


def _dtype_for(dtype: np.dtype[Any], values: np.ndarray) -> np.dtype[Any]:
    """Return a field's dtype, or double precision where it cannot hold the values."""
    if dtype.kind in "fO":
        return dtype
    fits = bool((values.astype(dtype) == values).all())
    return dtype if fits else np.dtype(np.float64)
