"""The columns that a model or a guide was fitted to, and data in the order of those columns.

A model takes a frame as one tensor, so that a column is known by its position alone. The same
table read back with its columns in another order would give numbers, and they would be wrong.
``remember`` therefore stores the names of the columns when a model or a guide is fitted, and
``column_order`` finds the same columns in every later frame, and in ``NamedFields``, as sequences
that were read from a frame are.
"""

from __future__ import annotations

import contextlib
import difflib
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

Columns = dict[str, list[Any]]
"""Names of the columns of each field that has names, by the field's name (``owner_of_columns``)."""


class TableColumns(dict[str, list[Any]]):
    """Names of the columns of each field (``Columns``), with the schema of the table.

    Args:
        columns: The names.
        schema: The schema (``data.schema.Schema``); ``None`` for data that are no table.
    """

    def __init__(self, columns: Mapping[str, list[Any]], schema: Any = None) -> None:
        super().__init__(columns)
        self.schema = schema


def schema_of(columns: Columns) -> Any:
    """Return the schema that comes with the names of columns; ``None`` where there is none."""
    return columns.schema if isinstance(columns, TableColumns) else None


class NamedFields(dict[str, Any]):
    """A mapping of fields in which the columns of arrays have names, as those of a frame have.

    The columns are the last dimension of an array. A copy, ``{**fields}``, is an ordinary mapping
    without names, whose columns are taken by position.

    Args:
        fields: The fields, by name.
        columns: Names of the columns, by the name of the field (``owner_of_columns``).
        index: Labels of the rows, where no field has them.

    Example:
        >>> NamedFields({"x": [[1, 2]]}, {"x": ["height", "weight"]}).names_of("seen")
        ['height', 'weight']
    """

    def __init__(
        self, fields: Mapping[str, Any], columns: Columns, index: pd.Index | None = None
    ) -> None:
        super().__init__(fields)
        self.columns, self.index = columns, index

    def copy(self) -> NamedFields:
        """Return a copy with the names, and with the same arrays."""
        return NamedFields(self, self.columns, self.index)

    def __or__(self, other: Any) -> Any:
        """Return the fields with those of another mapping, with the names."""
        joined = super().__or__(other)
        if joined is NotImplemented:
            return joined
        columns = {**self.columns, **getattr(other, "columns", {})}
        return NamedFields(joined, columns, self.index)

    def names_of(self, field: str) -> list[Any] | None:
        """Return the names of a field's columns; ``None`` where it has none."""
        return self.columns.get(owner_of_columns(field))


def owner_of_columns(field: str, source: str = "tensor") -> str:
    """Return the field under which the names of a field's columns are stored.

    The field ``seen`` of sequences says which values of ``x`` are there: its columns are those of
    ``x``, so that the two are never put into different orders.

    Args:
        field: Name of the field.
        source: In which form the field came (see ``Field``); a frame has names of its own.
    """
    return "x" if field == "seen" and source != "frame" else field


# The columns that each model and guide was fitted to, by owner and by the method's name ("" for a
# function or a module). The references to owners are weak: the names go when the owner goes.
_FITTED: weakref.WeakKeyDictionary[Any, dict[str, Columns]] = weakref.WeakKeyDictionary()


# The fields that each model was fitted with, by owner and by the method's name, and whether
# each is an optional covariate.
_FIELDS: weakref.WeakKeyDictionary[Any, dict[str, dict[str, bool]]] = weakref.WeakKeyDictionary()


def remember_fields(owner: Any, fields: Mapping[str, bool], method: str = "") -> None:
    """Store the fields that a model was fitted with, in place of older ones.

    Args:
        owner: The model, or the object whose bound method it is.
        fields: Whether each field is an optional covariate, by the field's name.
        method: Name of the bound method; "" for a function or a module.
    """
    with contextlib.suppress(TypeError):
        _FIELDS.setdefault(owner, {})[method] = dict(fields)


def remembered_fields(owner: Any, method: str = "") -> dict[str, bool] | None:
    """Return the fields that a model was fitted with, as stored; ``None`` where none were."""
    return _FIELDS.get(owner, {}).get(method)


