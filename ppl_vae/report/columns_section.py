"""The section of a report with each column of a table: real rows beside generated ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import pandas as pd
import torch
from markupsafe import Markup

from ppl_vae.core.pair import Guide, Model
from ppl_vae.data.rows import Rows, as_tuple, evenly_spaced
from ppl_vae.latents.codes import generate
from ppl_vae.plots.columns import MOST_CATEGORIES, column_comparison
from ppl_vae.report.figures import Figure
from ppl_vae.report.html import render

MOST_ROWS = 5000  # of the data, and as many generated ones
MOST_COLUMNS = 60


@dataclass(frozen=True)
class TableColumns:
    """Rows of a table and rows that the model generates, as frames of the same columns.

    Attributes:
        observed: Rows of the data, evenly spaced.
        generated: As many rows of the model.
    """

    observed: pd.DataFrame
    generated: pd.DataFrame

    @classmethod
    def of(cls, model: Model, guide: Guide, rows: Rows, **shared: Any) -> Self | None:
        """Choose rows of a table and generate as many; ``None`` for data that are no table.

        Args:
            model: The model.
            guide: The guide.
            rows: The data.
            shared: ``seed`` and ``plate``.

        Raises:
            ValueError: If the model cannot generate rows.
        """
        if rows.schema is None:
            return None
        count = min(MOST_ROWS, len(rows))
        chosen = rows.subset(evenly_spaced(len(rows), count))
        observed = rows.restore(as_tuple(chosen.take(torch.arange(count))), chosen.index)
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            generated = generate(model, guide, rows, num_samples=count, progress=False, **shared)
        for column in rows.schema.columns:
            if column.kind == "date" and column.name in observed:
                for frame in (observed, generated):
                    frame[column.name] = pd.to_datetime(frame[column.name], format="ISO8601")
        return cls(observed, generated)


def columns_section(found: TableColumns | ValueError) -> Markup:
    """Return the section with a figure for each column."""
    values: dict[str, Any] = {"error": None, "figures": [], "left_out": 0, "rows": 0}
    if isinstance(found, ValueError):
        values["error"] = found
    else:
        names = list(found.observed.columns)
        shown = [name for name in names[:MOST_COLUMNS] if found.observed[name].notna().any()]
        values["figures"] = [(str(name), _figure(found, name)) for name in shown]
        values["left_out"] = len(names) - len(shown)
        values["rows"] = len(found.observed)
    return render("columns.html", **values)


def _figure(found: TableColumns, name: Any) -> Figure:
    """Return the figure of one column."""
    held, made = found.observed[name], found.generated[name]
    is_text = not pd.api.types.is_numeric_dtype(held) and held.dtype.kind not in "mM"
    bars = min(held.nunique(), MOST_CATEGORIES) if is_text else 0
    height = 1.1 + 0.3 * max(bars, 2) if bars else 2.4
    alt = f"Distribution of {name} in real rows and in generated ones."
    return Figure.drawn(partial(_drawn, held, made), alt, height=height)


def _drawn(held: pd.Series, made: pd.Series, ax: Any) -> Any:
    """Draw one column on given axes."""
    return column_comparison(held, made, ax=ax)
