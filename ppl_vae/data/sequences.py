"""Sequences of different lengths as rows: padded with zeros to one length, and masked.

    x         (rows, steps, features)    the values; zeros after the end of a sequence
    lengths   (rows,)                    the number of steps of each sequence, 1 or more
    seen      (rows, steps, features)    which values are there; only where some inside are missing
    inputs    (rows, steps, columns)     values that are given and not modelled, where there are any

``lengths`` is a series, whose index has the labels of the sequences: the rows of every table that
the library returns have these labels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import names_in, shown
from ppl_vae.data.conversion import tensor_of_frame
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Rows
from ppl_vae.data.selection import missing_names

FEWEST = 0.05
"""Least share of steps that have a line; with fewer, the column ``step`` probably holds times."""


def sequences(
    data: Any,
    *,
    id: str | None = None,  # noqa: A002  what the column is usually called
    step: str | None = None,
    inputs: Any = None,
) -> dict[str, Any]:
    """Return sequences of different lengths as data that every function takes.

    Args:
        data: A list of arrays or tensors of shape (steps, features), or a frame in long form: a
            line for each step, a column for each feature. NaN is a missing value.
        id: The column of a frame that says which sequence a line belongs to.
        step: The column of a frame that numbers the steps, whole numbers that rise by 1 or more
            within a sequence; a number that is left out is a missing step. Without it, the lines of
            a sequence are its steps, one after the other.
        inputs: Values that are given at each step and not modelled: a list of arrays of shape
            (steps, columns) beside a list, the names of columns of a frame.

    Returns:
        A mapping of the fields ``x``, ``lengths``, ``seen`` and ``inputs``, as the file's head has
        them. The index of ``lengths`` holds the values of ``id``, in the order in which they first
        appear; 0, 1, ... for a list.

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
    """
    if isinstance(data, pd.DataFrame):
        return _of_frame(data, id, step, inputs)
    for name, value in (("id", id), ("step", step)):
        if value is not None:
            raise ValueError(f"{name}: expected None beside a list of arrays, got {shown(value)}")
    values, lengths = _joined(data, "data")
    given = None
    if inputs is not None:
        given, others = _joined(inputs, "inputs")
        if len(others) != len(lengths) or bool((others != lengths).any()):
            raise ValueError(_unlike(lengths.tolist(), others.tolist()))
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    position = torch.arange(len(values)) - (lengths.cumsum(0) - lengths)[row]
    labels = pd.RangeIndex(len(lengths))
    return _padded({"data": values, "inputs": given}, row, position, lengths, labels)


def _joined(arrays: Any, name: str) -> tuple[Tensor, Tensor]:
    """Return arrays one after the other, (all steps, features), and their lengths, (rows,).

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
    parts: list[Tensor] = []
    for number, array in enumerate(arrays):
        where = f"{name}: sequence {number}"
        if not isinstance(array, Tensor | np.ndarray):
            raise ValueError(f"{where}: expected an array or a tensor, got {shown(array)}")
        part = torch.as_tensor(Field.of(array, where).array)
        if part.ndim != 2:
            mend = "; one feature is array[:, None]" if part.ndim == 1 else ""
            raise ValueError(
                f"{where}: expected shape (steps, features), got {tuple(part.shape)}{mend}"
            )
        if 0 in part.shape:
            what = "step" if not len(part) else "feature"
            raise ValueError(f"{where}: expected at least one {what}, got none; leave it out")
        if parts and part.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"{where}: expected {parts[0].shape[1]} features, as sequence 0 has, got "
                f"{part.shape[1]}"
            )
        parts.append(part)
    return torch.cat(parts), torch.tensor([len(part) for part in parts])


def _unlike(lengths: Sequence[int], others: Sequence[int]) -> str:
    """Return the message that the inputs have other lengths than the sequences."""
    if len(others) != len(lengths):
        return f"inputs: expected {len(lengths)} arrays, one for each sequence, got {len(others)}"
    number = next(n for n, pair in enumerate(zip(lengths, others, strict=True)) if len({*pair}) > 1)
    return (
        f"inputs: sequence {number}: expected {lengths[number]} steps, as the sequence has, got "
        f"{others[number]}"
    )


def _of_frame(frame: pd.DataFrame, name: Any, step: Any, inputs: Any) -> dict[str, Any]:
    """Return a frame in long form as ``sequences`` does; ``name`` is the column ``id``."""
    given = [] if inputs is None else names_in("inputs", inputs)
    features = _features(
        frame, {"id": [name], "step": [step] * (step is not None), "inputs": given}
    )
    codes, found = pd.factorize(frame[name])
    if (codes < 0).any():
        raise ValueError(
            f'id: expected a value in every line of column "{name}", got a missing one'
        )
    row, labels = torch.as_tensor(codes).long(), pd.Index(found, name=name)
    number = _numbers(frame, step, row, labels)
    empty = torch.zeros(len(labels), dtype=torch.long)
    first = empty.scatter_reduce(0, row, number, "amin", include_self=False)
    lengths = empty.scatter_reduce(0, row, number, "amax", include_self=False) - first + 1
    if len(frame) < FEWEST * int(lengths.sum()):
        raise ValueError(
            f'step: expected steps numbered 1, 2, ... in column "{step}", got {len(frame)} lines '
            f"over {int(lengths.sum())} steps; divide the numbers by the distance of two steps"
        )
    parts = {
        "data": tensor_of_frame(frame[features], "data"),
        "inputs": tensor_of_frame(frame[given], "inputs") if given else None,
    }
    return _padded(parts, row, number - first[row], lengths, labels)


