"""The form of data without their values, as a run stores it: rows of zeros, names of columns."""

from __future__ import annotations

from typing import Any

import torch

from ppl_vae.data.columns import Columns, TableColumns, owner_of_columns
from ppl_vae.data.fields import Field, named_mapping
from ppl_vae.data.mixed_tables import rows_of_zeros
from ppl_vae.data.schema import Schema


def example_rows(template: dict[str, Any], count: int = 2) -> Any:
    """Return ``count`` rows of zeros in the form that ``Rows.template`` describes."""
    if "schema" in template:
        return rows_of_zeros(Schema.of_json(template["schema"]), count)
    fields = [Field.zeros(entry, count) for entry in template["fields"]]
    values = [field.restore(torch.as_tensor(field.array), None) for field in fields]
    if template["keys"] is not None:
        return named_mapping(template["keys"], fields, values)
    return values[0] if template["single"] else tuple(values)


def template_columns(template: dict[str, Any]) -> Columns:
    """Return the names of the columns in a template, by field, as ``Rows.columns`` has them."""
    fields = template["fields"]
    names = template["keys"] or [str(position) for position in range(len(fields))]
    named = [(n, e["source"], e["labels"]) for n, e in zip(names, fields, strict=True)]
    found = {owner_of_columns(n, s): labels for n, s, labels in named if isinstance(labels, list)}
    return TableColumns(found, Schema.of_json(template["schema"]) if "schema" in template else None)
