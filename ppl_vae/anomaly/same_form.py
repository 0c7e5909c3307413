"""Rows of the form that other rows had: their fields, columns and shapes; no infinite values.

A detector's calibration, and a comparison with reference rows, hold for rows of one meaning. A
frame's columns are known by their names, and all must be there: another column would be scored as
if it were the one in its place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ppl_vae.core.blocks import block_rows
from ppl_vae.data.cells import place_not_finite
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.data.steps import step_fields
from ppl_vae.data.templates import template_columns


def in_form(
    rows: Rows, form: dict[str, Any], name: str = "data", others: str = "the calibration rows"
) -> Rows:
    """Return rows with columns that have names in the order that other rows have.

    Whole numbers become floats, where the other rows have floats. Sequences may be padded to
    another number of steps.

    Args:
        rows: The rows, as the pair reads them.
        form: Form of the other rows, as ``Rows.template`` gives it.
        name: The argument's name, for messages.
        others: What the other rows are, for messages.

    Raises:
        ValueError: If fields, columns or shapes differ from those of the other rows; the message
            names them.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"a": [1.0], "b": [2.0]})
        >>> swapped = Rows(frame[["b", "a"]])
        >>> in_form(swapped, Rows(frame).template()).columns
        {'0': ['a', 'b']}
    """
    padded = step_fields(rows)
    given, wanted = _shapes(rows.template(), padded), _shapes(form, padded)
    if set(given) != set(wanted):
        raise ValueError(
            f"{name}: expected the fields of {others}, {_named(list(wanted))}, got "
            f"{_named(list(given))}"
        )
    columns = template_columns(form)
    for field, labels in rows.columns.items():
        if field in columns:
            _refuse_other_columns(labels, columns[field], name, others)
    for field, shape in given.items():
        if shape != wanted[field]:
            where = name if rows.single else f"{name}[{field!r}]"
            what = "steps" if field in padded else "rows"
            raise ValueError(
                f"{where}: expected {what} of shape {wanted[field]}, as {others} have, got {shape}"
            )
    rows = rows.with_columns_of([columns], name)
    dtypes = {key: getattr(torch, entry["tensor"]) for key, entry in _by_key(form).items()}
    keys = rows.keys or range(len(rows.fields))
    rows.fields = [
        _as_floats(field, dtypes[key]) for key, field in zip(keys, rows.fields, strict=True)
    ]
    return rows


def _as_floats(field: Field, dtype: torch.dtype) -> Field:
    """Return a field of whole numbers as floats, where the other rows have floats.

    A part of a file may hold whole numbers in a column that has others further down.
    """
    array = field.array
    if isinstance(array, torch.Tensor) and dtype.is_floating_point and array.dtype != dtype:
        return replace(field, array=array.to(dtype))
    return field


def refuse_infinite(rows: Rows, name: str = "data") -> None:
    """Raise ``ValueError`` if a value is infinite, with its row and column.

    Such a row would count as strange with the highest score, although nothing was measured. Whether
    NaN, a missing value, has a meaning is up to the pair.

    Args:
        rows: The rows.
        name: The argument's name, for messages.

    Example:
        >>> refuse_infinite(Rows(torch.tensor([[0.0, 1.0], [torch.inf, 2.0]])))
        Traceback (most recent call last):
        ValueError: data: expected finite numbers, got infinity in row 1 in column 0; leave it out
    """
    for index in torch.arange(len(rows)).split(block_rows(rows)):
        for field, values in zip(rows.fields, as_tuple(rows.take(index)), strict=True):
            infinite = values.isinf()
            if not bool(infinite.any()):
                continue
            cells = torch.where(infinite, torch.inf, 0.0)
            first = int(infinite.reshape(len(values), -1).any(1).nonzero()[0])
            row = int(rows.places(index[first : first + 1])[0])
            raise ValueError(
                f"{name}: expected finite numbers, got infinity in row {row}"
                f"{place_not_finite(cells, field.labels)}; leave it out"
            )


def _by_key(form: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    """Return the entries of a form by field: by its key, or by its position from 0."""
    keys = form["keys"] or range(len(form["fields"]))
    return dict(zip(keys, form["fields"], strict=True))


def _shapes(form: dict[str, Any], padded: list[str]) -> dict[Any, tuple[int, ...]]:
    """Return the shape of a row by field; of a step in the fields that are padded."""
    shapes = {key: tuple(entry["shape"]) for key, entry in _by_key(form).items()}
    return {key: shape[key in padded :] for key, shape in shapes.items()}


def _refuse_other_columns(given: list[Any], wanted: list[Any], name: str, others: str) -> None:
    """Raise ``ValueError`` unless a frame has the columns of other rows, in any order."""
    missing = [label for label in wanted if label not in given]
    more = [label for label in given if label not in wanted]
    if missing:
        raise ValueError(
            f"{name}: expected the columns of {others}, got none called "
            f"{_named(missing)}{', but ' if more else ''}{_named(more)}; add or rename columns, or "
            f"pass an array, frame.to_numpy(), with the {len(wanted)} columns in their order"
        )
    if more:
        raise ValueError(
            f"{name}: expected the columns of {others} alone, got {_named(more)} as well; leave "
            f"columns out, or take them into {others}"
        )


def _named(labels: list[Any], most: int = 5) -> str:
    """Return names in quotation marks, with commas; of many, the first few."""
    text = ", ".join(f'"{label}"' for label in labels[:most])
    return text if len(labels) <= most else f"{text} and {len(labels) - most} more"
