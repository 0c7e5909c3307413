"""Simulated values in the form of the data: each value stands in the cell that its site observed.

A model may observe a column of a frame at one site and the rest at another. The cells that a site
observes are found by comparing the observed values with the data: by memory where the site observes
a view of a field, by value otherwise (``data.cells``). Values that the model draws for the site
then replace exactly these cells; other cells (covariates, masks, lengths) stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.core.sites import Site, is_discrete, unmasked_cells
from ppl_vae.data.cells import column_cells, observed_cells, observed_columns
from ppl_vae.data.columns import column_names, column_order
from ppl_vae.data.conversion import changed
from ppl_vae.data.fields import Field
from ppl_vae.data.mixed_tables import SEEN, of_given_columns
from ppl_vae.data.rows import Batch, Rows, as_tuple
from ppl_vae.data.steps import check_lengths
from ppl_vae.predictive.latent_draws import data_sites, simulate

COMPARED_ROWS = 512  # rows, evenly over the data, by whose values columns are told apart


class CellPlaces:
    """The cells of the data that each site observes, found once on up to 512 rows.

    Args:
        pair: The pair.
        rows: The data.
        lazy: Whether a site whose cells cannot be found is refused when they are asked for, and not
            at once.

    Attributes:
        columns: ``{site: (position of the field, columns of the field)}`` for sites that observe
            converted values (an integer column as floats), whose cells only their values tell.
        observed_fields: Positions of the fields all of whose cells are observed.
        observes_all: Whether every cell of the data is observed, so that no covariate is left.

    Raises:
        ValueError: If a site observes values that are no cells of the data.
    """

    def __init__(self, pair: Pair, rows: Rows, *, lazy: bool = False) -> None:
        with quiet_look(pair, rows, COMPARED_ROWS, spread=True) as batch:
            trace = simulate(pair, batch, Messenger())
        self.columns: dict[str, tuple[int, list[int]]] = {}
        self._event_dims: dict[str, int] = {}
        self._faults: dict[str, ValueError] = {}
        for name, site in data_sites(trace).items():
            fault = self._find(name, site, batch)
            if fault is not None and not lazy:
                raise fault
            if fault is not None:
                self._faults[name] = fault
        unobserved = [torch.ones_like(f, dtype=torch.bool).flatten() for f in as_tuple(batch)]
        for name, site in data_sites(trace).items():
            if name in self._faults:
                continue
            position, cells = self.cells(name, batch, site["infer"]["obs"])
            unobserved[position][cells] = False
        self.observed_fields = {i for i, cells in enumerate(unobserved) if not bool(cells.any())}
        self.observes_all = len(self.observed_fields) == len(unobserved)

    def _find(self, name: str, site: Site, batch: Batch) -> ValueError | None:
        """Find the columns of a site that observes converted values; return why there are none.

        Args:
            name: The site.
            site: The site, from a run in which it was drawn.
            batch: The rows of the run.
        """
        if observed_cells(batch, site["infer"]["obs"]) is not None:
            return None
        try:
            event_dim = site["fn"].event_dim
            hidden = ~unmasked_cells(site)
            columns = observed_columns(batch, site["infer"]["obs"], event_dim, hidden)
        except ValueError as error:
            return ValueError(f'site "{name}": {error}')
        if columns is None:
            return ValueError(
                f'site "{name}": expected a site that observes cells of the data, got values '
                "computed from them, which have no place in the data's own form; compute them "
                "before, and pass them as data"
            )
        self.columns[name], self._event_dims[name] = columns, event_dim
        return None

    def is_found(self, name: str) -> bool:
        """Return whether the cells of a site are known; always, unless the search was lazy."""
        return name not in self._faults

    def cells(self, name: str, batch: Batch, observed: Tensor) -> tuple[int, Tensor]:
        """Return where a site's cells are in a batch.

        Args:
            name: The site.
            batch: The rows.
            observed: What the site observes in these rows.

        Returns:
            The position of the field, and the cells' positions in the flattened field, shaped like
            the site's value.

        Raises:
            ValueError: If a lazy search has not found the cells of the site.
        """
        if name in self._faults:
            raise self._faults[name]
        if name not in self.columns:
            cells = observed_cells(batch, observed)
            assert cells is not None
            return cells
        position, columns = self.columns[name]
        field, event_dim = as_tuple(batch)[position], self._event_dims[name]
        return position, column_cells(field, columns, observed.shape, event_dim)

    def fields_with_values(
        self, batch: Batch, drawn: Mapping[str, Site], values: dict[str, Tensor], *, expected: bool
    ) -> dict[int, Tensor]:
        """Return the batch's fields with the observed cells replaced: ``{position: (rows, ...)}``.

        An integer field that receives expected values, or draws of a continuous likelihood, becomes
        one of floats. An integer field that receives draws of a discrete likelihood becomes one of
        64-bit integers, so that no count is wrapped; a field of bool does where a draw is above 1.

        Args:
            batch: The rows.
            drawn: The data sites of a simulation on these rows, by name.
            values: The values to put in, ``{site: value}``.
            expected: Whether the values are expectations; else they are draws.
        """
        fields = [field.clone() for field in as_tuple(batch)]
        for name, site in drawn.items():
            position, cells = self.cells(name, batch, site["infer"]["obs"])
            value, field = values[name].reshape(cells.shape), fields[position]
            if not field.is_floating_point() and value.is_floating_point():
                if expected or not is_discrete(site):
                    field = field.to(torch.get_default_dtype())
                else:
                    value = value.round().long()
            if not field.is_floating_point() and not _fits_bool(field, value):
                field = field.long()
            fields[position] = field
            field.view(-1)[cells] = value.to(field.dtype)
        return dict(enumerate(fields))


def _fits_bool(field: Tensor, value: Tensor) -> bool:
    """Return whether a field is one of bool, and a value holds 0 and 1 alone."""
    return field.dtype == torch.bool and not bool(((value != 0) & (value != 1)).any())


def in_data_form(rows: Rows, parts: dict[int, Tensor], index: pd.Index | None = None) -> Any:
    """Return fields in the form that the data came in: a tensor, a frame, a mapping, ...

    Args:
        rows: The data.
        parts: The fields, ``{position: (rows, ...)}``.
        index: Index of the rows, for a frame; a new one by default.
    """
    fields = [parts[i] for i in range(len(rows.fields))]
    if rows.schema is not None:  # what a model draws or expects has no gaps
        place = rows.names.index(SEEN)
        fields[place] = torch.ones_like(fields[place])
    return rows.restore(fields, index)


def with_given(
    rows: Rows, batch: Batch, given: Mapping[Any, Any], count: int, observed: set[int]
) -> Rows:
    """Return rows in which some fields have the values that a user gave.

    Truth values are the numbers 0 and 1.

    Args:
        rows: The data, for the fields' names.
        batch: The rows to change, as many as asked for.
        given: ``{field name or position: values}``, one value for all rows or one for each row.
        count: Rows, for messages.
        observed: Positions of the fields that the model observes, which it draws itself.

    Raises:
        ValueError: If a name is no field, or values do not fit the field's shape or dtype, or the
            model observes the field; if a sequence has no step, or more than the data have.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"given: expected {{field: values}}, got {shown(given)}")
    if rows.schema is not None and isinstance(batch, dict):
        batch, given = of_given_columns(rows.schema, batch, given)
    names = rows.names
    fields = list(as_tuple(batch))
    for key, values in given.items():
        if str(key) not in names:
            raise ValueError(f"given: expected fields among {names}, got {key!r}")
        position = names.index(str(key))
        if position in observed:
            covariates = [name for i, name in enumerate(names) if i not in observed]
            raise ValueError(
                f"given: expected fields that the model reads and does not observe ({covariates}), "
                f"got {key!r}, which the model observes and draws; leave {key!r} out"
            )
        old = fields[position]
        new = _given_tensor(values, rows.fields[position], f"given[{key!r}]").to(old.device)
        new = new.to(torch.uint8) if new.dtype == torch.bool else new
        if not old.is_floating_point() and bool((new != new.round()).any()):
            raise ValueError(f"given[{key!r}]: expected whole numbers for a field of {old.dtype}")
        converted = new.to(old.dtype)
        if bool((lost := changed(new, converted)).any()):
            got = new[lost].flatten()[0].item()
            raise ValueError(f"given[{key!r}]: expected values of {old.dtype}, got {got}")
        new = converted
        try:
            fields[position] = new.expand(old.shape).clone() if new.ndim < old.ndim else new
        except RuntimeError:
            fields[position] = new
        if fields[position].shape != old.shape:
            raise ValueError(
                f"given[{key!r}]: expected one value or {count} of shape {tuple(old.shape[1:])}, "
                f"got shape {tuple(new.shape)}"
            )
    result = Rows(rows.batch(fields), "given")
    if "lengths" in given:
        check_lengths(result)
    return result


def _given_tensor(values: Any, field: Field, where: str) -> Tensor:
    """Return the values that a user gave for a field as a tensor.

    Args:
        values: Numbers in any form; the columns of a frame are found by their names, those of an
            array are in the order in which the data have them.
        field: The field.
        where: The place of the values, for messages.

    Raises:
        ValueError: If the values are not numbers, or a frame lacks columns.
    """
    names, by_name = field.columns, False
    if isinstance(values, pd.DataFrame) and names is not None:
        order = column_order(values.columns, [names], where)
        values = values if order is None else values.iloc[:, order]
        by_name = not set(column_names(values.columns)).isdisjoint(names)
    try:
        tensor = torch.as_tensor(np.asarray(values).copy())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected numbers, got values that make no tensor: {error}"
        ) from error
    by_place = not by_name and names is not None and tensor.shape[-1:] == (len(names),)
    return field.in_order(tensor) if by_place else tensor
