"""Which cells of the data a site observed."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_vae.data.rows import Batch, as_tuple


def observed_cells(batch: Batch, value: Tensor) -> tuple[int, Tensor] | None:
    """Where in the data an observed value was read: by its storage, where it is a view.

    Args:
        batch: What the model was called with.
        value: An observed site's value.

    Returns:
        The field's position and, shaped like ``value``, the flat positions of its cells in that
        field; ``None`` where the value is no view of a field.
    """
    for position, field in enumerate(as_tuple(batch)):
        same_memory = value.untyped_storage().data_ptr() == field.untyped_storage().data_ptr()
        if same_memory and value.dtype == field.dtype and field.is_contiguous():
            cells = torch.arange(field.numel(), device=field.device)
            offset = value.storage_offset() - field.storage_offset()
            return position, cells.as_strided(value.shape, value.stride(), offset)
    return None


def observed_columns(batch: Batch, value: Tensor) -> tuple[int, list[int]] | None:
    """Where in the data a converted copy (``x[:, 2].long()``) was read: by its columns' values.

    A NaN in the data matches anything: the model may have filled it.

    Args:
        batch: What the model was called with; the more rows, the surer.
        value: An observed site's value, rows first.

    Returns:
        The field's position and its columns, one for each column of the value; ``None`` where no
        field has such columns.

    Raises:
        ValueError: Where several columns of a field are alike, so that nobody can tell.
    """
    if value.ndim == 0:
        return None
    wanted = value.reshape(len(value), -1).double().T  # (columns, rows)
    for position, field in enumerate(as_tuple(batch)):
        if len(value) != len(field):
            continue
        columns = field.reshape(len(field), -1).double().T
        open_cells = columns.isnan()
        if columns.shape == wanted.shape and bool(((columns == wanted) | open_cells).all()):
            return position, list(range(len(columns)))
        chosen = []
        for column in wanted:
            alike = ((columns == column) | open_cells).all(1).nonzero().flatten().tolist()
            if len(alike) > 1:
                raise ValueError(
                    f"columns {alike[:5]} of the data hold the same values, so that a converted "
                    "copy of one cannot be told from the others; pass the data as floats and "
                    "observe a slice of them, or pass these columns as a field of their own"
                )
            chosen += alike
        if len(chosen) == len(wanted):
            return position, chosen
    return None


def cells_in(batch: Batch, value: Tensor) -> tuple[int, Tensor] | None:
    """Cells of the data that a value was read from, view or copy; ``None`` where nobody can tell.

    Args:
        batch: What the model was called with.
        value: An observed site's value, rows first.
    """
    viewed = observed_cells(batch, value)
    if viewed is not None:
        return viewed
    try:
        copied = observed_columns(batch, value)
    except ValueError:
        return None
    if copied is None:
        return None
    position, columns = copied
    return position, column_cells(as_tuple(batch)[position], columns, value.shape)


def column_cells(field: Tensor, columns: list[int], shape: torch.Size) -> Tensor:
    """Flat positions, in a field, of some of its columns in every row; shaped as asked."""
    starts = field[0].numel() * torch.arange(len(field), device=field.device)[:, None]
    return (starts + torch.tensor(columns, device=field.device)).reshape(shape)
