"""The schema of a table: what kind of values each column holds, and numbers in their place.

    numbers      themselves; dates as days or seconds; numbers far from 0 less an offset
    categories   0, 1, 2, ... in the order of the schema
    missing      a number of the column that is there; which cells are missing is told beside it

The numbers of all columns are one array, (rows, columns), in which columns of one kind stand side
by side. ``decoded`` leads back to a frame with the columns, the types and the categories that the
table had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import shown
from ppl_vae.data.column_reading import read_column
from ppl_vae.data.kinds import KINDS
from ppl_vae.data.schema_columns import SchemaColumn, place_of
from ppl_vae.data.selection import first_repeated, missing_names
from ppl_vae.verdicts import Block, Line, Table, verdict

UNSEEN = ("error", "missing")
"""What becomes of a category that the schema does not have."""


@dataclass(frozen=True)
@verdict
class Schema:
    """The columns of a table: their kinds, categories, units, ranges, and which cells are missing.

    Print the schema to see what was read. ``table`` reads it; a frame with the same columns has the
    same schema (``table(frame, schema=schema)``), and a pair that was fitted to a table takes such
    frames as they are.

    Attributes:
        columns: The columns, in the order of the table.
        missing: Texts and numbers that stand for a missing value.
        unseen: ``"error"`` to refuse categories that the schema does not have, ``"missing"`` to
            take them for missing values.
        covariates: Names of columns that a model is given and does not describe.
    """

    columns: tuple[SchemaColumn, ...]
    missing: tuple[Any, ...] = ()
    unseen: str = "error"
    covariates: tuple[Any, ...] = field(default=())

    @property
    def modelled(self) -> list[SchemaColumn]:
        """The columns that a model describes, those of one kind side by side."""
        left = [c for c in self.columns if not c.is_left_out and c.name not in self.covariates]
        return sorted(left, key=lambda column: KINDS.index(column.likelihood))

    @property
    def given(self) -> list[SchemaColumn]:
        """The columns that are covariates, in the order of the table."""
        return [column for column in self.columns if column.name in self.covariates]

    @property
    def frame(self) -> pd.DataFrame:
        """A line for each column: kind, unit, categories or range, share of missing cells."""
        lines = [column.summary() for column in self.columns]
        for line, column in zip(lines, self.columns, strict=True):
            if column.name in self.covariates:
                line["kind"] += ", covariate"
        names = pd.Index([c.name for c in self.columns], name="column", tupleize_cols=False)
        return pd.DataFrame(lines, index=names)

    def named(self, name: Any) -> SchemaColumn:
        """Return the column of a name."""
        return next(column for column in self.columns if column.name == name)

    def checked(self, frame: pd.DataFrame, where: str = "data") -> None:
        """Raise ``ValueError`` where a frame has not the columns of the schema.

        Args:
            frame: The frame; columns that the schema leaves out may be absent.
            where: The data's name, for messages.
        """
        names = column_labels(frame, where)
        known = [column.name for column in self.columns]
        needed = [column.name for column in self.columns if not column.is_left_out]
        if lost := missing_names(map(str, needed), map(str, names)):
            raise ValueError(
                f"{where}: expected the columns of the table that was fitted, got {lost}"
            )
        new = [name for name in names if name not in known]
        if new:
            raise ValueError(
                f'{where}: column "{new[0]}": expected the columns of the fitted table, '
                f"got {len(new)} more; leave them out: data.drop(columns={new[:5]})"
            )

    def encoded(
        self, frame: pd.DataFrame, columns: Sequence[SchemaColumn], where: str = "data"
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return columns of a frame as numbers, and which cells are there: (rows, columns) each.

        Args:
            frame: A frame that ``checked`` lets pass.
            columns: Columns of the schema.
            where: The data's name, for messages.

        Raises:
            ValueError: If a cell is not of its column's kind; names the column and the row.
        """
        shape = (len(frame), len(columns))
        x, seen = np.empty(shape), np.empty(shape, dtype=bool)
        for place, column in enumerate(columns):
            x[:, place], seen[:, place] = column.encoded(
                frame[column.name], self.missing, self.unseen, where
            )
        return x, seen

    def decoded(
        self, x: Any, seen: Any = None, covariates: Any = None, index: pd.Index | None = None
    ) -> pd.DataFrame:
        """Return numbers as a frame with the columns and the types of the table.

        Columns that the schema leaves out are not there.

        Args:
            x: (rows, columns), the modelled columns in the order of ``modelled``.
            seen: Which of these cells are there, like x; all by default.
            covariates: (rows, values), as ``covariate_values`` returns them.
            index: The index of the rows; they are numbered by default.
        """
        x = np.asarray(x, dtype=float)
        index = pd.RangeIndex(len(x)) if index is None else index
        found: dict[Any, Any] = {}
        for place, column in enumerate(self.modelled):
            there = (
                np.ones(len(x), bool) if seen is None else np.asarray(seen)[:, place].astype(bool)
            )
            found[column.name] = column.decoded(x[:, place], there)
        start = 0
        for column in self.given:
            part = np.asarray(covariates, dtype=float)[:, start : start + column.width]
            found[column.name] = column.of_covariate(part)
            start += column.width
        names = [column.name for column in self.columns if column.name in found]
        made = pd.concat([found[name] for name in names], axis=1) if names else pd.DataFrame()
        made.columns = pd.Index(names, tupleize_cols=False)
        return made.set_axis(index)

    def covariate_values(self, frame: pd.DataFrame, where: str = "data") -> np.ndarray[Any, Any]:
        """Return the covariates of a frame, (rows, values): numbers without unit, indicators.

        Raises:
            ValueError: If a covariate has a missing cell, or one that is not of its kind.
        """
        parts = []
        for column in self.given:
            x, seen = self.encoded(frame, [column], where)
            if not seen.all():
                row = int(np.argmin(seen[:, 0]))
                raise ValueError(
                    f'{where}: column "{column.name}": expected a value in every row of a '
                    f"covariate, got none in {place_of(frame, row)}; leave these rows out, or let "
                    "the model describe the column: take it from covariates="
                )
            parts.append(column.covariate(x[:, 0]))
        return np.concatenate(parts, 1)

    # JSON

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON can hold it; ``of_json`` reads it."""
        return {
            "columns": [column.to_json() for column in self.columns],
            "missing": list(self.missing), "unseen": self.unseen,
            "covariates": list(self.covariates),
        }  # fmt: skip

    @classmethod
    def of_json(cls, content: Any) -> Schema:
        """Return a schema from what ``to_json`` returned, or what a user made of it.

        Raises:
            ValueError: If the content is no schema; names the column at fault.
        """
        try:
            columns = tuple(SchemaColumn.of_json(entry) for entry in content["columns"])
            return cls(
                columns, tuple(content.get("missing", ())), content.get("unseen", "error"),
                tuple(content.get("covariates", ())),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"schema: expected the JSON of a schema, got {error!r}") from error

    def save(self, path: str | Path) -> None:
        """Write the schema to a JSON file, which may be edited and read by ``Schema.load``."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """Return the schema in a JSON file.

        Raises:
            ValueError: If the file holds no schema.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls.of_json(content)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read as a schema: {error}") from error

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        described = len(self.modelled)
        left = sum(column.is_left_out for column in self.columns)
        head = f"schema of {len(self.columns)} columns: {described} described by the model"
        head += f", {len(self.covariates)} covariates" if self.covariates else ""
        head += f", {left} left out" if left else ""
        notes = [Line(f'column "{c.name}": {c.note}', "warning") for c in self.columns if c.note]
        return [
            [Line(head, "title")],
            Table(self.frame),
            *([notes] if notes else []),
        ]  # fmt: skip


