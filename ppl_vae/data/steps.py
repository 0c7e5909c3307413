"""Rows that are sequences: which fields have steps, how many of them count, and labels for steps.

Rows are sequences where they have the fields ``x``, (rows, steps, features), and ``lengths``,
(rows,), as ``sequences`` makes them.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.data.rows import Rows, as_tuple

PIECE = 1 << 22
"""Bytes of rows that are looked at at once."""


def step_fields(rows: Rows) -> list[str]:
    """Return the fields that have the steps of sequences as first dimension of a row.

    Rows are sequences where they have the fields ``x``, (rows, steps, features), and ``lengths``,
    (rows,) of whole numbers; else there are no such fields.

    Example:
        >>> from ppl_vae import sequences
        >>> step_fields(Rows(sequences([torch.ones(2, 3), torch.ones(4, 3)])))
        ['x', 'seen']
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


def repeated_label(index: pd.Index) -> Any:
    """Return the first label that several rows have, as the steps of a sequence; else ``None``.

    An index without a name may have come about by joining tables, and has no such labels. Of an
    index of several levels, those of the first one count.

    Example:
        >>> repeated_label(pd.MultiIndex.from_tuples([("a", 1), ("a", 2)], names=["id", "t"]))
        'a'
    """
    first = index.get_level_values(0)
    twice = first[first.duplicated()]
    return None if first.name is None or not len(twice) else twice[0]


def check_whole_lengths(rows: Rows) -> None:
    """Raise ``ValueError`` where the lengths of sequences are floats.

    Args:
        rows: The data, of which a half reads a field ``lengths``. Floats that are not all whole
            numbers, up to the steps of x, are no lengths of sequences, and pass.
    """
    fields = dict(zip(rows.names, rows.fields, strict=True))
    x, lengths = fields.get("x"), fields.get("lengths")
    if x is None or lengths is None or x.array.ndim != 3 or lengths.array.ndim != 1:
        return
    values = row_lengths(rows)
    if not values.is_floating_point():
        return
    whole = (values == values.round()) & (values >= 0) & (values <= x.array.shape[1])
    if bool(whole.all()):
        raise ValueError(
            f"{lengths.name}: expected whole numbers, got {values.dtype}; pass lengths.long(), or "
            "lengths.astype(int) of an array"
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


def check_one_length(rows: Rows) -> None:
    """Raise ``ValueError`` where sequences are padded, for a model that does not read ``lengths``.

    Such a model takes what stands after the end of a sequence for values of it.

    Args:
        rows: The data; what is no sequences passes.

    Raises:
        ValueError: With the label of the first sequence that is shorter than the data.
    """
    if not step_fields(rows):
        return
    x, lengths = (rows.fields[rows.names.index(name)] for name in ("x", "lengths"))
    steps, values = x.array.shape[1], row_lengths(rows)
    shorter = values < steps
    if bool(shorter.any()):
        row = int(shorter.nonzero()[0])
        raise ValueError(
            f"{lengths.name}: expected an argument lengths of the model, got none, and sequence "
            f"{shown(rows.index[row])} ends after {int(values[row])} of {steps} steps: what "
            "stands after its end would count as data; take a model that reads lengths, as "
            "models/sequence.py, or sequences of one length"
        )


def trimmed(rows: Rows) -> Rows:
    """Return sequences of which a batch has the steps of its longest sequence alone.

    Args:
        rows: The data, which are sequences.

    Example:
        >>> from ppl_vae import sequences
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


def check_no_gaps(rows: Rows) -> None:
    """Raise ``ValueError`` where a cell of a table is missing, by the field ``seen``.

    Args:
        rows: A table, for a model that does not read ``seen``.
    """
    field = rows.fields[rows.names.index("seen")]
    for index in torch.arange(len(rows)).split(PIECE // rows.bytes_per_row + 1):
        gaps = (~field.take(rows.positions_in_data(index)).bool()).nonzero()
        if len(gaps):
            row, column = gaps[0].tolist()
            name = (rows.columns.get("x") or [])[column]
            raise ValueError(
                f'{rows.name}: column "{name}": expected a value in every row, because the model '
                f'does not read "seen", got none in row {int(index[row])}; take models/table.py, '
                "or read seen in the model and mask the likelihood"
            )


def check_seen(rows: Rows) -> None:
    """Raise ``ValueError`` where a value inside a sequence is missing, by the field ``seen``.

    Args:
        rows: The data, for a model that does not read ``seen``; what is no sequences passes.

    Raises:
        ValueError: With the label of the first such sequence.
    """
    if "seen" not in step_fields(rows):
        return
    start = 0
    for index in torch.arange(len(rows)).split(PIECE // rows.bytes_per_row + 1):
        fields = dict(zip(rows.names, as_tuple(rows.take(index)), strict=True))
        seen, lengths = fields["seen"].bool(), fields["lengths"]
        inside = torch.arange(seen.shape[1], device=seen.device) < lengths[:, None]
        gaps = ((inside & ~seen.reshape(*seen.shape[:2], -1).all(-1)).any(1)).nonzero()
        if len(gaps):
            label = shown(rows.index[start + int(gaps[0])])
            raise ValueError(
                f"{rows.name}: sequence {label}: expected values at every step, because the model "
                'does not read "seen", got missing ones, for which zeros stand in x; take seen in '
                "the model and mask the likelihood (ppl_vae.nn.seen_cells)"
            )
        start += len(index)


def nan_after_ends(rows: Rows, values: Tensor, steps: int) -> Tensor:
    """Return values of the steps of sequences, with NaN after the end of each.

    Args:
        rows: The data, which are sequences.
        values: (rows, steps * numbers of a step).
        steps: Number of steps.
    """
    inside = torch.arange(steps) < row_lengths(rows)[:, None]
    mask = inside[:, :, None].expand(-1, -1, values.shape[1] // steps)
    return torch.where(mask.flatten(1), values, torch.nan)


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
