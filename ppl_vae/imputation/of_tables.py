"""Missing cells of mixed tables as the table has them: categories, dates, whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.data.mixed_tables import X
from ppl_vae.data.plain_columns import is_missing, plain, text_of
from ppl_vae.data.rows import Rows
from ppl_vae.data.unseen import unknown_cells
from ppl_vae.imputation.missing import MissingCells

BOUNDS = ("value", "lower", "upper")
"""Statistics that are values of their column; the others are numbers whatever the column holds."""


def check_fields(rows: Rows, cells: MissingCells) -> None:
    """Raise ``ValueError`` where cells are missing in a field beside the columns of a table.

    Args:
        rows: Rows of any form.
        cells: Their missing cells.
    """
    if rows.schema is None:
        return
    others = [rows.names[int(number)] for number in cells.fields.unique()]
    others = [name for name in others if name != X]
    if others:
        raise ValueError(
            f'data: expected missing cells in the columns of the table, got some in "{others[0]}"; '
            "let the model mask the cells of x alone"
        )


def completed_table(rows: Rows, cells: MissingCells, values: Tensor) -> pd.DataFrame:
    """Return a copy of the table's frame in which the missing cells alone are written.

    A cell with a category that the schema does not have stays as it is, though the model takes the
    cell for missing.

    Args:
        rows: A table.
        cells: The missing cells.
        values: Their values as the schema's numbers, (cells,).
    """
    assert rows.schema is not None
    frame: pd.DataFrame
    if rows.frame is not None:
        frame = rows.frame.copy()
    else:
        everything = rows.positions_in_data(torch.arange(len(rows)))
        frame = rows.restore([field.take(everything) for field in rows.fields], rows.index)
    places, numbers, unknown = cells.places.numpy(), values.numpy(), of_unknown(rows, cells)
    for place in np.unique(places):
        column, chosen = rows.schema.modelled[place], places == place
        chosen = chosen & ~unknown
        if not chosen.any():
            continue
        made = column.decoded(numbers[chosen], np.ones(int(chosen.sum()), bool))
        position = list(map(text_of, frame.columns)).index(text_of(column.name))
        row, words = cells.rows[chosen].numpy(), rows.schema.missing
        new: Any = _written(frame.iloc[:, position], row, made, words)
        frame.isetitem(position, new)
    return frame


def of_unknown(rows: Rows, cells: MissingCells) -> np.ndarray:
    """Return which missing cells hold a category that the table's schema lacks, (cells,) of bool.

    Args:
        rows: Rows of any form; other data than a table have no such cells.
        cells: The missing cells.
    """
    places, found = cells.places.numpy(), np.zeros(len(cells), dtype=bool)
    if rows.schema is None or rows.frame is None:
        return found
    for place in np.unique(places):
        unknown = unknown_cells(rows.frame, rows.schema.modelled[place], rows.schema)
        found |= (places == place) & unknown[cells.rows.numpy()]
    return found


def _written(column: pd.Series, row: np.ndarray, made: pd.Series, words: Any) -> Any:
    """Return a column with values in some rows, in the column's own type where that holds them.

    Args:
        column: The column.
        row: Positions of the rows, (cells,).
        made: The values, (cells,), in the type of the schema's column.
        words: Texts and numbers that stand for a missing value.
    """
    dtype: Any = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        dense: Any = plain(column)
        filled = _written(dense, row, made, words)
        return filled.astype(dtype) if filled.dtype == dense.dtype else filled
    if isinstance(dtype, pd.CategoricalDtype):
        new = [value for value in made.unique() if value not in dtype.categories]
        column, made = column.cat.add_categories(new), made.astype(object)
    elif pd.api.types.is_numeric_dtype(made.dtype) and not pd.api.types.is_numeric_dtype(dtype):
        made = _like(column[~is_missing(plain(column), words)], made)
    for wider in (None, float, object):
        try:
            result = column.copy() if wider is None else column.astype(wider)
            result.iloc[row] = made.array if wider is None else made.astype(wider).to_numpy()
            return result
        except (TypeError, ValueError, NotImplementedError):
            continue
    raise AssertionError  # objects hold everything


def _like(there: pd.Series, made: pd.Series) -> pd.Series:
    """Return numbers as a column has them that holds them as text, or as objects of Python.

    Args:
        there: The cells of the column that are there.
        made: The numbers.
    """
    kinds = {type(value) for value in there}
    if len(kinds) != 1 or kinds <= {int, float, bool}:
        return made
    kind: Any = kinds.pop()
    try:
        return pd.Series([kind(str(value)) for value in made.tolist()], dtype=object)
    except (TypeError, ValueError, ArithmeticError):
        return made


def table_lines(rows: Rows, cells: MissingCells, found: dict[str, Tensor]) -> dict[str, Any]:
    """Return names of the columns and statistics of missing cells, in the columns' own values.

    Args:
        rows: A table.
        cells: The missing cells.
        found: Statistics as the schema's numbers, ``{name: (cells,)}``.
    """
    assert rows.schema is not None
    places, count = cells.places.numpy(), len(cells)
    labels = np.empty(len(rows.schema.modelled), dtype=object)
    lines: dict[str, Any] = {name: np.empty(count, dtype=object) for name in BOUNDS}
    sd = found["sd"].numpy().copy()
    for place, column in enumerate(rows.schema.modelled):
        labels[place] = column.name
        chosen = places == place
        for name in BOUNDS:
            numbers = found[name].numpy()[chosen]
            there = np.isfinite(numbers)
            cells_of = column.decoded(np.where(there, numbers, column.filling), there)
            if column.is_category and name != "value":
                cells_of = pd.Series(np.full(len(numbers), np.nan))
            lines[name][chosen] = cells_of.to_numpy(dtype=object)
        sd[chosen] = np.nan if column.is_category else sd[chosen]
    typed = {name: pd.Series(values).infer_objects() for name, values in lines.items()}
    return {"column": labels[places], **typed, "sd": sd}


def categories_of(rows: Rows, cells: MissingCells, name: Any) -> tuple[np.ndarray, list[Any]]:
    """Return which missing cells a column of a table has, and the categories of the column.

    Args:
        rows: A table.
        cells: The missing cells.
        name: The column's name.

    Returns:
        Which cells, (cells,) of bool; and the categories as the table has them, none for numbers.
    """
    assert rows.schema is not None
    columns = rows.schema.modelled
    of_column = [text_of(column.name) == text_of(name) for column in columns]
    chosen = np.asarray(of_column)[cells.places.numpy()]
    if not chosen.any():
        return chosen, []
    column = columns[of_column.index(True)]
    codes = np.arange(float(len(column.categories)))
    return chosen, column.decoded(codes, np.ones(len(codes), dtype=bool)).tolist()