def remember(owner: Any, columns: Columns, method: str = "") -> None:
    """Store the columns that a model or a guide was fitted to.

    Columns of fields without names in the new data are stored on; columns of the same field are
    replaced, and so is the schema. An owner that cannot be referred to weakly has nothing stored.

    Args:
        owner: The model or the guide, or the object whose bound method it is.
        columns: The names of the columns, by field.
        method: Name of the bound method; "" for a function or a module.
    """
    with contextlib.suppress(TypeError):
        known = _FITTED.setdefault(owner, {})
        known[method] = TableColumns({**known.get(method, {}), **columns}, schema_of(columns))


def remembered(owner: Any, method: str = "") -> Columns:
    """Return the columns that a model or a guide was fitted to; empty where none were stored."""
    return _FITTED.get(owner, {}).get(method, {})


def column_names(labels: pd.Index) -> list[Any]:
    """Return the labels of columns as JSON can hold them: integers as they are, others as text.

    Example:
        >>> column_names(pd.Index(["height", 2, ("z", "mean")], tupleize_cols=False))
        ['height', 2, "('z', 'mean')"]
    """
    return [label if isinstance(label, int) else str(label) for label in labels.tolist()]


def column_order(
    labels: pd.Index, fitted: Sequence[list[Any]], where: str = "data"
) -> list[int] | None:
    """Return the positions, in a frame, of the columns that a pair was fitted to.

    Columns that the pair was not fitted to are left out, as in a data file. A frame that has no
    name in common with the fit has names of another kind, and its columns are taken by position,
    like those of an array; so are columns that pandas numbered because they had no names.

    Args:
        labels: The labels of the frame's columns.
        fitted: The names of the columns that the model was fitted to, and those of the guide,
            where they are known.
        where: The data's name in errors.

    Returns:
        A position for each column of the fit; ``None`` where the frame is to be taken as it is.

    Raises:
        ValueError: If the frame has some of the columns of the fit and not all of them, if names
            that are needed stand for several columns, or if the model and the guide were fitted
            to the same columns in different orders.

    Example:
        >>> column_order(pd.Index(["weight", "height"]), [["height", "weight"]])
        [1, 0]
    """
    names = column_names(labels)
    orders = [_order_for(names, wanted, where) for wanted in fitted if set(names) & set(wanted)]
    known = [order for order in orders if order is not None]
    if any(order != known[0] for order in known):
        raise ValueError(
            f"{where}: expected a model and a guide that were fitted to the same columns in one "
            f"order, got {fitted[0][:9]} and {fitted[1][:9]}; fit them together"
        )
    return None if not known or known[0] == list(range(len(names))) else known[0]


def _order_for(names: list[Any], wanted: list[Any], where: str) -> list[int] | None:
    """Return the position in ``names`` of each wanted name; ``None`` for columns by position."""
    if names == wanted:
        return list(range(len(names)))
    if set(names) != set(wanted) and names == list(range(len(names))):
        return None  # numbers that pandas gave
    first_positions = _first_positions(names)
    missing = [name for name in wanted if name not in first_positions]
    if missing:
        raise ValueError(_missing_columns(missing, names, wanted, where))
    counts, wanted_counts = Counter(names), Counter(wanted)
    several = [name for name in wanted if counts[name] > 1 or wanted_counts[name] > 1]
    if several:
        raise ValueError(
            f"{where}: expected one column of each name, got several called {_quoted(several[:1])} "
            "in another order than the fit's; give each column a name of its own before the fit"
        )
    return [first_positions[name] for name in wanted]


def _first_positions(names: list[Any]) -> dict[Any, int]:
    """Return the position at which each name stands first."""
    return {name: position for position, name in reversed(list(enumerate(names)))}


def _missing_columns(missing: list[Any], names: list[Any], wanted: list[Any], where: str) -> str:
    """Return the message that a frame lacks columns of the fit."""
    near = difflib.get_close_matches(str(missing[0]), [str(name) for name in names], cutoff=0.5)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        f"{where}: expected the columns that the model and the guide were fitted to, got none "
        f"called {_quoted(missing[:5])}{more}{hint}; add them, or pass an array, "
        f"frame.to_numpy(), with the {len(wanted)} columns in the fit's order; to fit other "
        "columns, make a new model and guide"
    )


def _quoted(names: list[Any]) -> str:
    """Return names in quotation marks, with commas."""
    return ", ".join(f'"{name}"' for name in names)
