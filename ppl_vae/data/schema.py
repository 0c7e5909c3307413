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
from ppl_vae.data.column_reading import check_words, read_column
from ppl_vae.data.kinds import KINDS
from ppl_vae.data.plain_columns import place_of, text_of
from ppl_vae.data.schema_columns import SchemaColumn
from ppl_vae.data.schema_json import column_in_json, column_of_json, name_in_json, name_of_json
from ppl_vae.data.selection import first_repeated, listed_names, missing_names
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
        levels: Names of the levels of the columns' labels, one or more; none for one without name.
        label: Name of the labels of the rows; a column of this name is no new column. "" for none.

    Example:
        >>> import tempfile
        >>> from ppl_vae import table
        >>> frame = pd.DataFrame({"age": [31, 45, 28], "city": ["Rome", "Oslo", "Oslo"]})
        >>> schema = table(frame).schema
        >>> schema.named("age").kind, schema.frame["values"].tolist()
        ('count', ['28 to 45', 'Oslo, Rome'])
        >>> schema.save(path := Path(tempfile.mkdtemp()) / "schema.json")
        >>> Schema.load(path) == Schema.of_json(schema.to_json()) == schema
        True
    """

    columns: tuple[SchemaColumn, ...]
    missing: tuple[Any, ...] = ()
    unseen: str = "error"
    covariates: tuple[Any, ...] = field(default=())
    levels: tuple[Any, ...] = ()
    label: str = ""

    @property
    def modelled(self) -> list[SchemaColumn]:
        """The columns that a model describes, those of one kind side by side."""
        left = [c for c in self.columns if not c.is_left_out and not self.is_covariate(c)]
        return sorted(left, key=lambda column: KINDS.index(column.likelihood))

    @property
    def given(self) -> list[SchemaColumn]:
        """The columns that are covariates, in the order of the table."""
        return [column for column in self.columns if self.is_covariate(column)]

    @property
    def given_names(self) -> list[str]:
        """A name for each number of ``covariate_values``: "age", "log pay" or "sex = Male"."""
        names = []
        for column in self.given:
            values = column.categories or [f"{atom + column.offset:g}" for atom in column.atoms]
            of_number = "log " * (column.kind == "positive") + text_of(column.name)
            names += [] if column.is_category else [of_number]
            names += [f"{text_of(column.name)} = {text_of(value)}" for value in values]
        return names

    def is_covariate(self, column: SchemaColumn) -> bool:
        """Return whether a column is given to a model."""
        return text_of(column.name) in map(text_of, self.covariates)

    @property
    def codes(self) -> tuple[Any, ...]:
        """What the numbers of a table depend on: tables with the same codes have the same numbers.

        Two parts of one table may have different means and shares of gaps, and the same codes.
        """
        given = [(column.codes, column.loc, column.scale) for column in self.given]
        return tuple(column.codes for column in self.modelled), tuple(given)

    @property
    def frame(self) -> pd.DataFrame:
        """A line for each column: kind, unit, categories or range, share of missing cells."""
        lines = [column.summary() for column in self.columns]
        for line, column in zip(lines, self.columns, strict=True):
            if self.is_covariate(column):
                line["kind"] += ", covariate"
        names = pd.Index([c.name for c in self.columns], name="column", tupleize_cols=False)
        return pd.DataFrame(lines, index=names)

    @property
    def category_names(self) -> dict[str, list[str]]:
        """The categories of each column that has some, as text, by the text of its name."""
        return {
            str(column.name): list(map(str, column.categories))
            for column in self.columns
            if column.is_category
        }

    def named(self, name: Any) -> SchemaColumn:
        """Return the column of a name.

        Raises:
            ValueError: If there is none.
        """
        names = [text_of(column.name) for column in self.columns]
        if lost := missing_names([text_of(name)], names):
            raise ValueError(f"name: expected a column of the schema, got {lost}")
        return self.columns[names.index(text_of(name))]

    def checked(self, frame: pd.DataFrame, where: str = "data") -> None:
        """Raise ``ValueError`` where a frame has not the columns of the schema.

        Args:
            frame: The frame; columns that the schema leaves out may be absent.
            where: The data's name, for messages.
        """
        names = list(_positions(frame, where))
        known = [text_of(column.name) for column in self.columns]
        needed = [text_of(column.name) for column in self.columns if not column.is_left_out]
        if lost := missing_names(needed, names, taken=known):
            raise ValueError(
                f"{where}: expected the columns of the table that was fitted, got {lost}"
            )
        new = [name for name in names if name not in known and not self.is_label(name)]
        if new:
            raise ValueError(
                f'{where}: column "{new[0]}": expected the columns of the fitted table, '
                f"got {len(new)} more, {listed_names(new)}; drop what the fit did not have"
            )

    def is_label(self, name: Any) -> bool:
        """Return whether a column of this name holds the labels of the rows."""
        return self.label != "" and text_of(name) == self.label

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
        positions = _positions(frame, where)
        for place, column in enumerate(columns):
            cells = frame.iloc[:, positions[text_of(column.name)]]
            x[:, place], seen[:, place] = column.encoded(cells, self.missing, self.unseen, where)
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
        found: dict[str, Any] = {}
        for place, column in enumerate(self.modelled):
            there = (
                np.ones(len(x), bool) if seen is None else np.asarray(seen)[:, place].astype(bool)
            )
            found[text_of(column.name)] = column.decoded(x[:, place], there)
        start = 0
        for column in self.given:
            part = np.asarray(covariates, dtype=float)[:, start : start + column.width]
            found[text_of(column.name)] = column.of_covariate(part)
            start += column.width
        columns = [column for column in self.columns if text_of(column.name) in found]
        made: pd.DataFrame = pd.concat([found[text_of(column.name)] for column in columns], axis=1)
        made.columns = self._labels([column.name for column in columns])
        indexed: pd.DataFrame = made.set_axis(index)
        return indexed

    def _labels(self, names: list[Any]) -> pd.Index:
        """Return names of columns as the labels of a frame, of several levels where they were."""
        if len(self.levels) > 1:
            return pd.MultiIndex.from_tuples(names, names=self.levels)
        name = self.levels[0] if self.levels else None
        dtype = object if None in names else None  # an index of texts would make NaN of None
        labels: pd.Index = pd.Index(names, dtype=dtype, tupleize_cols=False, name=name)
        return labels

    def covariate_values(self, frame: pd.DataFrame, where: str = "data") -> np.ndarray[Any, Any]:
        """Return the covariates of a frame, (rows, values): numbers without unit, indicators.

        Raises:
            ValueError: If a covariate has a missing cell, or one that is not of its kind.
        """
        parts = []
        for column in self.given:
            cells = frame.iloc[:, _positions(frame, where)[text_of(column.name)]]
            x, seen = column.encoded(cells, self.missing, "", where)
            if not seen.all():
                row = int(np.argmin(seen))
                raise ValueError(
                    f'{where}: column "{column.name}": expected a value in every row of a '
                    f"covariate, got none in {place_of(frame, row)}; leave these rows out, or let "
                    "the model describe the column: take it from covariates="
                )
            parts.append(column.covariate(x))
        return np.concatenate(parts, 1)

    # JSON

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON can hold it; ``of_json`` reads it."""
        return {
            "columns": [column_in_json(column) for column in self.columns],
            "missing": [w if isinstance(w, str | int | float) else str(w) for w in self.missing],
            "unseen": self.unseen,
            "covariates": [name_in_json(name) for name in self.covariates],
            "levels": [name_in_json(name) for name in self.levels],
            "label": self.label,
        }  # fmt: skip

    @classmethod
    def of_json(cls, content: Any) -> Schema:
        """Return a schema from what ``to_json`` returned, or what a user made of it.

        Raises:
            ValueError: If the content is no schema; names the column at fault.
        """
        if not isinstance(content, Mapping) or not isinstance(content.get("columns"), list):
            raise ValueError(f'schema: expected {{"columns": [...]}}, got {shown(content)}')
        lists = {key: content.get(key, []) for key in ("missing", "covariates", "levels")}
        for key, value in lists.items():
            if not isinstance(value, list):
                raise ValueError(f"schema: {key}: expected a list, got {shown(value)}")
        schema = cls(
            tuple(map(column_of_json, content["columns"])), tuple(lists["missing"]),
            content.get("unseen", "error"), tuple(map(name_of_json, lists["covariates"])),
            tuple(map(name_of_json, lists["levels"])), text_of(content.get("label", "")),
        )  # fmt: skip
        schema._check()
        return schema

    def _check(self) -> None:
        """Raise ``ValueError`` where the parts of a schema do not fit together."""
        check_words(self.missing)
        if not isinstance(self.unseen, str) or self.unseen not in UNSEEN:
            raise ValueError(f"unseen: expected {' or '.join(UNSEEN)}, got {shown(self.unseen)}")
        names = [text_of(column.name) for column in self.columns]
        if twice := first_repeated(names):
            raise ValueError(f'columns: expected each name once, got "{twice}" twice')
        if lost := missing_names(map(text_of, self.covariates), names):
            raise ValueError(f"covariates: expected columns of the data, got {lost}")
        for column in self.given:
            if column.is_left_out:
                raise ValueError(
                    f'covariates: column "{column.name}": expected numbers or categories, got a '
                    f"column of kind {column.kind}; set its kind by kinds="
                )
        if not self.modelled:
            raise ValueError(
                "data: expected a column that a model can describe, got "
                f"{', '.join(f'{c.name} ({c.kind})' for c in self.columns[:5])}; set kinds by "
                "kinds="
            )

    def completed(self, frame: pd.DataFrame) -> Schema:
        """Return the schema with the columns read from a frame of which it says only the kind.

        Raises:
            ValueError: If a cell is not of its column's kind; names the column and the row.
        """
        if all(column.is_read for column in self.columns):
            return self
        positions, columns = _positions(frame, "data"), []
        for column in self.columns:
            if not column.is_read:
                cells = frame.iloc[:, positions[text_of(column.name)]]
                column = read_column(cells, column.kind, self.missing)  # noqa: PLW2901
            columns.append(column)
        schema = replace(self, columns=tuple(columns))
        schema._check()
        return schema

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
        given = len(self.covariates)
        head += f", {given} covariate{'s' if given > 1 else ''}" if given else ""
        head += f", {left} left out" if left else ""
        notes = [Line(f'column "{c.name}": {c.note}', "warning") for c in self.columns if c.note]
        blocks: list[Block] = [[Line(head, "title")], Table(self.frame)]
        return [*blocks, notes] if notes else blocks


