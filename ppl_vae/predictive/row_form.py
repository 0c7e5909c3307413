"""Simulated values put back where the data had the observed ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.data.cells import column_cells, observed_cells, observed_columns
from ppl_vae.data.rows import Batch, Rows, as_tuple
from ppl_vae.predictive.latent_draws import data_sites, simulate

SPREAD = 512  # rows, evenly over the data, whose values tell columns apart


class CellPlaces:
    """Where each observed site's cells are in the data, found once on up to 512 of its rows.

    Args:
        pair: The pair.
        rows: Rows of the data as given.

    Raises:
        ValueError: Where a site observes values that are no cells of the data.
    """

    def __init__(self, pair: Pair, rows: Rows) -> None:
        with quiet_look(pair, rows, SPREAD, spread=True) as batch:
            trace = simulate(pair, batch, Messenger())
        self.columns: dict[str, tuple[int, list[int]]] = {}
        for name, site in data_sites(trace).items():
            if observed_cells(batch, site["infer"]["obs"]) is not None:
                continue
            try:
                found = observed_columns(batch, site["infer"]["obs"])
            except ValueError as error:
                raise ValueError(f'site "{name}": {error}') from None
            if found is None:
                raise ValueError(
                    f'site "{name}": expected it to observe cells of the data, got values computed '
                    "from them; such a site has no place in the data's own form"
                )
            self.columns[name] = found

    def cells(self, name: str, batch: Batch, observed: Tensor) -> tuple[int, Tensor]:
        """The field's position and the flat positions of a site's cells, shaped like its value."""
        if name not in self.columns:
            found = observed_cells(batch, observed)
            assert found is not None
            return found
        position, columns = self.columns[name]
        return position, column_cells(as_tuple(batch)[position], columns, observed.shape)


def fields_with_values(
    places: CellPlaces, batch: Batch, trace: Any, values: dict[str, Tensor], *, expected: bool
) -> dict[str, Tensor]:
    """The batch's fields with the observed cells replaced: ``{position: (rows, ...)}``.

    A field that receives expected values, or draws of a continuous likelihood, becomes one of
    floats; one that receives counts beyond its integers becomes one of wider integers.
    """
    fields = [field.clone() for field in as_tuple(batch)]
    for name, site in data_sites(trace).items():
        position, cells = places.cells(name, batch, site["infer"]["obs"])
        value, field = values[name].reshape(cells.shape), fields[position]
        if not field.is_floating_point() and value.is_floating_point():
            if expected or not site["fn"].support.is_discrete:
                field = field.to(torch.get_default_dtype())
            else:
                value = value.round().long()
        if not field.is_floating_point() and field.dtype != torch.bool:
            field = field.long()
        fields[position] = field
        field.view(-1)[cells] = value.to(field.dtype)
    return {str(position): field for position, field in enumerate(fields)}


def in_data_form(rows: Rows, parts: dict[str, Tensor], index: pd.Index | None = None) -> Any:
    """Fields by position, (rows, ...) each, in the form that the data came in."""
    return rows.restore([parts[str(i)] for i in range(len(rows.fields))], index)


def with_given(rows: Rows, batch: Batch, given: Mapping[Any, Any], count: int) -> Rows:
    """Rows of the template with the given fields put in."""
    names = rows.names
    fields = list(as_tuple(batch))
    for key, values in given.items():
        if str(key) not in names:
            raise ValueError(f"given: expected fields among {names}, got {key!r}")
        position = names.index(str(key))
        old = fields[position]
        try:
            new = torch.as_tensor(np.asarray(values), device=old.device)
        except (TypeError, ValueError) as error:
            raise ValueError(f"given[{key!r}]: expected numbers, got {error}") from error
        if not old.is_floating_point() and bool((new != new.round()).any()):
            raise ValueError(f"given[{key!r}]: expected whole numbers for a field of {old.dtype}")
        new = new.to(old.dtype)
        try:
            fields[position] = new.expand(old.shape).clone() if new.ndim < old.ndim else new
        except RuntimeError:
            fields[position] = new
        if fields[position].shape != old.shape:
            raise ValueError(
                f"given[{key!r}]: expected one value or {count} of shape {tuple(old.shape[1:])}, "
                f"got shape {tuple(new.shape)}"
            )
    return Rows(rows.batch(fields))
