"""Sequences with further steps after the end of each, for which a model is to draw observations.

field          inside the sequence    at the further steps
x              as given               any value: the model draws, and must not read it
seen           as given               True
inputs         as given               the future inputs
lengths        length                 length + steps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl_vae.core.pair import Pair
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Rows
from ppl_vae.data.steps import step_fields

VALUES, SEEN = "x", "seen"  # the fields of sequences that need no future values


@dataclass(frozen=True)
class Future:
    """What is known of the steps to come.

    Attributes:
        steps: Number of further steps.
        names: Names of the fields that have steps.
        inputs: Values of other fields at the further steps, ``{field: (rows, steps, columns)}``.
    """

    steps: int
    names: list[str]
    inputs: Mapping[str, Tensor]

    @classmethod
    def of(cls, pair: Pair, rows: Rows, steps: int, inputs: Any) -> Future:
        """Check the future inputs of some sequences.

        Args:
            pair: The pair, whose model may read fields beside the sequences.
            rows: The sequences.
            steps: Number of further steps.
            inputs: An array (rows, steps, columns), a mapping of arrays by field, or ``None``.

        Raises:
            ValueError: If the rows are no sequences, or inputs are missing or have another shape.
        """
        names = step_fields(rows)
        if not names:
            raise ValueError(
                f"{rows.name}: expected sequences, with the fields x and lengths, as "
                f"ppl_vae.sequences makes them, got fields {rows.names}"
            )
        read = pair.model.fields_read(rows.names)
        needed = [name for name in names if name in read and name not in (VALUES, SEEN)]
        given = inputs
        if not isinstance(inputs, Mapping):
            given = {} if inputs is None else {needed[0] if needed else "inputs": inputs}
        if set(given) != set(needed):
            raise ValueError(
                f"inputs: expected values at the further steps for the fields {needed}, got "
                f"{sorted(map(str, given))}; pass an array (rows, steps, columns), or a mapping of "
                "arrays by field"
            )
        found = {}
        for name in needed:
            field = rows.fields[rows.names.index(name)]
            wanted = (len(rows), steps, *field.array.shape[2:])
            value = torch.as_tensor(Field.of(given[name], f"inputs: field {name}").array)
            if tuple(value.shape) != wanted:
                raise ValueError(
                    f"inputs: expected shape {wanted} for the field {name}{_columns(field)}, got "
                    f"{tuple(value.shape)}"
                )
            if not bool(value.isfinite().all()):
                raise ValueError(f"inputs: expected finite numbers for the field {name}, got NaN")
            found[name] = field.in_order(value)
        return cls(steps, names, found)

    def after(
        self, batch: Mapping[str, Tensor], index: Tensor, fill: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return sequences with the further steps, and where these stand, (rows, steps).

        Args:
            batch: The sequences.
            index: Their positions in the data, (rows,).
            fill: Values of x for the further steps, (rows, features).
        """
        lengths = batch["lengths"]
        places = lengths[:, None] + torch.arange(self.steps, device=lengths.device)
        row = torch.arange(len(lengths), device=lengths.device)[:, None]
        longer = dict(batch)
        for name in self.names:
            field = batch[name]
            new = field.new_zeros(field.shape[0], self.steps, *field.shape[2:])
            longer[name] = torch.cat([field, new], 1)
            if name == VALUES:
                longer[name][row, places] = fill[:, None]
            elif name == SEEN:
                longer[name][row, places] = torch.ones_like(new)
            elif name in self.inputs:
                longer[name][row, places] = self.inputs[name][index].to(new)
        return {**longer, "lengths": lengths + self.steps}, places


def _columns(field: Field) -> str:
    """Return the columns that a field takes, in the order of the data; "" without names."""
    names = field.columns
    if names is None:
        return ""
    order = range(len(names)) if field.given_order is None else field.given_order
    return f", whose columns are {', '.join(str(names[position]) for position in order)}"
