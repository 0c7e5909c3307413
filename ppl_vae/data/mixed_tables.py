"""Tables of columns of mixed kinds as data: their cells as numbers, and which of them are there.

    x       (rows, columns)    numbers of the columns that a model describes, those of one kind
                               side by side (``Schema.modelled``)
    seen    (rows, columns)    which cells are there, of bool
    y       (rows, values)     covariates, where there are any

The schema travels with the data: a pair that was fitted to a table takes frames with the same
columns as they are, and gives back frames with the columns, types and categories of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ppl_vae.arguments import names_in, shown
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.columns import NamedFields
from ppl_vae.data.schema import Schema, read_schema

X, SEEN, COVARIATES = "x", "seen", "y"


class Table(NamedFields):
    """The fields of a table, with its schema. ``table`` makes it of a frame.

    Attributes:
        schema: The schema.
        frame: The frame that the fields were read from; ``None`` for rows that were made.
    """

    def __init__(
        self, fields: Mapping[str, Any], schema: Schema, frame: pd.DataFrame | None = None,
        index: pd.Index | None = None,
    ) -> None:  # fmt: skip
        names = {X: [column.layout()["name"] for column in schema.modelled]}
        super().__init__(fields, names, index if frame is None else frame.index)
        self.schema, self.frame = schema, frame

    def copy(self) -> Table:
        """Return a copy with the schema, and with the same arrays."""
        return Table(self, self.schema, self.frame, self.index)

    def part(self, rows: slice) -> Table:
        """Return some of the rows."""
        fields = {name: values[rows] for name, values in self.items()}
        frame = None if self.frame is None else self.frame.iloc[rows]
        return Table(fields, self.schema, frame, None if self.index is None else self.index[rows])


def table(
    data: Any,
    *,
    kinds: Mapping[Any, str] | None = None,
    ignore: Any = (),
    missing: Any = (),
    covariates: Any = (),
    unseen: str = "error",
    schema: Schema | None = None,
) -> Table:
    """Return a frame of any columns as data that every function takes: text, counts, dates, gaps.

    The schema is read from the frame: print ``table(frame).schema``. Log-probabilities are those of
    the table as it is given, in its units.

    Args:
        data: A frame; a table of polars, Arrow or duckdb is one. Missing are the cells that pandas
            says are missing, and empty texts.
        kinds: The kind of a column where the guess is wrong, by name: ``"real"``, ``"positive"``,
            ``"count"``, ``"date"``, ``"binary"``, ``"categorical"``, ``"ordinal"``,
            ``"identifier"`` or ``"text"``; the last two are left out.
        ignore: Names of columns to leave out.
        missing: Texts and numbers that stand for a missing value, such as ``["?", -999]``.
        covariates: Names of columns that a model is given and does not describe: the field ``y``.
            They may have no gaps.
        unseen: ``"error"``, or ``"missing"`` to take categories that the schema does not have for
            missing values, in later data too.
        schema: The schema of another table, by which this one is read; no other argument then.

    Returns:
        A mapping of the fields ``x``, ``seen`` and ``y``, as the file's head has them, with the
        ``schema``. The rows have the index of the frame.

    Raises:
        ValueError: If the data are no frame or have no rows, an argument names no column, columns
            have one name, or a cell is not of its column's kind; names the column and the row.

    Example:
        >>> people = pd.DataFrame({"age": [31, 45, 28, 52], "city": ["Rome", "", "Oslo", "Oslo"]})
        >>> data = table(people)
        >>> [(column.name, column.kind) for column in data.schema.columns]
        [('age', 'count'), ('city', 'binary')]
        >>> data["seen"][:, 1].tolist()
        [True, False, True, True]
    """
    frame = of_pandas(data, "data")
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(
            f"data: expected a frame, got {shown(data)}; pandas.DataFrame(array, columns=names) "
            "makes one of an array"
        )
    if not len(frame):
        raise ValueError("data: expected at least one row, got none")
    words = [missing] if isinstance(missing, str | int | float) else list(missing)
    given: dict[str, Any] = {
        "kinds": dict(kinds or {}), "ignore": names_in("ignore", ignore), "missing": words,
        "covariates": names_in("covariates", covariates),
    }  # fmt: skip
    if schema is None:
        schema = read_schema(frame, unseen=unseen, **given)
    elif any(given.values()) or unseen != "error":
        used = next((name for name, value in given.items() if value), "unseen")
        raise ValueError(f"{used}: expected none beside a schema, which says it, got one")
    return by_schema(frame, schema)


def by_schema(frame: pd.DataFrame, schema: Schema, where: str = "data") -> Table:
    """Return a frame as a table of a schema; errors as ``table``."""
    schema.checked(frame, where)
    x, seen = schema.encoded(frame, schema.modelled, where)
    dtype = torch.get_default_dtype()
    fields: dict[str, Any] = {X: torch.as_tensor(x, dtype=dtype), SEEN: torch.as_tensor(seen)}
    if schema.covariates:
        values = schema.covariate_values(frame, where)
        fields[COVARIATES] = torch.as_tensor(values, dtype=dtype)
    return Table(fields, schema, frame)


def read_by_schema(data: Any, schemas: Sequence[Schema | None], name: str) -> Any:
    """Return a frame, or a table of another schema, as a table of the schema of a fit.

    Args:
        data: Data of any form; what is no frame and no table is returned as it is.
        schemas: Of the fits of the model and the guide; ``None`` for a fit to other data.
        name: The data's name, for messages.

    Raises:
        ValueError: If the frame does not have the columns of the schema, or a cell is not of its
            column's kind.
    """
    known = [schema for schema in schemas if schema is not None]
    if not known:
        return data
    schema = known[0]
    if isinstance(data, Table):
        if data.schema == schema or data.frame is None:
            return data
        return by_schema(data.frame, schema, name)
    return by_schema(data, schema, name) if isinstance(data, pd.DataFrame) else data


def joined_tables(parts: Sequence[Table]) -> Table:
    """Return tables of one schema, one below the other."""
    fields = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    frames = [part.frame for part in parts if part.frame is not None]
    frame = pd.concat(frames) if len(frames) == len(parts) else None
    return Table(fields, parts[0].schema, frame)


def rows_of_zeros(schema: Schema, count: int) -> Table:
    """Return rows with one typical value in each column of a schema."""
    x = torch.tensor([column.filling for column in schema.modelled]).expand(count, -1).clone()
    fields = {X: x.to(torch.get_default_dtype()), SEEN: torch.ones_like(x, dtype=torch.bool)}
    if schema.covariates:
        width = sum(column.width for column in schema.given)
        fields[COVARIATES] = torch.zeros(count, width)
    return Table(fields, schema, index=pd.RangeIndex(count))


def of_fields(
    schema: Schema, fields: Mapping[str, torch.Tensor], index: pd.Index | None = None
) -> pd.DataFrame:
    """Return the fields of a table, (rows, ...) each, as a frame; every cell is taken as there."""
    arrays = {name: values.detach().cpu().double().numpy() for name, values in fields.items()}
    return schema.decoded(arrays[X], None, arrays.get(COVARIATES), index)


def of_given_columns(
    schema: Schema, batch: dict[str, torch.Tensor], given: Mapping[Any, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return rows without gaps, and the field of covariates that a user gave by their columns.

    Args:
        schema: The schema.
        batch: The rows.
        given: ``{name of a covariate: values}``, one value or (rows,) of them.

    Raises:
        ValueError: If a name is no covariate, or a value is not of its column's kind.
    """
    batch = {**batch, SEEN: torch.ones_like(batch[SEEN])}
    if not given:
        return batch, {}
    y = batch.get(COVARIATES, batch[X][:, :0])
    return batch, {COVARIATES: _covariates_given(schema, given, y)}


