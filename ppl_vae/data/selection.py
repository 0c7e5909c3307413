"""Which columns of a table in a file are read: features, columns left out, labels of the rows.

A column may also be a field of its own, beside the field ``x`` of the features:

    fields={"size": "library"}    ->    {"x": the other columns, "size": the column library}

The run of a fit to such data stores the names, by which the columns of a later file are found.
"""

from __future__ import annotations

import difflib
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import names_in, shown
from ppl_vae.safe_text import text_of_spreadsheet

FEATURES = "x"
"""Name of the field with the columns, or the one array, that no other field has."""

SHOWN = 5
"""How many names or faults a message lists, at most."""

_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")
"""A whole number that is written as Python writes it, and that 64 bits hold."""


class ColumnChoiceError(ValueError):
    """A choice of columns that is wrong by itself, or that names a column which a file lacks."""


@dataclass(frozen=True)
class ColumnChoice:
    """Which columns of a table, or arrays of a file, are read as what, by name.

    Attributes:
        columns: The columns to read as features, in this order; ``None`` for all.
        drop: Columns to leave out.
        index: The column that holds the labels of the rows; ``None`` for none.
        fields: The columns or arrays that are fields of their own, by the field's name.
        like: Rows in the form of the result, from which columns and fields take their names.
        repeats: Whether rows may share a label, as the steps of a sequence do.
        mixed: Whether the columns are read as they are, texts and dates as well.
    """

    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    index: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    like: Any = None
    repeats: bool = False
    mixed: bool = False

    @classmethod
    def of(
        cls, columns: Any, drop: Any, index: Any, fields: Any, like: Any, *, mixed: bool = False
    ) -> ColumnChoice:
        """Make a choice of the arguments of ``read_data``; ``like`` may be a mixed table.

        Raises:
            ColumnChoiceError: If an argument is no name or names, or if two of them contradict
                each other.
        """
        if not isinstance(fields, Mapping | None):
            raise ColumnChoiceError(f'fields: expected {{"field": "column"}}, got {shown(fields)}')
        given = {"columns": columns, "drop": drop, "fields": list((fields or {}).values())}
        listed = {
            name: None if value is None else tuple(names_in(name, value))
            for name, value in given.items()
        }
        listed["index"] = None if index is None else (index,)
        for name, value in (*listed.items(), ("fields", tuple(fields or ()))):
            wrong = [part for part in value or () if not isinstance(part, str) or part == ""]
            if wrong:
                raise ColumnChoiceError(f"{name}: expected names of columns, got {shown(wrong[0])}")
        chosen = listed["columns"]
        if chosen is not None:
            if not chosen:
                raise ColumnChoiceError("columns: expected at least one name, got none")
            if repeated := first_repeated(chosen):
                raise ColumnChoiceError(f'columns: expected each name once, got "{repeated}" twice')
        for name, other in itertools.combinations(("columns", "drop", "index", "fields"), 2):
            both = [column for column in listed[other] or () if column in (listed[name] or ())]
            if both:
                raise ColumnChoiceError(
                    f'{other}: expected other names than those of {name}, got "{both[0]}"'
                )
        mixed = mixed or hasattr(like, "schema")
        return cls(chosen, listed["drop"] or (), index, dict(fields or {}), like, mixed=mixed)

    @property
    def is_given(self) -> bool:
        """Whether columns were chosen at all, which a file of arrays cannot have."""
        return self.columns is not None or bool(self.drop) or self.index is not None

    def features(self, names: Sequence[str], where: str, labels: Any = None) -> list[str]:
        """Return the names of the columns to read as numbers, those of fields last.

        Args:
            names: The names of the file's columns, each once.
            where: The file.
            labels: The name of the row labels that are no column, as a Parquet file may have them.

        Raises:
            ColumnChoiceError: If the file lacks a column of the choice.
            ValueError: If the file lacks a column of ``like``, or if no column is left.
        """
        index = () if self.index in (None, labels) else (self.index,)
        chosen = {"columns": self.columns, "drop": self.drop, "index": index}
        for argument, wanted in (chosen | {"fields": self.fields.values()}).items():
            if missing := missing_names(wanted or (), names):
                raise ColumnChoiceError(f"{argument}: expected columns of {where}, got {missing}")
        of_fields = list(dict.fromkeys(self.sources(names).values()))
        like = self._features_like()
        if like is not None:
            features = [str(column) for column in like.columns]
            present = [*self.columns, *of_fields] if self.columns else set(names) - set(self.drop)
            if missing := missing_names([*features, *of_fields], present):
                raise ValueError(f"{where}: expected the run's columns, got {missing}")
        else:
            left_out = {*self.drop, self.index, *of_fields}
            features = list(self.columns or (name for name in names if name not in left_out))
            if missing := missing_names(of_fields, names):
                raise ValueError(f"{where}: expected the run's columns, got {missing}")
        if not features:
            what = "column" if self.mixed else "column of numbers"
            raise ValueError(f"{where}: expected at least one {what}, got none")
        return features + [name for name in of_fields if name not in features]

    def sources(self, names: Iterable[str]) -> dict[str, str]:
        """Return which column or array each field is read from, by the field's name.

        A field of ``like`` that is a series is found by the name of the series, which is the name
        that its column had, and other fields of one number a row by the name of the field.

        Args:
            names: The names of the file's columns or arrays.
        """
        found, present = dict(self.fields), set(names)
        for key, part in self.like.items() if isinstance(self.like, Mapping) else ():
            if key not in found and getattr(part, "ndim", 0) == 1:
                label = str(getattr(part, "name", None) or key)
                found[key] = key if key in present and label not in present else label
        return found

    def split(self, frame: pd.DataFrame) -> Any:
        """Return the columns that were read, those of fields apart; a frame where there are none.

        Raises:
            ColumnChoiceError: If a field has the name of the field of features.
        """
        sources = self.sources(frame.columns)
        if not sources:
            return frame
        like = self.like.items() if isinstance(self.like, Mapping) else ()
        rest = next((key for key, part in like if getattr(part, "ndim", 0) != 1), FEATURES)
        if rest in sources:
            raise ColumnChoiceError(
                f'fields: expected another name than "{rest}", which the other columns have, got '
                f'"{rest}"'
            )
        wanted = self._features_like()
        left = frame.drop(columns=list(sources.values()))
        left = left if wanted is None else frame[[str(column) for column in wanted.columns]]
        return {rest: left, **{key: frame[column] for key, column in sources.items()}}

    def split_arrays(self, arrays: dict[str, Any], where: str) -> dict[str, Any]:
        """Return arrays with those of fields under the names of their fields.

        An array of one number a row becomes a series, which has the name that the array had. Where
        one other array is left, its field is called ``x``.

        Args:
            arrays: The arrays of a file, by name.
            where: The file.

        Raises:
            ColumnChoiceError: If the file lacks an array of the choice, or two arrays would have
                one name.
        """
        if missing := missing_names(self.fields.values(), arrays):
            raise ColumnChoiceError(f"fields: expected arrays of {where}, got {missing}")
        sources = {key: name for key, name in self.sources(arrays).items() if name in arrays}
        if not sources:
            return arrays
        rest = {name: array for name, array in arrays.items() if name not in sources.values()}
        if len(rest) == 1 and FEATURES not in {*rest, *sources}:
            rest = dict.fromkeys([FEATURES], *rest.values())
        if both := [key for key in sources if key in rest]:
            raise ColumnChoiceError(
                f'fields: expected another name than that of an array of {where}, got "{both[0]}"'
            )
        return rest | {key: _named(arrays[name], key, name) for key, name in sources.items()}

    def _features_like(self) -> pd.DataFrame | None:
        """Return the frame of features in ``like``; ``None`` where there is none."""
        parts = list(self.like.values()) if isinstance(self.like, Mapping) else [self.like]
        frames = [part for part in parts if _is_table(part)]
        return frames[0] if len(frames) == 1 else None


