"""Frames of sequences as lines: a line for each step, and which sequence it belongs to.

long form       a line of the frame is a step; a column says of which sequence
list columns    a line of the frame is a sequence; each cell holds the values of all its steps,
                (steps,), or (steps, columns) in one cell
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import names_in, shown
from ppl_vae.data.columns import Columns, column_names
from ppl_vae.data.conversion import tensor_of_frame
from ppl_vae.data.numeric import holds_lists
from ppl_vae.data.selection import missing_names

FEWEST = 0.05
"""Least share of steps that have a line; with fewer, the column ``step`` probably holds times."""


@dataclass(frozen=True)
class Lines:
    """The steps of all sequences, one below the other.

    Attributes:
        values: (lines, features).
        inputs: (lines, columns), or ``None``.
        row: Which sequence a line belongs to, (lines,).
        position: At which step of its sequence a line stands, from 0, (lines,).
        lengths: Steps of each sequence, those without a line as well, (rows,).
        labels: The labels of the sequences.
        columns: Names of the columns of ``x`` and ``inputs``, the fields of values and inputs.
    """

    values: Tensor
    inputs: Tensor | None
    row: Tensor
    position: Tensor
    lengths: Tensor
    labels: pd.Index
    columns: Columns


def lines_of(frame: pd.DataFrame, name: Any, step: Any, inputs: Any) -> Lines:
    """Return the lines of a frame; arguments and errors are those of ``sequences``.

    Args:
        frame: The frame, in long form or with list columns.
        name: The argument ``id``: a column, or the name of the frame's index.
        step: The column of the steps' numbers, or ``None``.
        inputs: The columns of the inputs, or ``None``.
    """
    given = [] if inputs is None else names_in("inputs", inputs)
    _refuse_levels(frame, name, step)
    if isinstance(name, str) and name == frame.index.name and name not in frame.columns:
        frame = frame.reset_index()
    packed = [column for column in frame.columns if holds_lists(frame[column])]
    taken = {"id": [name], "step": [step] * (step is not None), "inputs": given}
    if packed and name is None:
        del taken["id"]
    features = _features(frame, taken)
    read = features, given
    if packed:
        frame, row, labels, parts = _unpacked(frame, name, packed, [*features, *given])
        features, given = (
            [part for c in names for part in parts[c]] for names in (features, given)
        )
    else:
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
    number.sub_(first[row])
    values = tensor_of_frame(frame[features], "data")
    of_inputs = tensor_of_frame(frame[given], "inputs") if given else None
    columns = _names(read, (features, given))
    return Lines(values, of_inputs, row, number, lengths, labels, columns)


def _refuse_levels(frame: pd.DataFrame, name: Any, step: Any) -> None:
    """Raise ``ValueError`` where a frame has its labels or steps in an index of several levels."""
    columns = list(frame.columns)
    if not isinstance(frame.index, pd.MultiIndex) or (
        name in columns and (step is None or step in columns)
    ):
        return
    levels = ", ".join(map(str, frame.index.names))
    raise ValueError(
        "id: expected columns for id and step, got a frame with an index of several levels, "
        f"{levels}; pass frame.reset_index()"
    )


def _names(read: tuple[list[Any], list[Any]], found: tuple[list[Any], list[Any]]) -> Columns:
    """Return the names of the columns of ``x`` and ``inputs``, where they have names.

    The lists in the cells of a single column have no name for each of their columns.

    Args:
        read: The columns of the frame that are features, and those that are inputs.
        found: The columns that these have become.
    """
    fields = zip(("x", "inputs"), read, found, strict=True)
    return {
        field: column_names(pd.Index(names, tupleize_cols=False))
        for field, old, names in fields
        if len(old) > 1 or len(names) == 1
    }


def _features(frame: pd.DataFrame, named: dict[str, list[Any]]) -> list[Any]:
    """Return the columns of a frame that no argument names.

    Args:
        frame: The frame.
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


