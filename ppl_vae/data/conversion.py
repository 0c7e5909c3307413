"""Numbers in arrays and frames as tensors; a number that a tensor cannot hold is an error.

    floats             torch's default dtype, rounded
    integers, booleans their own dtype; unsigned integers a signed one that torch can compute with

A conversion may round a number, and never wraps one round to another sign or makes it infinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.data.numeric import holds_lists

_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}
"""Unsigned dtypes that torch can do little with, and the signed dtypes that take their place."""

_UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}
"""The same dtypes as torch calls them."""

LARGEST_INTEGER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Place:
    """Where an array stands in the data, for messages.

    Attributes:
        name: The field's name.
        columns: Labels of the array's columns; ``None`` where they have none.
        rows: Positions of the array's rows in the data, (rows,); ``None`` for all rows.
    """

    name: str
    columns: Any = None
    rows: Tensor | None = None

    def error(self, lost: Any, values: Any, expected: str, mend: str) -> ValueError:
        """Return the error that names the first value that cannot be converted.

        Args:
            lost: Which values cannot, (rows, ...) of bool; at least one is True.
            values: The values, (rows, ...).
            expected: What was expected.
            mend: What to do.
        """
        first = tuple(int(position) for position in np.argwhere(np.asarray(lost))[0])
        row = first[0] if self.rows is None else int(self.rows[first[0]])
        column = "" if self.columns is None else f': column "{self.columns[first[1]]}"'
        value = np.asarray(values)[first]
        shown = f"{value}" if value.dtype.kind in "iu" else f"{value:.4g}"
        return ValueError(
            f"{self.name}{column}: expected {expected}, got {shown} in row {row}; {mend}"
        )


def tensor_of_tensor(tensor: Tensor, place: Place) -> Tensor:
    """Return a tensor in a dtype that torch computes with, on its device.

    Raises:
        ValueError: If a number is too large for that dtype.
    """
    if tensor.is_meta:
        raise ValueError(f"{place.name}: expected numbers, got a tensor on the meta device")
    if tensor.is_quantized or tensor.is_complex():
        mend = "use .dequantize()" if tensor.is_quantized else "pass torch.view_as_real(tensor)"
        raise ValueError(f"{place.name}: expected real numbers, got {tensor.dtype}; {mend}")
    if tensor.dtype in _UNSIGNED:
        return tensor_of_array(tensor.cpu().numpy(), place).to(tensor.device)
    return _default_floats(tensor, place) if tensor.is_floating_point() else tensor


def tensor_of_array(array: np.ndarray[Any, Any], place: Place) -> Tensor:
    """Return a NumPy array as a tensor; the memory is shared if possible.

    Raises:
        ValueError: If cells are masked, values are not numbers, or a number is too large.
    """
    check_numbers(array, place.name)
    if array.dtype.name in _WIDER:
        array = _signed(array, place)
    if array.dtype.kind == "f" and array.dtype.itemsize > np.dtype(np.float64).itemsize:
        array = _double(array, place)
    if not array.flags.writeable or not array.dtype.isnative or min(array.strides, default=0) < 0:
        array = array.astype(array.dtype.newbyteorder("="), copy=True)
    return tensor_of_tensor(torch.from_numpy(array), place)


def check_numbers(array: np.ndarray[Any, Any], name: str) -> None:
    """Raise ``ValueError`` where cells of an array are masked, or its values are not numbers."""
    if isinstance(array, np.ma.MaskedArray) and bool(np.ma.getmaskarray(array).any()):
        raise ValueError(
            f"{name}: expected a plain array, got one with masked cells; fill them, "
            "array.filled(numpy.nan), and mask them in the model"
        )
    if array.dtype.kind not in "biuf":
        holds_numbers = array.dtype.kind in "OUS" and _spells_numbers(array)
        mend = (
            "encode text and dates as numbers first, names of classes as 0, 1, 2, ... "
            "(pandas.factorize(values)[0])"
        )
        if array.dtype.kind == "c":
            mend = "pass the real and the imaginary part as features"
        if holds_numbers:
            mend = (
                "all of its values are numbers: where they measure something (features, a "
                "covariate), convert them with .astype(float); where they name classes, number "
                "the classes 0, 1, 2, ..., as pandas.factorize(values)[0] does"
            )
        raise ValueError(f"{name}: expected numbers, got an array of dtype {array.dtype}; {mend}")


def _spells_numbers(array: np.ndarray[Any, Any]) -> bool:
    """Return whether every value of an array of objects or text is a number, or spells one."""
    try:
        array.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def tensor_of_frame(frame: pd.DataFrame, name: str) -> Tensor:
    """Return a frame's columns as one tensor, (rows, columns); missing cells become NaN.

    Args:
        frame: The frame.
        name: The data's name in error messages.

    Raises:
        ValueError: If a column is not numeric, or a number is too large.
    """
    text = [p for p, d in enumerate(frame.dtypes) if not pd.api.types.is_numeric_dtype(d)]
    if text:
        raise _not_numeric(frame.iloc[:, text], name)
    missing = frame.isna().to_numpy().any()  # nullable integers cannot hold NaN: read as floats
    array = frame.to_numpy(dtype=np.float64, na_value=np.nan) if missing else frame.to_numpy()
    if array.dtype == object:  # several extension dtypes
        array = frame.to_numpy(dtype=np.float64)
    return tensor_of_array(array, Place(name, frame.columns))


def _as_numbers(values: pd.Series) -> pd.Series:
    """Return values as numbers, with NaN for what is none, or is larger than any float."""
    try:
        return pd.to_numeric(values, errors="coerce")
    except OverflowError:
        numbers = values.map(lambda value: pd.to_numeric(str(value), errors="coerce"))
        return numbers.replace([np.inf, -np.inf], np.nan)


def _not_numeric(text: pd.DataFrame, name: str) -> ValueError:
    """Return the error that names columns of another dtype than numbers, with a mend for each kind.

    Columns of objects or text may hold numbers all the same: files and databases return them so.

    Args:
        text: The columns that are not numeric.
        name: The data's name in error messages.
    """
    mends, shown = [], []
    for position, (column, dtype) in enumerate(text.dtypes.items()):
        values = text.iloc[:, position]
        is_text = pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype)
        numbers = _as_numbers(values) if is_text else None
        bad = None if numbers is None else (numbers.isna() & values.notna()).to_numpy()
        about, mend = f"{dtype}", MIXED
        if holds_lists(values):
            mend = "ppl_vae.sequences(frame) reads cells that hold the steps of sequences"
        elif bad is not None and not bad.any():
            mend = (
                "convert columns that hold numbers with pandas.to_numeric, and number the classes "
                "of labels 0, 1, 2, ... with pandas.factorize(labels)[0]"
            )
        elif bad is not None and bad.sum() * 2 < len(bad):
            first = int(bad.argmax())
            about += f'; no number in row {first}: "{str(values.iloc[first])[:40]}"'
            mend = 'pandas.to_numeric(column, errors="coerce") makes NaN of what is no number'
        shown.append(f'"{column}" ({about})')
        mends.append(mend)
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ValueError(
        f"{name}: expected numeric columns, got {', '.join(shown[:5])}{more}; "
        + "; ".join(dict.fromkeys(mends))
    )


MIXED = (
    "drop them or encode them (pandas.get_dummies, or .cat.codes); TableModel describes them as "
    "they are, in ppl_vae.table(frame)"
)


def _default_floats(tensor: Tensor, place: Place) -> Tensor:
    """Return floats in torch's default dtype; raise ``ValueError`` where one becomes infinite."""
    converted = tensor.to(torch.get_default_dtype())
    lost = changed(tensor, converted) if converted.dtype != tensor.dtype else torch.tensor(False)
    if bool(lost.any()):
        dtype = converted.dtype
        raise place.error(
            lost.cpu(),
            tensor.cpu(),
            f"numbers up to {torch.finfo(dtype).max:.2g} (torch's default dtype, {dtype})",
            "write them in larger units or take logarithms, or call "
            "torch.set_default_dtype(torch.float64) before the pair is made",
        )
    return converted


