"""Which cells of the data a site has observed, and the names of cells in messages.

A model passes part of its argument to ``obs=``: a column, a slice, a transposed view, or a
converted copy such as ``x[:, 2].long()``. Replicates must be written back into the same cells, so
the cells have to be found from the observed value alone. There are two ways, tried in this order:

1. By memory (``observed_cells``). A slice or a view in torch shares the memory of its base. If
   the observed value lies in the memory of a field, its offset and strides tell exactly which
   cells it consists of. Applying the same strides to a tensor that holds the numbers 0, 1, 2, ...
   of the field's cells gives their positions. This fails for a field that is not contiguous.
2. By content (``observed_columns``). A converted copy has memory of its own. Its columns are
   compared with every column of every field, over all rows of the batch: an equal column is the
   one that was read. The rows may stand behind other plates, as in ``x.T[:, indices]``. This fails
   where columns of the data are equal to each other.

A value that was computed from the data (``x.log()``) is found by neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ppl_vae.data.rows import Batch, as_tuple


def observed_cells(batch: Batch, value: Tensor) -> tuple[int, Tensor] | None:
    """Return the cells of the data that an observed value is a view of.

    Args:
        batch: What the model was called with.
        value: An observed site's value.

    Returns:
        The field's position in the batch and, shaped like ``value``, the flat positions of its
        cells in that field; ``None`` where the value is not a view of a field.
    """
    for position, field in enumerate(as_tuple(batch)):
        same_memory = value.untyped_storage().data_ptr() == field.untyped_storage().data_ptr()
        if same_memory and value.dtype == field.dtype and field.is_contiguous():
            cells = torch.arange(field.numel(), device=field.device)
            offset = value.storage_offset() - field.storage_offset()
            return position, cells.as_strided(value.shape, value.stride(), offset)
    return None


def observed_columns(
    batch: Batch, value: Tensor, event_dim: int | None = None, hidden: Tensor | None = None
) -> tuple[int, list[int]] | None:
    """Return the columns of the data that an observed value is a converted copy of.

    A NaN in the data, and a cell that a mask hides, equal any value, because the model may have
    filled them.

    Args:
        batch: What the model was called with. With more rows, fewer columns are equal by chance.
        value: An observed site's value.
        event_dim: Dimensions of an event, just left of which the rows are; ``None`` where the rows
            come first.
        hidden: Which cells of the value a mask hides, shaped like it; ``None`` for none. Marks of
            another shape, as of a mask with a column too many, hide nothing.

    Returns:
        The field's position in the batch and its columns, one for each column of the value;
        ``None`` where no field has such columns.

    Raises:
        ValueError: If several columns of a field are equal to one of the value's.
    """
    if value.ndim == 0:
        return None
    if hidden is None or hidden.shape != value.shape or bool(hidden.all()):
        hidden = torch.zeros_like(value, dtype=torch.bool)
    value, hidden = (e.movedim(_row_dim(e.ndim, event_dim), 0) for e in (value, hidden))
    wanted = value.reshape(len(value), -1).double().T  # (columns, rows)
    anything = hidden.reshape(len(value), -1).T
    for position, field in enumerate(as_tuple(batch)):
        if len(value) != len(field):
            continue
        columns = field.reshape(len(field), -1).double().T
        missing = columns.isnan()
        if columns.shape == wanted.shape and bool(((columns == wanted) | missing | anything).all()):
            return position, list(range(len(columns)))
        chosen = []
        for column, free in zip(wanted, anything, strict=True):
            equal = ((columns == column) | missing | free).all(1).nonzero().flatten().tolist()
            if len(equal) > 1:
                raise ValueError(
                    f"columns {equal[:5]} of the data hold the same values, so that a converted "
                    "copy of one cannot be told from the others; pass the data as floats and "
                    "observe a slice of them, or pass these columns as a field of their own"
                )
            chosen += equal
        if len(chosen) == len(wanted):
            return position, chosen
    return None


def _row_dim(ndim: int, event_dim: int | None) -> int:
    """Return the dimension of the rows in a value of ``ndim`` dimensions, counted from the left."""
    return 0 if event_dim is None else max(ndim - 1 - event_dim, 0)


def cells_in(
    batch: Batch, value: Tensor, event_dim: int | None = None
) -> tuple[int, Tensor] | None:
    """Return the cells of the data that an observed value was read from, as a view or as a copy.

    Args:
        batch: What the model was called with.
        value: An observed site's value.
        event_dim: Dimensions of an event, just left of which the rows are; ``None`` where the rows
            come first.

    Returns:
        The field's position in the batch and the flat positions of the cells, shaped like
        ``value``; ``None`` where the cells cannot be found.
    """
    viewed = observed_cells(batch, value)
    if viewed is not None:
        return viewed
    try:
        copied = observed_columns(batch, value, event_dim)
    except ValueError:
        return None
    if copied is None:
        return None
    position, columns = copied
    return position, column_cells(as_tuple(batch)[position], columns, value.shape, event_dim)


def column_cells(
    field: Tensor, columns: list[int], shape: torch.Size, event_dim: int | None = None
) -> Tensor:
    """Return the flat positions, in a field, of some of its columns in every row.

    Args:
        field: (rows, ...).
        columns: Positions among the cells of a row.
        shape: Shape of the result.
        event_dim: Dimensions of an event, just left of which the rows are; ``None`` where the rows
            come first.
    """
    row_dim = _row_dim(len(shape), event_dim)
    rows_first = [shape[row_dim], *shape[:row_dim], *shape[row_dim + 1 :]]
    starts = field[0].numel() * torch.arange(len(field), device=field.device)[:, None]
    cells = (starts + torch.tensor(columns, device=field.device)).reshape(rows_first)
    return cells.movedim(0, row_dim)


def cell_name(position: Sequence[int], shape: Sequence[int], fields: Iterable[Any]) -> str:
    """Return the name of one cell of a row, for a message; "" for the only cell of a row.

    Args:
        position: Where the cell stands in the row.
        shape: Shape of the row.
        fields: Each field's shape of a row and its columns' labels, ``None`` where they have none.
            Of a field that has the shape, the labels are taken.

    Example:
        >>> cell_name([0, 3, 5], [1, 28, 28], [])
        'channel 0, row 3, column 5 of the image'
        >>> cell_name([1], [2], [((2,), pd.Index(["a", "b"]))])
        'column "b"'
        >>> cell_name([7, 1], [9, 2], [((9, 2), pd.Index(["a", "b"]))])
        'step 7, column "b"'
    """
    if len(position) == 3:
        return "channel {}, row {}, column {} of the image".format(*position)
    for row_shape, labels in fields:
        named = isinstance(labels, pd.Index) and tuple(row_shape[-1:]) == (len(labels),)
        if named and tuple(row_shape) == tuple(shape):
            label = labels[position[-1]]
            column = f'column "{label}"' if isinstance(label, str) else f"column {label}"
            return column if len(position) == 1 else f"step {position[0]}, {column}"
    return f"column {', '.join(map(str, position))}" if position else ""


def place_not_finite(field: Tensor, labels: Any) -> str:
    """Return where the first number that is not finite stands in its row, for a message.

    Args:
        field: Rows of a field, (rows, ...), one of which at least has NaN or infinity.
        labels: The labels of its columns, ``None`` where they have none.

    Example:
        >>> place_not_finite(torch.tensor([[0.0, torch.nan]]), pd.Index(["a", "b"]))
        ' in column "b"'
    """
    position = (~field.isfinite()).nonzero()[0, 1:].tolist()
    name = cell_name(position, field.shape[1:], [(field.shape[1:], labels)])
    return f" in {name}" if name else ""
