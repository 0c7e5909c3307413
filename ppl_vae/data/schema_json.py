"""Columns of a schema as JSON, which a user may edit: what does not fit is refused by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ppl_vae.arguments import shown
from ppl_vae.data.kinds import CATEGORIES, KINDS, NUMBERS
from ppl_vae.data.plain_columns import of_python, text_of
from ppl_vae.data.schema_columns import SchemaColumn
from ppl_vae.data.times import UNITS

FIELDS = (
    "name", "kind", "dtype", "unit", "form", "offset", "categories", "lower", "upper", "atoms",
    "loc", "scale", "gaps", "note",
)  # fmt: skip

OF_NUMBERS = ("offset", "loc", "scale", "gaps")
RANGE = ("lower", "upper")

READ_AS = "read_as"
"""The kind that the range, the categories and the scale of a column were read for."""


def name_in_json(name: Any) -> Any:
    """Return the name of a column as JSON can hold it; a tuple is a list there, most others text.

    Example:
        >>> name_in_json(("height", 2)), name_in_json(2.5)
        (['height', 2], '2.5')
    """
    name = of_python(name)
    if isinstance(name, tuple):
        return [name_in_json(part) for part in name]
    return name if type(name) in (str, int) else text_of(name)


def name_of_json(name: Any) -> Any:
    """Return the name of a column from what ``name_in_json`` returned."""
    return tuple(map(name_of_json, name)) if isinstance(name, list) else name


def column_in_json(column: SchemaColumn) -> dict[str, Any]:
    """Return a column as JSON can hold it."""
    entry = {name: getattr(column, name) for name in FIELDS}
    entry["name"] = name_in_json(column.name)
    entry["categories"], entry["atoms"] = list(column.categories), list(column.atoms)
    return {**entry, READ_AS: column.kind}


def column_of_json(entry: Any) -> SchemaColumn:
    """Return a column from what ``column_in_json`` returned, or what a user made of it.

    Where the kind is another than the one that the column was read for, or the range is not there,
    the column is one that is still to be read (``SchemaColumn.is_read``).

    Raises:
        ValueError: If an entry does not fit; names the column and the entry.
    """
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ValueError(f'columns: expected {{"name": ..., "kind": ...}}, got {shown(entry)}')
    known = {name: entry[name] for name in FIELDS if name in entry}
    known["name"] = name_of_json(known["name"])
    known.setdefault("dtype", "object")
    kind = known.get("kind")
    _check(known["name"], "kind", kind in (*KINDS, "ignored"), f"one of {', '.join(KINDS)}", kind)
    if entry.get(READ_AS, kind) != kind:
        known = {name: known[name] for name in ("name", "kind", "dtype", "form", "gaps")
                 if name in known} | _categories_kept(entry, str(kind))  # fmt: skip
    elif kind in NUMBERS and not set(RANGE) | {"loc", "scale"} <= set(known):
        known = {name: known[name] for name in ("name", "kind", "dtype", "form") if name in known}
    _check_entries(known)
    known["categories"] = tuple(known.get("categories", ()))
    known["atoms"] = tuple(map(float, known.get("atoms", ())))
    return SchemaColumn(**known)


def _categories_kept(entry: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the categories of a column whose kind a user has changed to another of categories."""
    return {"categories": entry.get("categories", [])} if kind in CATEGORIES else {}


def _check_entries(known: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for the first entry of a column that does not fit."""
    name, kind = known["name"], known["kind"]
    is_name = isinstance(name, str | int | tuple) and not isinstance(name, bool)
    _check(name, "name", is_name, "a text, a whole number or a list of them", name)
    for key in ("dtype", "form", "note"):
        _check(name, key, isinstance(known.get(key, ""), str), "a text", known.get(key))
    for key in OF_NUMBERS:
        _check(name, key, _is_number(known.get(key, 0)), "a number", known.get(key))
    _check(name, "scale", known.get("scale", 1) > 0, "a number above 0", known.get("scale"))
    for key in RANGE:
        value = known.get(key)
        _check(name, key, value is None or _is_number(value), "a number or null", value)
    atoms = known.get("atoms", [])
    _check(
        name, "atoms", isinstance(atoms, list | tuple) and all(map(_is_number, atoms)),
        "a list of numbers", atoms,
    )  # fmt: skip
    unit = known.get("unit")
    _check(name, "unit", unit is None or unit in UNITS, f"null or {', '.join(UNITS)}", unit)
    categories = known.get("categories", [])
    simple = isinstance(categories, list | tuple) and all(
        isinstance(value, str | bool | int | float) for value in categories
    )
    _check(name, "categories", simple, "a list of texts and numbers", categories)
    differ = len(set(map(text_of, categories))) == len(categories)
    _check(name, "categories", differ, "each category once", categories)
    two = kind != "binary" or len(categories) in (0, 2)
    _check(name, "categories", two, "two categories, or another kind", categories)


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number, and no truth value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _check(name: Any, key: str, fits: bool, expected: str, value: Any) -> None:
    """Raise ``ValueError`` unless an entry of a column fits."""
    if not fits:
        raise ValueError(f'column "{name}": {key}: expected {expected}, got {shown(value)}')
