"""Which columns of a table in a file are read: features, columns left out, labels of the rows."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ppl_vae.arguments import names_in, shown
from ppl_vae.data.text import text_of_spreadsheet

SHOWN = 5
"""How many names or faults a message lists, at most."""

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
"""A whole number that is written as Python writes it, and that 64 bits hold."""


class ColumnChoiceError(ValueError):
    """A choice of columns that is wrong by itself, or that names a column which a file lacks."""


@dataclass(frozen=True)
class ColumnChoice:
    """Which columns of a table are read, by name.

    Attributes:
        columns: The columns to read, in this order; ``None`` for all.
        drop: Columns to leave out.
        index: The column that holds the labels of the rows; ``None`` for none.
        like: A frame, whose columns are read; anything else says nothing of columns.
    """

    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    index: str | None = None
    like: Any = None

    @classmethod
    def of(cls, columns: Any, drop: Any, index: Any, like: Any) -> ColumnChoice:
        """Make a choice of the arguments of ``read_data``.

        Raises:
            ColumnChoiceError: If an argument is no name or names, or if two of them contradict
                each other.
        """
        listed = {
            name: None if value is None else tuple(names_in(name, value))
            for name, value in (("columns", columns), ("drop", drop))
        }
        for name, value in (*listed.items(), ("index", None if index is None else (index,))):
            wrong = [part for part in value or () if not isinstance(part, str)]
            if wrong:
                raise ColumnChoiceError(f"{name}: expected names of columns, got {shown(wrong[0])}")
        chosen = listed["columns"]
        if chosen is not None:
            if not chosen:
                raise ColumnChoiceError("columns: expected at least one name, got none")
            if repeated := first_repeated(chosen):
                raise ColumnChoiceError(f'columns: expected each name once, got "{repeated}" twice')
            for name, others in (("drop", listed["drop"] or ()), ("index", (index,))):
                if both := [column for column in others if column in chosen]:
                    raise ColumnChoiceError(
                        f'{name}: expected other names than those of columns, got "{both[0]}"'
                    )
        if index is not None and index in (listed["drop"] or ()):
            raise ColumnChoiceError(f'index: expected a column that is not left out, got "{index}"')
        return cls(chosen, listed["drop"] or (), index, like)

    @property
    def is_given(self) -> bool:
        """Whether columns were chosen at all, which a file of arrays cannot have."""
        return self.columns is not None or bool(self.drop) or self.index is not None

    def features(self, names: Sequence[str], where: str, labels: Any = None) -> list[str]:
        """Return the names of the columns to read as numbers, in their order.

        Args:
            names: The names of the file's columns, each once.
            where: The file.
            labels: The name of the row labels that are no column, as a Parquet file may have them.

        Raises:
            ColumnChoiceError: If the file lacks a column of the choice.
            ValueError: If the file lacks a column of ``like``, or if no column is left.
        """
        index = () if self.index in (None, labels) else (self.index,)
        for argument, chosen in (("columns", self.columns), ("drop", self.drop), ("index", index)):
            if missing := missing_names(chosen or (), names):
                raise ColumnChoiceError(f"{argument}: expected columns of {where}, got {missing}")
        if isinstance(self.like, pd.DataFrame):
            wanted = [str(column) for column in self.like.columns]
            present = self.columns or [name for name in names if name not in self.drop]
            if missing := missing_names(wanted, present):
                raise ValueError(f"{where}: expected the run's columns, got {missing}")
            return wanted
        left_out = {*self.drop, self.index}
        left = list(self.columns or (name for name in names if name not in left_out))
        if not left:
            raise ValueError(f"{where}: expected at least one column of numbers, got none")
        return left


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that stands twice; ``None`` where there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def missing_names(wanted: Iterable[str], present: Iterable[str]) -> str:
    """Return which wanted names are missing, with close names as hint; "" where none is.

    Example:
        >>> missing_names(["height"], ["heigth", "age"])
        'none called "height"; did you mean heigth?'
    """
    known = dict.fromkeys(present)
    missing = [name for name in wanted if name not in known]
    if not missing:
        return ""
    near = difflib.get_close_matches(missing[0], list(known), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"none called {listed_names(missing)}{hint}"


def listed_names(names: Sequence[str]) -> str:
    """Return the first names in quotation marks, and how many there are more.

    Example:
        >>> listed_names(["a", "b"]), listed_names(list("abcdefg"))
        ('"a", "b"', '"a", "b", "c", "d", "e" and 2 more')
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f'"{name}"' for name in names[:SHOWN]) + more


def row_labels(values: pd.Series, where: str, place: Callable[[int], str]) -> pd.Index:
    """Return a column as the labels of the rows: whole numbers, or text as it stands in the file.

    A text such as ``007`` stays a text, so that the labels can be joined to other tables.

    Args:
        values: The column; of a CSV file as text.
        where: The file.
        place: Tells where a row stands in the file, for messages.

    Raises:
        ValueError: If a row has no label.

    Warns:
        UserWarning: Where several rows have one label.
    """
    missing = (values.isna() | (values.astype(object) == "")).to_numpy()
    if missing.any():
        row = place(int(missing.argmax()))
        raise ValueError(
            f'{where}: index: expected a label in every row of column "{values.name}", got none in '
            f"{row} ({int(missing.sum())} of {len(values)} rows have none)"
        )
    if repeated := int(values.duplicated().sum()):
        first = place(int(values.duplicated().to_numpy().argmax()))
        warnings.warn(
            f'{where}: column "{values.name}" labels {repeated} rows like an earlier row, the '
            f"first in {first}; such rows cannot be told apart by their label",
            stacklevel=2,
        )
    listed = values.tolist()
    if all(isinstance(value, str) for value in listed):
        whole = all(_WHOLE.fullmatch(value) and value != "-0" for value in listed)
        listed = [int(v) if whole else text_of_spreadsheet(v) for v in listed]
    labels: pd.Index = pd.Index(listed, name=values.name)
    return labels
