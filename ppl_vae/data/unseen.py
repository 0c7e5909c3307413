"""Cells of a table whose category the schema does not have, taken for missing, and said."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import shown
from ppl_vae.data.plain_columns import is_missing, plain, text_of
from ppl_vae.data.schema import Schema
from ppl_vae.data.schema_columns import SchemaColumn


def cells_of(frame: pd.DataFrame, column: SchemaColumn) -> pd.Series:
    """Return the cells that a frame has of a column of a schema."""
    return frame.iloc[:, list(map(text_of, frame.columns)).index(text_of(column.name))]


def unknown_cells(
    frame: pd.DataFrame, column: SchemaColumn, schema: Schema
) -> np.ndarray[Any, Any]:
    """Return which cells of a column hold a category that the schema lacks, (rows,) of bool.

    Args:
        frame: A frame with the columns of the schema.
        column: A column of the schema; one of numbers has no such cells.
        schema: The schema.
    """
    if not column.is_category:
        return np.zeros(len(frame), dtype=bool)
    cells = cells_of(frame, column)
    _, seen = column.encoded(cells, schema.missing, "missing", "data")
    return np.asarray(~seen & ~is_missing(plain(cells), schema.missing))


def tell_unknown(
    frame: pd.DataFrame, schema: Schema, seen: np.ndarray[Any, Any], where: str
) -> None:
    """Warn of cells that were taken for missing because the schema lacks their category.

    Args:
        frame: The frame.
        schema: The schema by which the frame was read.
        seen: Which cells of the columns in ``schema.modelled`` were read, (rows, columns).
        where: The data's name, for messages.
    """
    if schema.unseen != "missing":
        return
    told = []
    for place, column in enumerate(schema.modelled):
        if column.is_category and not seen[:, place].all():
            cells = cells_of(frame, column)
            unknown = ~seen[:, place] & ~is_missing(plain(cells), schema.missing)
            if count := int(unknown.sum()):
                first = shown(cells.iloc[int(np.argmax(unknown))])
                told.append(f'{count:,} of column "{column.name}", first {first}')
    if told:
        warnings.warn(
            f"{where}: cells with a category that the fit did not have are taken for missing: "
            f"{'; '.join(told)}",
            UserWarning,
            stacklevel=3,
        )
