"""Rows known again by their contents: one number for each row, and a record of which row is where.

    k_f = mix(sum_c mix(bits of cell c + r_c))     of field f; r_c: a fixed number for place c
    key = mix(sum_f k_f)                           modulo 2^64

A guide with parameters for single rows gives a wrong answer, without an error, when it is asked
about other rows at the same places. With a key for each row it can refuse them. Rows with equal
cells have equal keys; two different rows of a million have one key with a probability of 1e-7.

Source of the mixing function: Steele, Lea & Flood (2014), Fast splittable pseudorandom number
generators, figure 14 (SplitMix64).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ppl_vae.compat.of_torch import is_traced

_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""The three constants of SplitMix64, as signed numbers of 64 bits."""


def row_keys(*fields: Tensor) -> Tensor:
    """Return a number for each row that depends on every cell of the row, (rows,) of int64.

    The number is odd, and so never 0. It is the same on every device, in any order of the fields,
    and for equal values of any dtype: 1, 1.0 and True are the same cell, and 0.0 and -0.0.

    Args:
        fields: (rows, ...) each, of any dtype.

    Example:
        >>> keys = row_keys(torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
        >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
        (False, True)
    """
    total = torch.zeros((), dtype=torch.int64, device=fields[0].device)
    for field in fields:
        cells = _bits(field).reshape(len(field), -1)  # (rows, cells)
        places = _STEP * torch.arange(1, cells.shape[1] + 1, device=cells.device)
        total = total + _mixed(_mixed(cells + _mixed(places)).sum(1)).to(total.device)
    return _mixed(total) | 1


def refuse_other_rows(known: Tensor, what: str) -> None:
    """Raise ``ValueError`` where not all rows of a batch are known.

    While a graph is traced no value can be read, and nothing is raised: the caller makes the
    numbers of unknown rows NaN, which leads back to the pair's own Python, and so to the error.

    Args:
        known: Whether each row of the batch is known, (rows,) of bool.
        what: What was expected, and after "; " what to do about other rows.

    Raises:
        ValueError: With the number of other rows and the place of the first one in the batch.
    """
    if is_traced() or bool(known.all()):
        return
    expected, _, mend = what.partition("; ")
    first, count = int((~known).nonzero()[0]), int((~known).sum())
    raise ValueError(
        f"expected {expected}, got {count} other rows in a batch of {len(known)}, the first at "
        f"place {first}; {mend}"
    )


class KnownRows(nn.Module):
    """Record of which row stands at which index, for parameters that belong to single rows.

    In training mode the rows of a batch are written down. In evaluation mode each row has to be the
    one that was trained at its index; before any training, every row is taken.

    Args:
        rows: N, the number of rows.

    Example:
        >>> known, x = KnownRows(10), torch.randn(2, 3)
        >>> known(torch.tensor([4, 7]), x)
        tensor([True, True])
        >>> known.eval()(torch.tensor([4, 4]), x[[0, 0]])
        tensor([True, True])
    """

    keys: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(rows, dtype=torch.int64))  # 0: not fitted yet

    def forward(self, index: Tensor, x: Tensor) -> Tensor:
        """Return whether the rows of a batch are those of their indices, (rows,) of bool.

        The result has a false entry only while a graph is traced; see ``refuse_other_rows``.

        Args:
            index: Place of each row in the data, (rows,).
            x: The rows, (rows, ...).

        Raises:
            ValueError: If an index is not below N, or in evaluation mode a row is another one.
        """
        fits = (index >= 0) & (index < len(self.keys))
        mend = (
            "refine(model, None, data) fits new rows, with the model as it is; rows that fit holds "
            "out are new rows, so leave validation= out"
        )
        refuse_other_rows(fits, f"indices from 0 to {len(self.keys) - 1}; {mend}")
        keys = row_keys(x)
        if self.training:
            with torch.no_grad():
                self.keys[index] = keys
        known = (self.keys[index] == keys) | (self.keys == 0).all()
        refuse_other_rows(known, f"the row that was fitted at each index; {mend}")
        return known


def _bits(field: Tensor) -> Tensor:
    """Return numbers that say which values a field's cells have, in the field's shape, of int64.

    They are the bits of the values in double precision. A whole number too large for it is told
    from its neighbours by what double precision leaves out.
    """
    if field.device.type == "mps":  # which has no double precision
        field = field.cpu()
    double = field.double() + 0.0  # -0.0 + 0.0 is 0.0
    bits: Tensor = double.contiguous().view(torch.int64)
    if field.dtype == torch.int64:
        bits = bits + _SECOND * (field - double.long())
    return bits


def _mixed(numbers: Tensor) -> Tensor:
    """Return numbers whose every bit depends on every bit of the number that it was made from."""
    numbers = (numbers ^ _shifted(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shifted(numbers, 27)) * _SECOND
    mixed: Tensor = numbers ^ _shifted(numbers, 31)
    return mixed


def _shifted(numbers: Tensor, count: int) -> Tensor:
    """Return numbers shifted to the right with zeros from the left, as of unsigned numbers."""
    shifted: Tensor = (numbers >> count) & (2 ** (64 - count) - 1)
    return shifted
