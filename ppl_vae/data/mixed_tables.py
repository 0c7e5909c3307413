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
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ppl_vae.arguments import shown
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.columns import NamedFields
from ppl_vae.data.plain_columns import of_python, text_of
from ppl_vae.data.schema import UNSEEN, Schema, read_schema
from ppl_vae.data.unseen import tell_unknown

X, SEEN, COVARIATES = "x", "seen", "y"


class Table(NamedFields):
    """The fields of a table, with its schema. ``table`` makes it of a frame.

    Attributes:
        schema: The schema.
        frame: The frame that the fields were read from; ``None`` for rows that were made.

    Example:
        >>> data = table(pd.DataFrame({"weight": [70.5, 61.2, 80.1], "city": ["Rome", "Oslo", ""]}))
        >>> list(data), data.schema.columns[0].kind, len(data.part(slice(0, 2))["x"])
        (['x', 'seen'], 'positive', 2)
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

    def __or__(self, other: Any) -> Any:
        """Return the table with the fields of another mapping, such as an index, beside its own.

        Raises:
            ValueError: If a field of the table would be replaced: its schema would not fit.
        """
        joined = dict.__or__(self, other)
        if joined is NotImplemented:
            return joined
        if both := [name for name in other if name in self]:
            raise ValueError(
                f'fields: expected others than those of the table, got "{both[0]}"; change the '
                "frame, and pass it"
            )
        return Table(joined, self.schema, self.frame, self.index)

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
            missing values, in later data too. Beside ``schema``, ``"error"`` leaves it to the
            schema. A warning says how many cells are taken for missing.
        schema: The schema of another table, by which this one is read; no other argument then but
            ``unseen="missing"``, for later data with categories that the fit did not have.

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
    given: dict[str, Any] = {
        "kinds": _mapping_of_kinds(kinds), "ignore": _listed("ignore", ignore),
        "missing": _listed("missing", missing), "covariates": _listed("covariates", covariates),
    }  # fmt: skip
    if schema is not None and not isinstance(schema, Schema):
        raise ValueError(f"schema: expected a Schema, got {shown(schema)}; Schema.load reads one")
    if schema is None:
        schema = read_schema(frame, unseen=unseen, **given)
    elif used := [name for name, value in given.items() if value]:
        raise ValueError(f"{used[0]}: expected none beside a schema, which says it, got one")
    elif not isinstance(unseen, str) or unseen not in UNSEEN:
        raise ValueError(f"unseen: expected {' or '.join(UNSEEN)}, got {shown(unseen)}")
    else:
        schema = schema if unseen == "error" else replace(schema, unseen=unseen)
        schema.checked(frame)
        schema = schema.completed(frame)
    return by_schema(frame, schema)


def _listed(argument: str, values: Any) -> list[Any]:
    """Return one value, or several, as a list; the name of a column may be a tuple.

    Raises:
        ValueError: If the values are neither.
    """
    if values is None or isinstance(values, str | int | float):
        return [] if values is None else [values]
    is_list = isinstance(values, list | tuple | set | frozenset | pd.Index | np.ndarray)
    if not is_list or getattr(values, "ndim", 1) == 0:
        raise ValueError(f"{argument}: expected a list, got {shown(values)}")
    return list(values)


def _mapping_of_kinds(kinds: Any) -> dict[Any, str]:
    """Return the kinds of columns by name; raise ``ValueError`` for what is no mapping."""
    if not isinstance(kinds, Mapping | None):
        raise ValueError(f'kinds: expected {{"column": "kind"}}, got {shown(kinds)}')
    return dict(kinds or {})


def by_schema(
    frame: pd.DataFrame, schema: Schema, where: str = "data", *, tell: bool = True
) -> Table:
    """Return a frame as a table of a schema; errors as ``table``.

    Args:
        frame: The frame.
        schema: The schema.
        where: The data's name, for messages.
        tell: Whether to warn of cells that are taken for missing, because of their category.
    """
    schema.checked(frame, where)
    x, seen = schema.encoded(frame, schema.modelled, where)
    if tell:
        tell_unknown(frame, schema, seen, where)
    dtype = torch.get_default_dtype()
    fields: dict[str, Any] = {X: torch.as_tensor(x, dtype=dtype), SEEN: torch.as_tensor(seen)}
    if schema.given:
        values = schema.covariate_values(frame, where)
        fields[COVARIATES] = torch.as_tensor(values, dtype=dtype)
    return Table(fields, schema, frame)


def read_by_schema(data: Any, schemas: Sequence[Schema | None], name: str) -> Any:
    """Return a frame, or a table of another schema, as a table of the schema of a fit.

    Args:
        data: Data of any form; of a pair that was fitted to other data than a table, the data are
            returned as they are.
        schemas: Of the fits of the model and the guide; ``None`` for a fit to other data.
        name: The data's name, for messages.

    Raises:
        ValueError: If the data are no frame and no table, a frame does not have the columns of the
            schema, or a cell is not of its column's kind; if the model and the guide were fitted to
            tables whose numbers mean different cells.
    """
    schema = schema_of_fits(schemas, name)
    if schema is None:
        return data
    if isinstance(data, Table):
        return data if data.schema.codes == schema.codes else read_anew(data, schema, name)
    if isinstance(data, pd.DataFrame):
        return by_schema(data, schema, name)
    raise ValueError(
        f"{name}: expected a frame, or what table(frame) returns, because the model and the guide "
        f"were made for a table, got {shown(type(data).__name__)}, whose columns have no names; "
        "some rows of a table are table(frame[:10], schema=schema), and another field joins it by "
        '|, as in table(frame) | {"index": torch.arange(10)}'
    )


def schema_of_fits(schemas: Sequence[Schema | None], name: str) -> Schema | None:
    """Return the schema that a model and a guide were fitted to; ``None`` where they have none.

    Raises:
        ValueError: If the numbers of the one mean other cells than those of the other.
    """
    known = [schema for schema in schemas if schema is not None]
    for other in known[1:]:
        if other.codes != known[0].codes:
            of_first, of_other = dict(_by_name(known[0])), dict(_by_name(other))
            names = [*of_first, *of_other]
            odd = next((n for n in names if of_first.get(n) != of_other.get(n)), names[0])
            raise ValueError(
                f"{name}: expected a model and a guide that were made for one table, got two whose "
                f'column "{odd}" differs in its kind, categories, offset or frequent values; '
                "build both from table(frame, schema=schema) with one schema"
            )
    return known[0] if known else None


def _by_name(schema: Schema) -> list[tuple[str, Any]]:
    """Return the codes of the columns of a schema, by name."""
    return [(column.codes[0], column.codes) for column in (*schema.modelled, *schema.given)]


def read_anew(data: Table, schema: Schema, name: str) -> Table:
    """Return a table of another schema as one of this schema; other fields stay beside it."""
    frame = data.frame
    if frame is None:
        frame = data.schema.decoded(data[X], data[SEEN], data.get(COVARIATES), data.index)
    read = by_schema(frame, schema, name)
    others = {key: values for key, values in data.items() if key not in (X, SEEN, COVARIATES)}
    return read | others if others else read


def joined_tables(parts: Sequence[Table]) -> Table:
    """Return tables of one schema, one below the other."""
    fields = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    frames = [part.frame for part in parts if part.frame is not None]
    if len(frames) == len(parts):
        return Table(fields, parts[0].schema, pd.concat(frames))
    indices = [part.index for part in parts if part.index is not None]
    index = indices[0].append(indices[1:]) if len(indices) == len(parts) else None
    return Table(fields, parts[0].schema, index=index)


def rows_of_zeros(schema: Schema, count: int) -> Table:
    """Return rows with one typical value in each column of a schema."""
    x = torch.tensor([column.filling for column in schema.modelled]).expand(count, -1).clone()
    fields = {X: x.to(torch.get_default_dtype()), SEEN: torch.ones_like(x, dtype=torch.bool)}
    if schema.given:
        parts = [column.covariate(np.full(count, column.filling)) for column in schema.given]
        fields[COVARIATES] = torch.as_tensor(np.concatenate(parts, 1), dtype=fields[X].dtype)
    return Table(fields, schema, index=pd.RangeIndex(count))


def of_fields(
    schema: Schema, fields: Mapping[str, torch.Tensor], index: pd.Index | None = None
) -> pd.DataFrame:
    """Return the fields of a table, (rows, ...) each, as a frame."""
    arrays = {name: values.detach().cpu().double().numpy() for name, values in fields.items()}
    return schema.decoded(arrays[X], arrays.get(SEEN), arrays.get(COVARIATES), index)


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
    names = [text_of(column.name) for column in schema.given]
    of_name = {text_of(name): values for name, values in given.items()}
    for name in of_name:
        if name not in names:
            described = name in [text_of(column.name) for column in schema.modelled]
            mend = (
                f'; the model describes "{name}": rows in which it has a given value are draws of '
                "impute, from a frame with that value and gaps elsewhere"
                if described
                else ""
            )
            raise ValueError(f"given: expected covariates among {names}, got {shown(name)}{mend}")
    for column in schema.given:
        if text_of(column.name) in of_name:
            values = of_name[text_of(column.name)]
            cells = _cells_given(values, column.name, len(y))
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


def _cells_given(values: Any, name: Any, count: int) -> pd.Series:
    """Return what a user gave for a column, one value or many, as a column.

    Args:
        values: A value, or values in any order of one dimension.
        name: The name of the column.
        count: The number of rows that get one value.
    """
    values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    values = of_pandas(values, "given")
    is_one = not pd.api.types.is_list_like(values)  # an array of no dimension is one value
    listed = [of_python(values)] * count if is_one else list(values)
    return pd.Series([v.item() if isinstance(v, np.ndarray) else v for v in listed], name=name)
