"""Sequences of different lengths as rows: padded with zeros to one length, and masked.

    x         (rows, steps, features)    the values; zeros where there is none
    lengths   (rows,)                    the number of steps of each sequence, 1 or more
    seen      (rows, steps, features)    which values are there: False after the end as well
    inputs    (rows, steps, columns)     values that are given and not modelled, where there are any

Log-likelihoods and scores of a sequence are sums over its steps, so that longer sequences have, as
a rule, lower log-likelihoods and higher scores: divide by ``lengths`` to compare them.

``seen`` is there whether values are missing or not, so that a model fitted to whole sequences takes
later ones with gaps. ``lengths`` is a series, whose index has the labels of the sequences: the rows
of every table that the library returns have these labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.columns import Columns, NamedFields
from ppl_vae.data.fields import Field
from ppl_vae.data.long_form import lines_of

PIECE = 1 << 22
"""Numbers that are looked at at once, so that what is computed on the way takes little memory."""


def sequences(
    data: Any,
    *,
    id: str | None = None,  # noqa: A002  what the column is usually called
    step: str | None = None,
    inputs: Any = None,
) -> NamedFields:
    """Return sequences of different lengths as data that every function takes.

    Args:
        data: A list of arrays or tensors of shape (steps, features); or a frame in long form: a
            line for each step, a column for each feature; or a frame with a line for each sequence,
            whose columns hold lists of (steps,) or (steps, features). NaN is a missing value. A
            table of polars, Arrow or duckdb is a frame.
        id: The column of a frame, or the name of its index, that says which sequence a line belongs
            to. A frame of lists may do without; its index then labels the sequences.
        step: The column of a frame that numbers the steps, whole numbers that rise by 1 or more
            within a sequence; a number that is left out is a missing step. Without it, the lines of
            a sequence are its steps, one after the other.
        inputs: Values that are given at each step and not modelled: a list of arrays of shape
            (steps, columns) beside a list, the names of columns of a frame.

    Returns:
        A mapping of the fields ``x``, ``lengths``, ``seen`` and ``inputs``, as the file's head has
        them. The features are in the order of the frame's columns. The index of ``lengths`` holds
        the values of ``id``, in the order in which they first appear; 0, 1, ... for a list.

        The mapping holds the names of the columns of a frame (``columns``), by which every function
        finds the columns of the fit, in any order; other columns are left out. Lists of arrays,
        one column with lists of (steps, features), and any mapping that you make of the fields,
        such as ``{**data}``, have no names: their columns are taken by position.

    Raises:
        ValueError: If there is no sequence, a sequence is empty, has another number of features
            than the first one, has infinite values, or has steps out of order or twice; if inputs
            have missing values. The message names the sequence.

    Example:
        >>> rows = sequences([torch.ones(2, 3), torch.ones(4, 3)])
        >>> rows["x"].shape, rows["lengths"].tolist()
        (torch.Size([2, 4, 3]), [2, 4])
        >>> table = pd.DataFrame({"id": ["b", "b", "a"], "t": [1, 3, 7], "y": [0.5, 1.5, 2.5]})
        >>> rows = sequences(table, id="id", step="t")
        >>> rows["lengths"].to_dict(), rows["seen"][0].flatten().tolist()
        ({'b': 3, 'a': 1}, [True, False, True])
        >>> lists = pd.DataFrame({"y": [[0.5, 1.5], [2.5]]}, index=["b", "a"])
        >>> sequences(lists)["lengths"].to_dict()
        {'b': 2, 'a': 1}
    """
    data = of_pandas(data, "data")
    if isinstance(data, pd.DataFrame):
        return _of_frame(data, id, step, inputs)
    if not hasattr(data, "__len__") or hasattr(data, "columns") or isinstance(data, str):
        raise ValueError(
            "data: expected a list of arrays of shape (steps, features), or a frame, got "
            f"{shown(data)}; pass a frame in memory, such as pandas.read_parquet(path) returns"
        )
    for name, value in (("id", id), ("step", step)):
        if value is not None:
            raise ValueError(f"{name}: expected None beside a list of arrays, got {shown(value)}")
    lengths = _lengths(data, "data")
    given = None
    if inputs is not None:
        others = _lengths(inputs, "inputs")
        if others != lengths:
            raise ValueError(_unlike(lengths, others))
        given = _stacked(inputs, lengths, "inputs")
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    x = _stacked(data, lengths, "data")
    seen = inside[:, :, None].expand(x.shape).clone()
    return _fields(x, seen, given, pd.Series(lengths, name="lengths"), {})


def _lengths(arrays: Any, name: str) -> list[int]:
    """Return the number of steps of each array in a list.

    Args:
        arrays: Arrays of shape (steps, features).
        name: The argument's name, for messages.

    Raises:
        ValueError: If the arrays are no list of such arrays.
    """
    wanted = "a list of arrays of shape (steps, features)"
    if not isinstance(arrays, list | tuple):
        raise ValueError(f"{name}: expected {wanted}, or a frame, got {shown(arrays)}")
    if not arrays:
        raise ValueError(f"{name}: expected {wanted}, got an empty list")
    for number, array in enumerate(arrays):
        fault = _fault(array, arrays[0])
        if fault:
            raise ValueError(f"{name}: sequence {number}: expected {fault}")
    return [len(array) for array in arrays]


def _fault(array: Any, first: Any) -> str:
    """Return what is expected instead of an array of a list, whose first array is given; or ""."""
    if not isinstance(array, Tensor | np.ndarray):
        return f"an array or a tensor, got {shown(array)}"
    if array.ndim != 2:
        mend = "; one feature is array[:, None]" if array.ndim == 1 else ""
        return f"shape (steps, features), got {tuple(array.shape)}{mend}"
    if 0 in array.shape:
        what = "step" if not len(array) else "feature"
        return f"at least one {what}, got none; leave it out"
    if array.shape[1] != first.shape[1]:
        return f"{first.shape[1]} features, as sequence 0 has, got {array.shape[1]}"
    return ""


def _stacked(arrays: Sequence[Any], lengths: list[int], name: str) -> Tensor:
    """Return arrays as one tensor, (rows, steps, features), with zeros after the end of each.

    Each is converted by itself, so that no second copy of all of them is made.
    """

    def converted(number: int, array: Any) -> Tensor:
        array = np.asarray(array) if isinstance(array, np.memmap) else array
        return torch.as_tensor(Field.of(array, f"{name}: sequence {number}").array)

    examples = {array.dtype: (number, array[:1]) for number, array in enumerate(arrays)}
    dtypes = [converted(*example).dtype for example in examples.values()]
    dtype = dtypes[0]
    for other in dtypes[1:]:
        dtype = torch.promote_types(dtype, other)
    stacked = torch.zeros(len(arrays), max(lengths), arrays[0].shape[1], dtype=dtype)
    for number, array in enumerate(arrays):
        stacked[number, : lengths[number]] = converted(number, array)
    return stacked


def _unlike(lengths: Sequence[int], others: Sequence[int]) -> str:
    """Return the message that the inputs have other lengths than the sequences."""
    if len(others) != len(lengths):
        return f"inputs: expected {len(lengths)} arrays, one for each sequence, got {len(others)}"
    number = next(n for n, pair in enumerate(zip(lengths, others, strict=True)) if len({*pair}) > 1)
    return (
        f"inputs: sequence {number}: expected {lengths[number]} steps, as the sequence has, got "
        f"{others[number]}"
    )


def _of_frame(frame: pd.DataFrame, name: Any, step: Any, inputs: Any) -> NamedFields:
    """Return a frame as ``sequences`` does; ``name`` is the column ``id``."""
    lines = lines_of(frame, name, step, inputs)
    labels, shape = lines.labels, (len(lines.labels), int(lines.lengths.max()))
    has_gaps = len(lines.row) < int(lines.lengths.sum())
    if lines.inputs is not None and has_gaps:
        short = torch.bincount(lines.row, minlength=len(labels)) < lines.lengths
        raise ValueError(
            f"inputs: sequence {shown(labels[int(short.nonzero()[0])])}: expected inputs at every "
            "step, got none at a step that is left out; add its line, with NaN for the features"
        )
    place = lines.position.add_(lines.row, alpha=shape[1])  # in all steps, one row after another

    def spread(values: Tensor) -> Tensor:
        padded = values.new_zeros(shape[0] * shape[1], values.shape[1])
        return padded.index_copy_(0, place, values).reshape(*shape, -1)

    x, given = spread(lines.values), None if lines.inputs is None else spread(lines.inputs)
    lengths = pd.Series(lines.lengths.numpy(), index=labels, name="lengths")
    columns = lines.columns
    del lines  # large, and spread out by now
    there = torch.zeros(shape[0] * shape[1], dtype=torch.bool).index_fill_(0, place, True)
    seen = there.reshape(*shape, 1).expand(x.shape).clone()
    return _fields(x, seen, given, lengths, columns)


def _fields(
    x: Tensor, seen: Tensor, given: Tensor | None, lengths: pd.Series, columns: Columns
) -> NamedFields:
    """Return the fields of the data, without the values that are missing.

    Args:
        x: (rows, steps, features), NaN where a value is missing; zeros take its place.
        seen: Which values are there, NaN as well, like x; those are taken out.
        given: The inputs, (rows, steps, columns), or ``None``.
        lengths: The lengths, with the labels of the sequences.
        columns: Names of the columns of x and of the inputs, where they have names.
    """
    _look("data", x, lengths.index, Tensor.isinf)
    for part, there in zip(_pieces(x), _pieces(seen), strict=True):
        missing = part.isnan()
        there.masked_fill_(missing, False)
        part.masked_fill_(missing, 0)
    fields: dict[str, Any] = {"x": x, "lengths": lengths, "seen": seen}
    if given is not None:
        _look("inputs", given, lengths.index, lambda part: ~part.isfinite())
        fields["inputs"] = given
    return NamedFields(fields, columns)


def _pieces(x: Tensor) -> Sequence[Tensor]:
    """Return views of a few rows each, (some rows, steps, features)."""
    pieces: Sequence[Tensor] = x.split(max(1, PIECE // (x.shape[1] * x.shape[2])))
    return pieces


def _look(name: str, x: Tensor, labels: pd.Index, bad: Callable[[Tensor], Tensor]) -> None:
    """Raise ``ValueError`` for the first step of a sequence with a bad value."""
    row = 0
    for part in _pieces(x):
        steps = bad(part).any(-1)
        if bool(steps.any()):
            first, step = steps.nonzero()[0].tolist()
            raise ValueError(
                f"{name}: sequence {shown(labels[row + first])}: expected finite numbers, got NaN "
                f"or infinity, first in its step {step}, counted from 0"
            )
        row += len(part)