def _covariates_given(schema: Schema, given: Mapping[Any, Any], y: Any) -> Any:
    """Return covariates in which some columns have the values that a user gave.

    Args:
        schema: The schema.
        given: ``{name of a covariate: values}``, one value or (rows,) of them.
        y: The covariates to change, (rows, values).

    Raises:
        ValueError: If a name is no covariate, or a value is not of the column's kind.
    """
    y, start = y.clone(), 0
    names = [column.name for column in schema.given]
    for name in given:
        if name not in names:
            described = name in [column.name for column in schema.modelled]
            mend = (
                f'; the model describes "{name}": rows in which it has a given value are draws of '
                "impute, from a frame with that value and gaps elsewhere"
                if described
                else ""
            )
            raise ValueError(f"given: expected covariates among {names}, got {shown(name)}{mend}")
    for column in schema.given:
        if column.name in given:
            values = given[column.name]
            many = isinstance(values, list | tuple | np.ndarray | pd.Series)
            cells = pd.Series(list(values) if many else [values] * len(y), name=column.name)
            if len(cells) != len(y):
                raise ValueError(
                    f'given["{column.name}"]: expected one value or {len(y)}, got {len(cells)}'
                )
            x, seen = column.encoded(cells, schema.missing, "error", "given")
            if not seen.all():
                raise ValueError(f'given["{column.name}"]: expected values, got a missing one')
            part = torch.as_tensor(column.covariate(x), dtype=y.dtype)
            y[:, start : start + column.width] = part.to(y.device)
        start += column.width
    return y
