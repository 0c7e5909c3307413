"""The section of a report that shows rows: some of the data, and some that the model generates."""

from __future__ import annotations

import numbers
import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup

from ppl_vae.core.pair import Guide, Model
from ppl_vae.data.rows import Rows, as_rows, as_tuple, evenly_spaced
from ppl_vae.latents.codes import generate, reconstruct
from ppl_vae.report.html import Table, render
from ppl_vae.report.images import ImageField, strips
from ppl_vae.report.numbers import DASH, Number, number, shortened, with_common_precision
from ppl_vae.report.run_facts import fields_of

IMAGES, ROWS = 8, 3  # of the data, and as many of the model
CAPTION = "Rows of the data, and samples: rows that the model generates"
MOST_COLUMNS = 40  # that a table shows
NAME = 18  # characters of a name in the table, so that a telephone shows all its numbers


@dataclass(frozen=True)
class Examples:
    """Some rows of the data beside rows of the model.

    Attributes:
        image: The field that holds images; ``None`` for none.
        observed: Rows of the data, evenly spaced; ``None`` where single rows are not shown.
        reconstructed: Of images, what the pair expects in their place; ``None`` where nothing can
            be reconstructed.
        generated: Rows that the model generates, of images the expected pixels given the latents.
    """

    image: ImageField | None
    observed: Rows | None
    reconstructed: Rows | None
    generated: Rows

    @classmethod
    def of(
        cls,
        model: Model,
        guide: Guide,
        rows: Rows,
        image: ImageField | None,
        *,
        show_rows: bool,
        **shared: Any,
    ) -> Self | None:
        """Choose rows of the data and generate as many; ``None`` where there is nothing to show.

        Args:
            model: The model.
            guide: The guide.
            rows: The data.
            image: The field that holds images; ``None`` for none.
            show_rows: Whether rows of the data are shown.
            shared: ``seed`` and ``plate``.

        Raises:
            ValueError: If the model cannot generate rows.
        """
        if image is None and not (show_rows and _columns(rows)):
            return None
        count = min(ROWS if image is None else IMAGES, len(rows))
        chosen = rows.subset(evenly_spaced(len(rows), count))
        # Overflows are told of by the measurements of all rows.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            shared = {**shared, "progress": False}
            expected, options = image is not None, {"num_samples": count, **shared}
            generated = as_rows(
                generate(model, guide, rows, expected=expected, **options), "data", [rows.columns]
            )
            reconstructed = None
            if image is not None and show_rows:
                try:
                    reconstructed = Rows(reconstruct(model, guide, chosen, **shared))
                except ValueError:  # nothing is latent
                    reconstructed = None
        return cls(image, chosen if show_rows else None, reconstructed, generated)


def examples_section(found: Examples | ValueError | None) -> Markup:
    """Return the section with rows of the data and of the model; ``None`` for nothing to show."""
    values: dict[str, Any] = {"error": None, "strips": [], "table": None, "left_out": 0}
    if isinstance(found, ValueError):
        values["error"] = found
    elif found is not None and found.image is not None:
        parts = {
            "data": found.observed, "reconstructions": found.reconstructed,
            "samples": found.generated,
        }  # fmt: skip
        image = found.image
        values["strips"] = strips({n: image.images(r) for n, r in parts.items() if r is not None})
    elif found is not None:
        assert found.observed is not None
        of_rows = _mixed_table if found.observed.schema is not None else _table
        values["table"] = of_rows(found.observed, found.generated)
        values["left_out"] = max(len(_columns(found.observed)) - MOST_COLUMNS, 0)
    return render("examples.html", **values)


def _columns(rows: Rows) -> list[str]:
    """Return the names of the columns of all fields whose rows are numbers or vectors."""
    names = []
    for field in fields_of(rows.template()):
        if not field.shape:
            names.append(field.name or "value")
        elif len(field.shape) == 1:
            own = field.columns or [f"feature {i}" for i in range(field.shape[0])]
            names += [f"{field.name}: {name}" if field.name else name for name in own]
    return names


def _values(rows: Rows) -> np.ndarray:
    """Return the numbers of those columns, (rows, columns)."""
    fields = as_tuple(rows.take(torch.arange(len(rows))))
    flat = [field.detach().cpu().double().numpy() for field in fields if field.dim() in (1, 2)]
    return np.concatenate([values.reshape(len(rows), -1) for values in flat], axis=1)


def _table(observed: Rows, generated: Rows) -> Table:
    """Return a line for each column: its values in rows of the data, and in rows of the model."""
    values = np.concatenate([_values(observed), _values(generated)])
    lines = [
        [shortened(name, NAME), *_written(column)]
        for name, column in list(zip(_columns(observed), values.T, strict=True))[:MOST_COLUMNS]
    ]
    return Table(CAPTION, _heads(observed, generated), lines)


def _heads(observed: Rows, generated: Rows) -> list[str]:
    """Return the heads of a table of rows of the data and of the model."""
    labels = [f"row {shortened(str(label), 12)}" for label in observed.index]
    return ["column", *labels, *(f"sample {i + 1}" for i in range(len(generated)))]


def _mixed_table(observed: Rows, generated: Rows) -> Table:
    """Return what ``_table`` does of a table of mixed columns: texts, dates, gaps."""
    frames = [
        rows.restore(as_tuple(rows.take(torch.arange(len(rows)))), rows.index)
        for rows in (observed, generated)
    ]
    cells = pd.concat([frame.astype(object) for frame in frames])
    lines = [
        [shortened(str(name), NAME), *(_cell(value) for value in cells[name])]
        for name in cells.columns[:MOST_COLUMNS]
    ]
    return Table(CAPTION, _heads(observed, generated), lines)


def _cell(value: Any) -> Number | str:
    """Write a cell of a table: a number in six digits at most, a text or date as it is."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return number(float(value), 6)
    return DASH if value is None or pd.isna(value) else shortened(str(value), NAME)


def _written(column: np.ndarray) -> list[Number]:
    """Write the values of one column, (rows,), alike."""
    known = column[np.isfinite(column)]
    if not len(known) or (known == np.round(known)).all():
        return [number(value, 6) for value in column]
    return with_common_precision(list(column), float(np.ptp(known)))