def _named(array: Any, key: str, name: str) -> Any:
    """Return an array of one number a row as a series, where its name is not that of its field."""
    return pd.Series(array, name=name) if np.ndim(array) == 1 and key != name else array


def _is_table(values: Any) -> bool:
    """Return whether values are a frame, or a table that is read from files as one is."""
    return isinstance(getattr(values, "columns", None), pd.Index) and values.ndim == 2


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that stands twice; ``None`` where there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def missing_names(wanted: Iterable[str], present: Iterable[str], taken: Iterable[str] = ()) -> str:
    """Return which wanted names are missing, with close names as hint; "" where none is.

    Args:
        wanted: The names that are needed.
        present: The names that there are.
        taken: Names that are never a hint, because they have a place of their own.

    Example:
        >>> missing_names(["height"], ["heigth", "age"])
        'none called "height"; did you mean heigth?'
        >>> missing_names(["year 1"], ["year 2"], taken=["year 1", "year 2"])
        'none called "year 1"'
    """
    known = dict.fromkeys(present)
    missing = [name for name in wanted if name not in known]
    if not missing:
        return ""
    others = [name for name in known if name not in set(taken)]
    near = difflib.get_close_matches(missing[0], others, n=3, cutoff=0.5)
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


def row_labels(
    values: pd.Series, where: str, place: Callable[[int], str], *, repeats: bool = False
) -> pd.Index:
    """Return a column as the labels of the rows: whole numbers, or text as it stands in the file.

    A text such as ``007`` stays a text, so that the labels can be joined to other tables.

    Args:
        values: The column; of a CSV file as text.
        where: The file.
        place: Tells where a row stands in the file, for messages.
        repeats: Whether several rows may have one label.

    Raises:
        ValueError: If a row has no label.

    Warns:
        UserWarning: Where several rows have one label and must not.
    """
    is_number = pd.api.types.is_numeric_dtype(values)
    missing = (values.isna() if is_number else values.isna() | (values == "")).to_numpy()
    if missing.any():
        row = place(int(missing.argmax()))
        raise ValueError(
            f'{where}: index: expected a label in every row of column "{values.name}", got none in '
            f"{row} ({int(missing.sum())} of {len(values)} rows have none)"
        )
    if not repeats and (repeated := int(values.duplicated().sum())):
        first = place(int(values.duplicated().to_numpy().argmax()))
        warnings.warn(
            f'{where}: column "{values.name}" labels {repeated} rows like an earlier row, the '
            f"first in {first}; such rows cannot be told apart by their label",
            stacklevel=2,
        )
    if is_number:
        numbers: pd.Index = pd.Index(values, name=values.name)
        return numbers
    listed = values.tolist()
    if all(isinstance(value, str) for value in listed):
        whole = all(_WHOLE.fullmatch(value) and value != "-0" for value in listed)
        listed = [int(v) if whole else text_of_spreadsheet(v) for v in listed]
    labels: pd.Index = pd.Index(listed, name=values.name)
    return labels


def check_one_order(indices: Sequence[pd.Index], name: str) -> None:
    """Raise ``ValueError`` where two fields have the same labels of rows in different orders.

    Args:
        indices: The labels of each field that has labels.
        name: The data's name.
    """
    for index in indices[1:]:
        first = indices[0]
        if not index.equals(first) and index.is_unique and index.isin(first).all():
            row = int((np.asarray(index) != np.asarray(first)).argmax())
            raise ValueError(
                f"{name}: expected fields whose rows are in one order, got the labels of one in "
                f"another order than those of the first field (row {row}: {index[row]} beside "
                f"{first[row]}); bring one into the order of the other, y.loc[x.index], or pass "
                "y.to_numpy() where the order is meant"
            )
