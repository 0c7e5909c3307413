"""Which cells of the data are missing, and where the model has them.

A cell is missing where every observed site that reads it hides it by a mask: ``dist.mask(seen)``,
``poutine.mask`` around the site, or Pyro's ``obs_mask=``. What stands after the end of a sequence
is no missing cell. A missing cell has its value in one of two places:

    the site itself       its distribution without the mask, given the latents
    a latent that holds   other sites may depend on its value (``holders``)
    the missing cells
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks
from ppl_vae.core.pair import Pair
from ppl_vae.data.cells import cell_name
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows
from ppl_vae.data.steps import step_fields
from ppl_vae.predictive.replicates import samples_first
from ppl_vae.predictive.row_form import CellPlaces

MEND = (
    "let the model mask the likelihood of missing cells (dist.Normal(...).mask(seen), with "
    "seen = ~x.isnan(), and obs=x.nan_to_num()), and let the guide read x.nan_to_num()"
)


class NotHiddenError(ValueError):
    """Raised where a cell is NaN and no mask hides it."""


@dataclass(frozen=True)
class MissingCells:
    """The missing cells of some data, in the order of the rows, then of the fields and cells.

    Attributes:
        rows: Position of each cell's row, (cells,).
        fields: Position of its field, (cells,).
        places: Position among the cells of that field in the row, (cells,).
    """

    rows: Tensor
    fields: Tensor
    places: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Reading:
    """What an observed site reads of a block of rows.

    Attributes:
        name: The site.
        site: The site, from a run of the model.
        field: Position of the field that it reads.
        places: Position of each cell among those of its row in the field, (rows, cells).
        missing: Which of the cells the site hides, without those after the end of a sequence,
            (rows, cells).
        seen: Which of them the site scores, (rows, cells).
    """

    name: str
    site: sites.Site
    field: int
    places: Tensor
    missing: Tensor
    seen: Tensor


def readings(
    pair: Pair, rows: Rows, places: CellPlaces, batch: Batch, trace: Trace
) -> Iterator[Reading]:
    """Yield what each observed site in the row plate reads of a block of rows.

    Args:
        pair: The pair.
        rows: The data.
        places: The cells that the sites observe.
        batch: The block.
        trace: A run of the model on the block, without particles.

    Raises:
        ValueError: If a mask differs from draw to draw, or hides values that are no cells.
    """
    inside = _inside(rows, batch)
    for name, site in sites.with_role(trace, "data").items():
        if not sites.in_plate(site, pair.plate):
            continue
        hidden = ~sites.unmasked_cells(site)
        if hidden.shape != site["value"].shape:
            raise ValueError(
                f'site "{name}": expected a mask of the shape of what the site observes, '
                f"{tuple(site['value'].shape)}, got {tuple(hidden.shape)}; let the mask depend on "
                "the data alone"
            )
        if not places.is_found(name) and not bool(hidden.any()):
            continue
        field, cells = places.cells(name, batch, site["value"])
        in_row = as_tuple(batch)[field][0].numel()
        cells, hidden = (
            samples_first(each, site, None)[0].reshape(batch_rows(batch), -1)
            for each in (cells, hidden)
        )
        missing = hidden & inside[field].flatten()[cells] if field in inside else hidden
        yield Reading(name, site, field, cells % in_row, missing, ~hidden)


def _inside(rows: Rows, batch: Batch) -> dict[int, Tensor]:
    """Return which cells stand before the end of their sequence, ``{field: (rows, ...)}``."""
    names = step_fields(rows)
    if not names:
        return {}
    fields = as_tuple(batch)
    lengths = fields[rows.names.index("lengths")][:, None]
    inside = {}
    for position in (rows.names.index(name) for name in names):
        steps = torch.arange(fields[position].shape[1], device=lengths.device) < lengths
        shape = *steps.shape, *(1 for _ in fields[position].shape[2:])
        inside[position] = steps.reshape(shape).expand(fields[position].shape)
    return inside


def find_missing(pair: Pair, rows: Rows) -> tuple[MissingCells, CellPlaces]:
    """Return the missing cells of the data, from one run of the pair on every row.

    Args:
        pair: The pair.
        rows: The data.

    Raises:
        ValueError: If a cell is NaN and no mask hides it, or the pair does not run on the data.
    """
    try:
        places = CellPlaces(pair, rows, lazy=True)
        parts = [_missing_of_block(pair, rows, places, *each) for each in _traces(pair, rows)]
    except NotHiddenError:
        raise
    except ValueError as error:
        nan = _first_nan(rows)
        if nan is None:
            raise
        raise ValueError(
            f"{nan}: expected a pair that runs where cells are NaN, got one that fails: {error}; "
            f"{MEND}"
        ) from error
    row, field, place = (torch.cat(each) for each in zip(*parts, strict=True))
    return MissingCells(row, field, place), places


def _traces(pair: Pair, rows: Rows) -> Iterator[tuple[Batch, Tensor, Trace]]:
    """Yield each block of rows, its positions, and a run of the model on it."""

    def work(batch: Batch, index: Tensor) -> tuple[Batch, Trace]:
        return batch, sites.traces(pair, batch)[0]

    for index, (batch, trace) in blocks(pair, rows, work, seed=0, judge=False):
        yield batch, index, trace


def _missing_of_block(
    pair: Pair, rows: Rows, places: CellPlaces, batch: Batch, index: Tensor, trace: Trace
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, fields and places of the missing cells of a block, (cells,) each.

    Args:
        pair: The pair.
        rows: The data.
        places: The cells that the sites observe.
        batch: The block.
        index: The positions of its rows.
        trace: A run of the model on it.

    Raises:
        NotHiddenError: If a cell is NaN and no mask hides it.
    """
    fields = as_tuple(batch)
    hidden, seen = (
        [
            torch.zeros(len(each), each[0].numel(), dtype=torch.bool, device=each.device)
            for each in fields
        ]
        for _ in range(2)
    )
    for each in readings(pair, rows, places, batch, trace):
        for marks, new in ((hidden[each.field], each.missing), (seen[each.field], each.seen)):
            marks.scatter_(1, each.places, new | marks.gather(1, each.places))
    found = []
    for number, (field, here, there) in enumerate(zip(fields, hidden, seen, strict=True)):
        nan = field.isnan().reshape(there.shape) & there
        if bool(nan.any()):
            row, place = nan.nonzero()[0].tolist()
            raise NotHiddenError(
                f"{_cell(rows, int(index[row]), number, place)}: expected missing cells whose "
                f"likelihood is masked, got NaN in a cell that the model observes; {MEND}"
            )
        row, place = (here & ~there).nonzero().cpu().T
        found.append((index[row], torch.full_like(row, number), place))
    row, field, place = (torch.cat(each) for each in zip(*found, strict=True))
    order = row.argsort(stable=True)
    return row[order], field[order], place[order]


def _cell(rows: Rows, row: int, field: int, place: int) -> str:
    """Return the name of a cell, for a message: the field, the row's label and the column."""
    shape = tuple(rows.fields[field].array.shape[1:])
    at = [int(each) for each in torch.unravel_index(torch.tensor(place), shape)] if shape else []
    column = cell_name(at, shape, [(shape, rows.fields[field].labels)])
    return f"{rows.fields[field].name}: row {shown(rows.index[row])}{column and f', {column}'}"


def _first_nan(rows: Rows) -> str | None:
    """Return the name of the first cell that is NaN; ``None`` without one."""
    for index in torch.arange(len(rows)).split(8192):
        for number, field in enumerate(as_tuple(rows.take(index))):
            if field.is_floating_point() and bool((nan := field.isnan()).any()):
                row, place = nan.reshape(len(field), -1).nonzero()[0].tolist()
                return _cell(rows, int(index[row]), number, place)
    return None