def _signed(array: np.ndarray[Any, Any], place: Place) -> np.ndarray[Any, Any]:
    """Return unsigned integers with a sign; raise ``ValueError`` where one is too large."""
    lost = array > LARGEST_INTEGER if array.dtype.name == "uint64" else np.zeros(1, bool)
    if lost.any():
        raise place.error(
            lost,
            array,
            f"integers up to {LARGEST_INTEGER}",
            "convert measurements to floats (.astype(float)), and encode names such as hashes "
            "as 0, 1, 2, ...",
        )
    return array.astype(_WIDER[array.dtype.name])


def _double(array: np.ndarray[Any, Any], place: Place) -> np.ndarray[Any, Any]:
    """Return extended floats as float64; raise ``ValueError`` where one becomes infinite."""
    with np.errstate(over="ignore"):
        converted = array.astype(np.float64)
    lost = np.isinf(converted) & ~np.isinf(array)
    if lost.any():
        expected = f"numbers up to {np.finfo(np.float64).max:.2g} (float64)"
        raise place.error(lost, array, expected, "write them in larger units or take logarithms")
    return converted


def changed(values: Tensor, converted: Tensor) -> Tensor:
    """Return which numbers a conversion changed by more than rounding, (...) of bool.

    Args:
        values: The numbers before.
        converted: The numbers after, in a dtype of floats or of integers.
    """
    if converted.is_floating_point():
        return converted.isinf() & ~values.isinf()
    return converted != values


def fits(dtype: torch.dtype | np.dtype[Any], values: Tensor) -> bool:
    """Return whether a dtype can hold the values unchanged (floats: up to rounding)."""
    if values.dtype == dtype or values.numel() == 0:
        return True
    limits, is_float = _limits(dtype)
    if is_float:
        finite = values[values.isfinite()].double()
        return not finite.numel() or float(finite.abs().max()) <= float(limits.max)
    if limits is None or values.is_floating_point():
        return False
    return bool(limits.min <= int(values.min()) and int(values.max()) <= limits.max)


def _limits(dtype: torch.dtype | np.dtype[Any]) -> tuple[Any, bool]:
    """Return the smallest and largest number of a dtype, and whether it is a dtype of floats.

    The limits are ``None`` for booleans.
    """
    if isinstance(dtype, torch.dtype):
        if dtype == torch.bool:
            return None, False
        is_float = dtype.is_floating_point
        return (torch.finfo(dtype) if is_float else torch.iinfo(dtype)), is_float
    if dtype.kind not in "iuf":
        return None, False
    return (np.finfo(dtype), True) if dtype.kind == "f" else (np.iinfo(dtype), False)