def read_schema(
    frame: pd.DataFrame, kinds: Mapping[Any, str], ignore: Sequence[Any], missing: Sequence[Any],
    unseen: str, covariates: Sequence[Any],
) -> Schema:  # fmt: skip
    """Return the schema of a frame; the arguments are those of ``table``."""
    names = column_labels(frame, "data")
    for argument, wanted in (("kinds", kinds), ("ignore", ignore), ("covariates", covariates)):
        if lost := missing_names(map(str, wanted), map(str, names)):
            raise ValueError(f"{argument}: expected columns of the data, got {lost}")
    for name, kind in kinds.items():
        if kind not in KINDS:
            raise ValueError(
                f'kinds: column "{name}": expected one of {", ".join(KINDS)}, got {shown(kind)}'
            )
    if unseen not in UNSEEN:
        raise ValueError(f"unseen: expected {' or '.join(UNSEEN)}, got {shown(unseen)}")
    columns = []
    for name in names:
        wanted_kind = "text" if name in ignore else kinds.get(name)
        column = read_column(frame[name], wanted_kind, missing)
        if name in ignore:
            column = replace(column, kind="ignored", note="")
        columns.append(column)
    schema = Schema(tuple(columns), tuple(missing), unseen, tuple(covariates))
    for column in schema.given:
        if column.is_left_out:
            raise ValueError(
                f'covariates: column "{column.name}": expected numbers or categories, got a column '
                f"of kind {column.kind}; set its kind by kinds="
            )
    if not schema.modelled:
        raise ValueError(
            "data: expected a column that a model can describe, got "
            f"{', '.join(f'{c.name} ({c.kind})' for c in columns[:5])}; set kinds by kinds="
        )
    return schema


def column_labels(frame: pd.DataFrame, where: str) -> list[Any]:
    """Return the names of a frame's columns, each of which must stand once.

    Raises:
        ValueError: If two columns have one name, or there is none.
    """
    names = list(frame.columns)
    if not names:
        raise ValueError(f"{where}: expected columns, got none")
    twice = first_repeated(list(map(str, names)))
    if twice is not None:
        raise ValueError(
            f'{where}: expected a name of its own for each column, got "{twice}" twice; rename one'
        )
    return names