def _features(frame: pd.DataFrame, named: dict[str, list[Any]]) -> list[Any]:
    """Return the columns of a frame that no argument names.

    Args:
        frame: The frame in long form.
        named: The columns that arguments name, by argument.

    Raises:
        ValueError: If an argument names no column, or a column stands twice, or none is left.
    """
    if not frame.columns.is_unique:
        raise ValueError("data: expected columns of different names, got one name twice")
    for argument, columns in named.items():
        for column in columns:
            if not isinstance(column, str):
                raise ValueError(f"{argument}: expected the name of a column, got {shown(column)}")
        if missing := missing_names(columns, map(str, frame.columns)):
            raise ValueError(f"{argument}: expected columns of the frame, got {missing}")
    taken = [column for columns in named.values() for column in columns]
    if len(set(taken)) < len(taken):
        raise ValueError(f"id, step, inputs: expected different columns, got {shown(taken)}")
    features = [column for column in frame.columns if column not in taken]
    if not len(frame) or not features:
        raise ValueError(f"data: expected lines and columns of features, got shape {frame.shape}")
    return features


def _numbers(frame: pd.DataFrame, step: str | None, row: Tensor, labels: pd.Index) -> Tensor:
    """Return the number of the step in each line of a frame, (lines,) of int64.

    Raises:
        ValueError: If the steps are no whole numbers, or do not rise within a sequence.
    """
    if step is None:
        return torch.as_tensor(frame.groupby(row.numpy()).cumcount().to_numpy().copy())
    column = frame[step]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise ValueError(
            f'step: expected whole numbers in column "{step}", got {column.dtype}; number the steps'
        )
    exact = column.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(np.abs(exact) < 2**53) | (exact != np.round(exact))
    if wrong.any():
        line = int(wrong.argmax())
        raise ValueError(
            f"step: sequence {shown(labels[int(row[line])])}: expected whole numbers in column "
            f'"{step}", got {exact[line]:g}; number the steps 1, 2, ...'
        )
    number = torch.as_tensor(exact.copy()).long()
    order = row.sort(stable=True).indices
    rises = number[order].diff()
    bad = (row[order].diff() == 0) & (rises < 1)
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        before, after = number[order][place : place + 2].tolist()
        what = f"step {after} twice" if before == after else f"step {after} after step {before}"
        label = shown(labels[int(row[order][place])])
        raise ValueError(
            f"step: sequence {label}: expected steps that rise, got {what}; sort the frame "
            f'(sort_values(["{labels.name}", "{step}"])) and drop lines that stand twice'
        )
    return number


def _padded(
    parts: dict[str, Tensor | None],
    row: Tensor,
    position: Tensor,
    lengths: Tensor,
    labels: pd.Index,
) -> dict[str, Any]:
    """Return the fields of the data.

    Args:
        parts: The values under ``"data"`` and the inputs, or ``None``, (lines, columns) each.
        row: Which sequence a line belongs to, (lines,).
        position: At which step of its sequence a line stands, from 0, (lines,).
        lengths: (rows,).
        labels: The labels of the sequences.
    """
    values, given = parts["data"], parts["inputs"]
    assert values is not None
    shape = len(lengths), int(lengths.max())
    _check_finite("data", values.isinf(), row, position, labels)
    there = ~values.isnan()
    x = values.new_zeros(*shape, values.shape[1])
    x[row, position] = values.where(there, 0)
    fields: dict[str, Any] = {
        "x": x, "lengths": pd.Series(lengths.numpy(), index=labels, name="lengths"),
    }  # fmt: skip
    has_gaps = len(values) < int(lengths.sum())
    if has_gaps or not bool(there.all()):
        fields["seen"] = torch.zeros(x.shape, dtype=torch.bool)
        fields["seen"][row, position] = there
    if given is not None:
        _check_finite("inputs", ~given.isfinite(), row, position, labels)
        fields["inputs"] = given.new_zeros(*shape, given.shape[1])
        fields["inputs"][row, position] = given
    if given is not None and has_gaps:
        short = torch.bincount(row, minlength=len(lengths)) < lengths
        raise ValueError(
            f"inputs: sequence {shown(labels[int(short.nonzero()[0])])}: expected inputs at every "
            "step, got none at a step that is left out; add its line, with NaN for the features"
        )
    return fields


