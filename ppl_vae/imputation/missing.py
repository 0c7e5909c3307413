"""Which cells of the data are missing, and where the model has them.

A cell is missing where every observed site that reads it hides it by a mask: ``dist.mask(seen)``,
``poutine.mask`` around the site, or Pyro's ``obs_mask=``. What stands after the end of a sequence
is no missing cell. A missing cell has its value in one of two places:

    the site itself       its distribution without the mask, given the latents
    a latent that holds   "x_unobserved" of ``obs_mask``, or a latent of the site's shape whose mask
    the missing cells     is the opposite of the site's: other sites may depend on its value
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.arguments import shown
from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks, quiet_look
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.cells import cell_name
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows
from ppl_vae.data.steps import step_fields
from ppl_vae.predictive.replicates import samples_first
from ppl_vae.predictive.row_form import CellPlaces

LOOKED_AT = 64  # rows with missing cells from which the latents that hold them are found


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
    """

    name: str
    site: sites.Site
    field: int
    places: Tensor
    missing: Tensor


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
        cells, hidden = (samples_first(each, site, None)[0].flatten(1) for each in (cells, hidden))
        if field in inside:
            hidden = hidden & inside[field].flatten()[cells]
        yield Reading(name, site, field, cells % in_row, hidden)


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
    except ValueError as error:
        nan = _first_nan(rows)
        if nan is None:
            raise
        raise ValueError(
            f"{nan}: expected a pair that runs where cells are NaN, got one that fails: {error}; "
            f"{_mend(rows)}"
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
        ValueError: If a cell is NaN and no mask hides it.
    """
    fields = as_tuple(batch)
    flat = [
        torch.zeros(
            field.flatten(1).shape if field.ndim > 1 else (len(field), 1),
            dtype=torch.bool,
            device=field.device,
        )
        for field in fields
    ]
    hidden, read = flat, [torch.zeros_like(each) for each in flat]
    for reading in readings(pair, rows, places, batch, trace):
        hidden[reading.field].scatter_(
            1, reading.places, reading.missing | hidden[reading.field].gather(1, reading.places)
        )
        seen = samples_first(sites.unmasked_cells(reading.site), reading.site, None)[0].flatten(1)
        read[reading.field].scatter_(
            1, reading.places, seen | read[reading.field].gather(1, reading.places)
        )
    found = []
    for number, (field, here, seen) in enumerate(zip(fields, hidden, read, strict=True)):
        if field.is_floating_point():
            nan = (field.isnan().reshape(seen.shape) & seen).nonzero()
            if len(nan):
                row, place = nan[0].tolist()
                raise ValueError(
                    f"{_cell(rows, int(index[row]), number, place)}: expected missing cells whose "
                    f"likelihood is masked, got NaN in a cell that the model observes; {_mend(rows)}"
                )
        row, place = (here & ~seen).nonzero().cpu().T
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


def _mend(rows: Rows) -> str:
    """Return what to do about NaN in data that a pair observes."""
    return (
        "let the model mask the likelihood of missing cells (dist.Normal(...).mask(seen), with "
        "seen = ~x.isnan(), and obs=x.nan_to_num()), and let the guide read x.nan_to_num()"
    )


def holders_of(pair: Pair, rows: Rows, places: CellPlaces) -> dict[str, str]:
    """Return the latents that hold the missing cells of observed sites, ``{site: latent}``.

    Args:
        pair: The pair.
        rows: The rows that have missing cells.
        places: The cells that the sites observe.

    Raises:
        ValueError: If several latents could hold the cells of a site, or if the model reads the
            data's own numbers in missing cells, which say nothing.
    """
    with quiet_look(pair, rows, LOOKED_AT, spread=True) as batch:
        model_trace, guide_trace = sites.traces(pair, batch)
        found = list(readings(pair, rows, places, batch, model_trace))
        latents = sites.with_role(model_trace, "latent")
        holders = {}
        for reading in found:
            if not bool(reading.missing.any()):
                continue
            names = [n for n, s in latents.items() if _holds(n, s, reading)]
            if len(names) > 1:
                raise ValueError(
                    f'site "{reading.name}": expected one latent that holds its missing cells, got '
                    f"{names}; give one of them another mask"
                )
            holders.update(dict.fromkeys([reading.name] * len(names), *names) if names else {})
        _refuse_reading(pair, rows, places, batch, model_trace, found)
    return holders


def _holds(name: str, latent: sites.Site, reading: Reading) -> bool:
    """Return whether a latent holds the missing cells of an observed site."""
    if name.endswith("_unobserved") and reading.name.endswith("_observed"):
        if name.removesuffix("_unobserved") == reading.name.removesuffix("_observed"):
            return True
    site = reading.site
    same = latent["value"].shape == site["value"].shape and has_mask(latent)
    same = same and latent["fn"].event_dim == site["fn"].event_dim
    return same and bool((sites.unmasked_cells(latent) == ~sites.unmasked_cells(site)).all())


def has_mask(site: sites.Site) -> bool:
    """Return whether a mask stands around a site, or inside its distribution."""
    fn = site["fn"]
    while hasattr(fn, "base_dist") and not isinstance(fn, MaskedDistribution):
        fn = fn.base_dist
    return isinstance(site["mask"], Tensor) or isinstance(fn, MaskedDistribution)


def _refuse_reading(
    pair: Pair, rows: Rows, places: CellPlaces, batch: Batch, trace: Trace, found: list[Reading]
) -> None:
    """Raise if the model reads the numbers that stand in missing cells.

    The missing cells get numbers of other rows, latents are held, and the model runs again. Cells
    that are NaN stay NaN. Where the masks change with the numbers, nothing is concluded.

    Args:
        pair: The pair.
        rows: The rows that have missing cells.
        places: The cells that the sites observe.
        batch: Some rows.
        trace: A run of the model on them.
        found: What the sites read in that run.

    Raises:
        ValueError: With the first site whose log-probability changes.
    """
    fields = [field.clone() for field in as_tuple(batch)]
    for reading in found:
        flat = fields[reading.field].view(batch_rows(batch), -1)
        old = flat.gather(1, reading.places)
        new = torch.where(reading.missing, _other_numbers(old, reading.missing), old)
        flat.scatter_(1, reading.places, torch.where(old.isnan(), old, new))
    held = {n: s["value"] for n, s in sites.with_role(trace, "latent").items()}
    changed = poutine.trace(Substitute(held)(pair.model)).get_trace(rows.batch(fields))
    after = list(readings(pair, rows, places, rows.batch(fields), changed))
    if not all(torch.equal(a.missing, b.missing) for a, b in zip(found, after, strict=True)):
        return
    for name in sites.with_role(trace, "data", "factor"):
        if not sites.in_plate(trace.nodes[name], pair.plate):
            continue
        one, other = (sites.row_log_prob(each.nodes[name]) for each in (trace, changed))
        if not torch.allclose(one, other, 1e-4, 1e-4, equal_nan=True):
            raise ValueError(
                f'site "{name}": expected a model that does not read the numbers in missing cells, '
                "got a log-probability that changes with them; let the site depend on a latent that "
                'holds the missing cells: missing = pyro.sample("missing", fn.mask(~seen)), '
                "torch.where(seen, x, missing)"
            )


def _other_numbers(values: Tensor, missing: Tensor) -> Tensor:
    """Return numbers that other rows have in the same columns, where these are not missing.

    Args:
        values: (rows, cells).
        missing: Which cells are missing, (rows, cells).
    """
    other = values.clone()
    for column in range(values.shape[1]):
        seen = values[~missing[:, column], column]
        if len(seen):
            turn = torch.arange(len(values), device=values.device) % len(seen)
            other[:, column] = seen[turn]
    return other