def read_schema(
    frame: pd.DataFrame, kinds: Mapping[Any, str], ignore: Sequence[Any], missing: Sequence[Any],
    unseen: str, covariates: Sequence[Any],
) -> Schema:  # fmt: skip
    """Return the schema of a frame; the arguments are those of ``table``."""
    positions = _positions(frame, "data")
    of_kind = {text_of(name): kind for name, kind in kinds.items()}
    ignored = list(map(text_of, ignore))
    for argument, named in (("kinds", of_kind), ("ignore", ignored)):
        if lost := missing_names(named, positions):
            raise ValueError(f"{argument}: expected columns of the data, got {lost}")
    for name, kind in of_kind.items():
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(
                f'kinds: column "{name}": expected one of {", ".join(KINDS)}, got {shown(kind)}'
            )
        if name in ignored:
            raise ValueError(f'ignore: column "{name}": expected no kind beside it, got {kind}')
    check_words(missing)
    columns = []
    for name, position in positions.items():
        wanted = "text" if name in ignored else of_kind.get(name)
        column = read_column(frame.iloc[:, position], wanted, missing)
        if name in ignored:
            column = replace(column, kind="ignored", note="")
        columns.append(column)
    labels = frame.columns
    levels = tuple(labels.names) if labels.nlevels > 1 or labels.name is not None else ()
    label = "" if frame.index.name is None else text_of(frame.index.name)
    schema = Schema(tuple(columns), tuple(missing), unseen, tuple(covariates), levels, label)
    schema._check()
    return schema


def _positions(frame: pd.DataFrame, where: str) -> dict[str, int]:
    """Return where the columns of a frame stand, by name; each name must stand once.

    Raises:
        ValueError: If two columns have one name, or there is none.
    """
    names = list(map(text_of, frame.columns))
    if not names:
        raise ValueError(f"{where}: expected columns, got none")
    twice = first_repeated(names)
    if twice is not None:
        raise ValueError(
            f'{where}: expected a name of its own for each column, got "{twice}" twice; rename one'
        )
    return {name: position for position, name in enumerate(names)}