def _unpacked(
    frame: pd.DataFrame, name: str | None, packed: list[Any], wanted: list[Any]
) -> tuple[pd.DataFrame, Tensor, pd.Index, dict[Any, list[str]]]:
    """Return a frame with list columns in long form.

    Args:
        frame: A line for each sequence.
        name: The column of the sequences' labels; ``None`` for the frame's index.
        packed: The columns that hold lists: those wanted, and that of the steps' numbers.
        wanted: The columns of features and inputs.

    Returns:
        The frame in long form; which sequence each of its lines belongs to, (lines,); the labels
        of the sequences; the new columns that each old one has become.

    Raises:
        ValueError: If a column holds one number for a sequence, or a cell holds no numbers, or
            cells of a sequence differ in their steps, or two sequences have one label.
    """
    if single := [column for column in wanted if column not in packed]:
        raise ValueError(
            f'data: expected a list in every line of column "{single[0]}", as in column '
            f'"{packed[0]}", got one value; leave the column out, or name it by id='
        )
    labels = frame.index if name is None else pd.Index(frame[name], name=name)
    if labels.hasnans or not labels.is_unique:
        twice = labels[labels.duplicated() | labels.isna()][0]
        raise ValueError(f"id: expected a label of its own for each sequence, got {shown(twice)}")
    columns: dict[Any, np.ndarray[Any, Any]] = {}
    parts: dict[Any, list[str]] = {}
    lengths: np.ndarray[Any, Any] | None = None
    for column in packed:
        flat, steps = _flat(frame[column], labels)
        lengths = steps if lengths is None else lengths
        if (unlike := steps != lengths).any():
            number = int(unlike.argmax())
            raise ValueError(
                f"data: sequence {shown(labels[number])}: expected {lengths[number]} steps in "
                f'column "{column}", as in column "{packed[0]}", got {steps[number]}'
            )
        parts[column] = [f"{column}", *(f"{column}[{n}]" for n in range(1, flat.shape[1]))]
        columns.update(zip(parts[column], flat.T, strict=True))
    assert lengths is not None
    row = torch.repeat_interleave(torch.arange(len(labels)), torch.as_tensor(lengths))
    return pd.DataFrame(columns, copy=False), row, labels, parts


def _flat(column: pd.Series, labels: pd.Index) -> tuple[Any, Any]:
    """Return the cells of a column of lists one below the other, and the steps of each.

    Returns:
        (lines, columns) and (rows,), arrays.

    Raises:
        ValueError: If a cell is no list of numbers, or is empty, or differs in its columns.
    """
    cells: list[np.ndarray[Any, Any]] = []
    for number, cell in enumerate(column):
        where = f'data: sequence {shown(labels[number])}: column "{column.name}"'
        array = _array_of(cell)
        if array is None or array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{where}: expected a list of numbers, or of lists of one length, got {shown(cell)}"
            )
        if 0 in array.shape:
            raise ValueError(f"{where}: expected at least one step, got none; leave it out")
        array = array.reshape(len(array), -1)
        if cells and array.shape[1] != cells[0].shape[1]:
            raise ValueError(
                f"{where}: expected {cells[0].shape[1]} values at each step, as in the first "
                f"sequence, got {array.shape[1]}"
            )
        cells.append(array)
    return np.concatenate(cells), np.array([len(cell) for cell in cells])


def _array_of(cell: Any) -> np.ndarray[Any, Any] | None:
    """Return the list in a cell as an array; ``None`` where it is no list, or a ragged one."""
    if not isinstance(cell, list | tuple | np.ndarray):
        return None
    try:
        array = np.asarray(cell)
        if array.dtype != object:
            return array
        nested = len(array) and isinstance(array.flat[0], list | tuple | np.ndarray)
        return (
            np.stack([np.asarray(part, float) for part in cell]) if nested else array.astype(float)
        )
    except (ValueError, TypeError):
        return None


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
            f'step: expected whole numbers in column "{step}", got {column.dtype}; number the '
            f'steps: of dates, t = pandas.to_datetime(frame["{step}"]), by '
            f'frame["{step}"] = (t - t.min()) // pandas.Timedelta("1D") where a step is a day'
        )
    exact = column.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(np.abs(exact) < 2**53) | (exact != np.round(exact))
    if wrong.any():
        line = int(wrong.argmax())
        raise ValueError(
            f"step: sequence {shown(labels[int(row[line])])}: expected whole numbers in column "
            f'"{step}", got {exact[line]:g}; number the steps 1, 2, ...'
        )
    number = torch.as_tensor(exact.astype(np.int64))
    _check_rises(number, row, labels, step)
    return number


def _check_rises(number: Tensor, row: Tensor, labels: pd.Index, step: str) -> None:
    """Raise ``ValueError`` unless numbers of steps, (lines,), rise within each sequence."""
    order = None if bool((row.diff() >= 0).all()) else row.sort(stable=True).indices
    of_row, rising = (row, number) if order is None else (row[order], number[order])
    bad = (of_row[1:] == of_row[:-1]) & (rising[1:] <= rising[:-1])
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        before, after = rising[place : place + 2].tolist()
        what = f"step {after} twice" if before == after else f"step {after} after step {before}"
        raise ValueError(
            f"step: sequence {shown(labels[int(of_row[place])])}: expected steps that rise, got "
            f'{what}; sort the frame (sort_values(["{labels.name}", "{step}"])) and drop lines '
            "that stand twice"
        )
