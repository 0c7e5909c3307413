"""Files of mixed tables for the commands: text, counts, dates and gaps, by options of ``fit``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae.cli.console import UsageError
from ppl_vae.zoo.catalog import find_class

if TYPE_CHECKING:
    from ppl_vae.data.mixed_tables import Table


@dataclass(frozen=True)
class TableOptions:
    """How the columns of a mixed table are read, as the options say.

    Attributes:
        kinds: The kind of a column, by name.
        ignore: Columns to leave out.
        missing: Texts that stand for a missing value.
        covariates: Columns that the model is given and does not describe.
        unseen: ``"error"`` or ``"missing"``.
        schema: A JSON file with a schema; ``None`` to read the schema from the data.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    unseen: str = "error"
    schema: Path | None = None

    @classmethod
    def of(
        cls, kinds: Sequence[str] | None, ignore: Sequence[str] | None,
        missing: Sequence[str] | None, covariates: Sequence[str] | None,
        schema: Path | None, *, unseen_missing: bool,
    ) -> TableOptions:  # fmt: skip
        """Return the options; ``kinds`` are words of the form ``COLUMN=KIND``.

        Raises:
            UsageError: If a word has another form, or options stand beside a schema.
        """
        found = {}
        for word in kinds or ():
            name, equals, kind = word.rpartition("=")
            if not equals or not name or not kind:
                raise UsageError(f"--kind: expected COLUMN=KIND, such as age=count, got {word}")
            found[name] = kind
        options = cls(
            found, tuple(ignore or ()), tuple(missing or ()), tuple(covariates or ()),
            "missing" if unseen_missing else "error", schema,
        )  # fmt: skip
        if schema is not None and options != cls(schema=schema):
            raise UsageError("--schema: expected no other option of columns beside it")
        return options

    def are_wanted(self, model: str) -> bool:
        """Return whether the data of a model are a mixed table: options say so, or the model does.

        Args:
            model: Name of the zoo, or ``file.py:Class``.
        """
        if self != TableOptions():
            return True
        try:
            cls = find_class(model, "models")
        except ValueError:  # whoever builds the pair says why
            return False
        return "columns" in inspect.signature(cls).parameters

    def read(
        self, path: Path, *, columns: Sequence[str] | None, drop: Sequence[str] | None,
        label: str | None,
    ) -> Table:  # fmt: skip
        """Return the table in a file; the arguments are those of ``pairs.read``.

        Raises:
            UsageError: If there is no such file or column.
            ValueError: If the file cannot be read, or a cell is not of its column's kind.
        """
        from ppl_vae.data.files import check_exists, read_frame  # noqa: PLC0415  loads pandas
        from ppl_vae.data.mixed_tables import table  # noqa: PLC0415  loads torch
        from ppl_vae.data.schema import Schema  # noqa: PLC0415  loads torch
        from ppl_vae.data.selection import ColumnChoiceError  # noqa: PLC0415  loads pandas

        try:
            check_exists(path)
            frame = read_frame(path, columns=columns or None, drop=drop, index=label)
        except ColumnChoiceError as error:
            raise UsageError(str(error)) from error
        try:
            if self.schema is not None:
                return table(frame, schema=Schema.load(self.schema))
            return table(
                frame, kinds=self.kinds, ignore=self.ignore, missing=self.missing,
                covariates=self.covariates, unseen=self.unseen,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def without_kept(choice: dict[str, Any], example: Any, keep: Sequence[str]) -> dict[str, Any]:
    """Return the choice of columns of a file without those that are only handed on.

    A column that goes from the data to the results need not be one of the table that was fitted.

    Args:
        choice: The arguments ``columns``, ``drop`` and ``fields`` of ``pairs.read``.
        example: Rows in the form of the run's data; of other data than a mixed table, the choice is
            returned as it is.
        keep: The columns that are handed on.
    """
    schema = getattr(example, "schema", None)
    if schema is None or choice["columns"]:
        return choice
    known = {str(column.name) for column in schema.columns}
    dropped = list(choice["drop"] or ())
    extra = [name for name in keep if name not in known and name not in dropped]
    return {**choice, "drop": dropped + extra}
