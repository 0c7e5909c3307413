"""Missing cells of mixed tables as the table has them: categories, dates, whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ppl_vae.data.rows import Rows
from ppl_vae.imputation.missing import MissingCells

BOUNDS = ("value", "lower", "upper")
"""Statistics that are values of their column; the others are numbers whatever the column holds."""


def completed_table(rows: Rows, cells: MissingCells, values: Tensor) -> pd.DataFrame:
    """Return a copy of the table's frame in which the missing cells alone are written.

    Args:
        rows: A table.
        cells: The missing cells.
        values: Their values as the schema's numbers, (cells,).
    """
    assert rows.schema is not None
    frame: pd.DataFrame = rows.frame.copy() if rows.frame is not None else rows.restore(
        [field.take(rows.positions_in_data(cells.rows.new_tensor(range(len(rows)))))
         for field in rows.fields], rows.index,
    )  # fmt: skip
    places, numbers = cells.places.numpy(), values.numpy()
    for place in np.unique(places):
        column, chosen = rows.schema.modelled[place], places == place
        made = column.decoded(numbers[chosen], np.ones(int(chosen.sum()), bool))
        position: Any = frame.columns.get_loc(column.name)
        new: Any = _written(frame.iloc[:, position], cells.rows[chosen], made)
        frame.isetitem(position, new)
    return frame


def _written(column: pd.Series, row: Tensor, values: pd.Series) -> pd.Series:
    """Return a column with values in some rows; of objects where its type cannot hold them."""
    result = column.copy()
    try:
        result.iloc[row.numpy()] = values.array
    except (TypeError, ValueError):
        result = column.astype(object)
        result.iloc[row.numpy()] = values.to_numpy(dtype=object)
    return result


def table_lines(rows: Rows, cells: MissingCells, found: dict[str, Tensor]) -> dict[str, Any]:
    """Return names of the columns and statistics of missing cells, in the columns' own values.

    Args:
        rows: A table.
        cells: The missing cells.
        found: Statistics as the schema's numbers, ``{name: (cells,)}``.
    """
    assert rows.schema is not None
    places, count = cells.places.numpy(), len(cells)
    names = np.empty(count, dtype=object)
    lines: dict[str, Any] = {name: np.empty(count, dtype=object) for name in BOUNDS}
    for place in np.unique(places):
        column, chosen = rows.schema.modelled[place], places == place
        names[chosen] = [column.name] * int(chosen.sum())
        for name in BOUNDS:
            numbers = found[name].numpy()[chosen]
            there = np.isfinite(numbers)
            cells_of = column.decoded(np.where(there, numbers, column.filling), there)
            if column.is_category and name != "value":
                cells_of = pd.Series(np.full(len(numbers), np.nan))
            lines[name][chosen] = cells_of.to_numpy(dtype=object)
    typed = {name: pd.Series(values).infer_objects() for name, values in lines.items()}
    return {"column": names, **typed}
