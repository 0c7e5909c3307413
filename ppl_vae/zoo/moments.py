"""Numbers of each feature of a field, or of each channel of images, for ``build``.

    mean and standard deviation    (features,), or (channels, 1, 1), from all rows
    quartiles                      (3, features), or (3, channels, 1, 1), from some rows if many

All cells of a channel count alike, and all steps of a feature in rows of shape (steps, features).
Missing cells are left out. A field may be larger than memory: it is read a block of rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.cells import cell_name
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import evenly_spaced
from ppl_vae.data.sparse import SparseArray

BLOCK = 1 << 20  # most numbers of the data that are read at once


@dataclass(frozen=True)
class SeenCells(Field):
    """A field of rows or sequences, read with NaN in the cells that are not there.

    Attributes:
        lengths: The field of the lengths, (rows,), or ``None``.
        seen: The field of the cells that were observed, of the field's shape, or ``None``.
    """

    lengths: Field | None = None
    seen: Field | None = None

    @classmethod
    def of_fields(cls, field: Field, lengths: Field | None, seen: Field | None) -> SeenCells:
        """Make the field from one that is read with any number in these cells."""
        return cls(field.name, field.array, field.source, field.labels, field.dtype,
                   field.given_order, lengths, seen)  # fmt: skip

    def take(self, index: Tensor) -> Tensor:
        """Return the rows at ``index``, (rows,), as floats."""
        values = super().take(index).double()
        there = torch.ones_like(values, dtype=torch.bool)
        if self.lengths is not None:
            steps = torch.arange(values.shape[1])
            there = (steps < self.lengths.take(index)[:, None])[:, :, None].expand_as(values)
        if self.seen is not None:
            there = there & self.seen.take(index).bool()
        return torch.where(there, values, torch.nan)


def blocks(field: Field) -> Iterator[Tensor]:
    """Yield all rows of a field, (rows, ...), a block that fits into memory at a time."""
    rows = max(1, BLOCK // max(1, math.prod(field.array.shape[1:])))
    for index in torch.arange(len(field.array)).split(rows):
        yield field.take(index)


def mean_and_sd(field: Field, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature or channel, without missing cells.

    Two passes in float64 over blocks of rows: the squares of distances from the mean are summed,
    never the squares of the values, which would lose all digits where the mean is far from zero.
    The sums are over the whole data, however large the memory map; only one block is in memory.

    Args:
        field: The field of the data.
        shape: Shape of a row, (features,) or (channels, height, width); of a step in sequences.

    Returns:
        (features,) each, or (channels, 1, 1) each.

    Raises:
        ValueError: If the default dtype cannot hold the variance of a feature.
    """
    if isinstance(field.array, SparseArray):
        loc, scale = (torch.as_tensor(values) for values in field.array.moments())
    else:
        loc, scale = _moments(field, shape)
    if not bool((scale < math.sqrt(torch.finfo(torch.get_default_dtype()).max)).all()):
        raise ValueError(_largest_number(field))
    varies = scale > 1e-12 * loc.abs().clamp_min(1.0)  # by more than rounding
    scale = torch.where(varies, scale, torch.ones_like(scale))
    dtype, each = torch.get_default_dtype(), (shape[0], *(1 for _ in shape[1:]))
    return loc.to(dtype).reshape(each), scale.to(dtype).reshape(each)


def _largest_number(field: Field) -> str:
    """Return the message on a field whose largest number is so large that a variance overflows."""
    largest, place, start = 0.0, "", 0
    for values in blocks(field):
        sizes = values.double().abs().nan_to_num(nan=0.0, posinf=torch.inf)
        if float(sizes.max()) > largest:
            largest = float(sizes.max())
            at = (sizes == largest).nonzero()[0].tolist()
            name = cell_name(at[1:], values.shape[1:], [(values.shape[1:], field.labels)])
            place = f"{values[tuple(at)]:g} in row {start + at[0]}{name and f', {name}'}"
        start += len(values)
    return (
        f"{field.name}: expected numbers whose variance {torch.get_default_dtype()} can hold, got "
        f"{place}; correct or drop this row"
    )


def _cells(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return rows of a field, (rows, ...), as the cells of each feature: (features, cells)."""
    return values.double().cpu().movedim(values.ndim - len(shape), 0).flatten(1)


def _moments(field: Field, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature or channel, (features,) of float64."""
    total, squares, count = (torch.zeros(shape[0], dtype=torch.float64) for _ in range(3))
    for block in blocks(field):
        values = _cells(block, shape)
        total += values.nansum(1)
        count += (~values.isnan()).sum(1)
    loc = total / count.clamp_min(1)
    for block in blocks(field):
        values = _cells(block, shape)
        squares += ((values - loc[:, None]) ** 2).nansum(1)
    return loc, (squares / count.clamp_min(1)).sqrt()


def quartiles(field: Field, shape: tuple[int, ...]) -> Tensor:
    """Return the quartiles of each feature, (3, features), or of each channel, (3, channels, 1, 1).

    Of large data they are those of rows at equal distances, ``BLOCK`` numbers in all, or 1,000 rows
    where a row is long. Missing cells are left out.

    Args:
        field: The field of the data.
        shape: As in ``mean_and_sd``.
    """
    count = len(field.array)
    looked_at = min(count, max(1000, BLOCK // math.prod(shape)))
    rows = evenly_spaced(count, looked_at)
    values = _cells(field.take(rows), shape)
    found = np.nanquantile(values.numpy(), [0.25, 0.5, 0.75], axis=1)
    each = (3, shape[0], *(1 for _ in shape[1:]))
    return torch.as_tensor(found, dtype=torch.get_default_dtype()).reshape(each)