def _check_finite(name: str, bad: Tensor, row: Tensor, position: Tensor, labels: pd.Index) -> None:
    """Raise ``ValueError`` for the first line with a bad value; ``bad`` is (lines, columns)."""
    if bool(bad.any()):
        line = int(bad.any(1).nonzero()[0])
        raise ValueError(
            f"{name}: sequence {shown(labels[int(row[line])])}: expected finite numbers, got NaN "
            f"or infinity, first in its step {int(position[line])}, counted from 0"
        )


def step_fields(rows: Rows) -> list[str]:
    """Return the fields that have the steps of sequences as first dimension of a row.

    Rows are sequences where they have the fields ``x``, (rows, steps, features), and ``lengths``,
    (rows,) of whole numbers; else there are no such fields.

    Example:
        >>> step_fields(Rows(sequences([torch.ones(2, 3), torch.ones(4, 3)])))
        ['x']
    """
    fields = dict(zip(rows.names, rows.fields, strict=True))
    if "x" not in fields or "lengths" not in fields:
        return []
    x, lengths = fields["x"].array, fields["lengths"]
    whole = not lengths.take(torch.arange(1)).is_floating_point()
    if x.ndim != 3 or lengths.array.ndim != 1 or not whole:
        return []
    return [n for n, f in fields.items() if f.array.ndim > 1 and f.array.shape[1] == x.shape[1]]


def row_lengths(rows: Rows) -> Tensor:
    """Return the number of steps of each sequence, (rows,), of rows that are sequences."""
    return (
        rows.fields[rows.names.index("lengths")]
        .take(rows.positions_in_data(torch.arange(len(rows))))
        .cpu()
    )


def sequence_lengths(rows: Rows, steps: int) -> Tensor:
    """Return the steps of each sequence, (rows,): the field ``lengths``, or all of the padded data.

    Args:
        rows: The data.
        steps: Steps of the padded data.
    """
    if not step_fields(rows):
        return torch.full((len(rows),), steps)
    return row_lengths(rows)


def step_index(index: pd.Index, counts: Any, first: Any = 0) -> pd.MultiIndex:
    """Return labels (row, step), one after the other, with steps counted from 0.

    Args:
        index: The labels of the rows.
        counts: Steps of each row, (rows,).
        first: Number of the first step of each row, (rows,) or one for all.

    Example:
        >>> step_index(pd.Index(["a", "b"]), [2, 1], [0, 5]).tolist()
        [('a', 0), ('a', 1), ('b', 5)]
    """
    counts = np.asarray(counts)
    starts = np.repeat(np.cumsum(counts) - counts - first, counts)
    names = [index.name or "row", "step"]
    return pd.MultiIndex.from_arrays(
        [index.repeat(counts), np.arange(counts.sum()) - starts], names=names
    )


def check_lengths(rows: Rows) -> None:
    """Raise ``ValueError`` where a sequence has no step, or more steps than the data have.

    Args:
        rows: The data; what is no sequences passes.

    Raises:
        ValueError: With the label of the first such sequence.
    """
    if not step_fields(rows):
        return
    x, lengths = (rows.fields[rows.names.index(name)] for name in ("x", "lengths"))
    steps, values = x.array.shape[1], row_lengths(rows)
    wrong = (values < 1) | (values > steps)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{lengths.name}: sequence {shown(rows.index[row])}: expected a length from 1 to "
            f"{steps}, the steps of {x.name}, got {int(values[row])}; leave out empty sequences, "
            "and pad x to the longest one"
        )


def trimmed(rows: Rows) -> Rows:
    """Return sequences of which a batch has the steps of its longest sequence alone.

    Args:
        rows: The data, which are sequences.

    Example:
        >>> rows = trimmed(Rows(sequences([torch.ones(2, 3), torch.ones(4, 3)])))
        >>> rows.take(torch.tensor([0]))["x"].shape
        torch.Size([1, 2, 3])
    """
    with_steps = [rows.names.index(name) for name in step_fields(rows)]
    lengths = rows.names.index("lengths")

    def trim(fields: list[Tensor]) -> list[Tensor]:
        steps = int(fields[lengths].max())
        return [f[:, :steps] if n in with_steps else f for n, f in enumerate(fields)]

    cut = copy.copy(rows)
    cut.trim = trim
    return cut


def without_padding(rows: Rows, parts: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return fields of sequences with zeros after the end of each.

    Args:
        rows: The data, for the names of their fields.
        parts: The fields, ``{position: (rows, ...)}``, of any number of rows.
    """
    cleared = dict(parts)
    for name in step_fields(rows):
        field = parts[rows.names.index(name)]
        ends = parts[rows.names.index("lengths")][:, None]
        inside = torch.arange(field.shape[1], device=field.device) < ends
        mask = inside.reshape(*inside.shape, *(1 for _ in field.shape[2:]))
        cleared[rows.names.index(name)] = torch.where(mask, field, torch.zeros_like(field))
    return cleared
