"""The linter's rules on the likelihood: its scale, and the data that its distribution reads.

The pair is run again, on fewer rows and on rows with one changed cell, with the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import block_rows
from ppl_vae.core.handlers import Substitute, Unobserve
from ppl_vae.core.held_cells import holders
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, as_tuple, in_form_of, map_batch
from ppl_vae.linting.inspection import (
    CannotRunError,
    Finding,
    Inspection,
    attempt,
    drawn_values,
    site_error,
    warning,
)
from ppl_vae.linting.trace_rules import range_of_scale, scale_without_plates

# The scale of a site


def scales_by_length(inspection: Inspection) -> Iterator[Finding]:
    """Find sites whose scale changes with the number of rows in the batch.

    A script of plain Pyro multiplies the log-probability of a batch of B out of N rows by N/B
    with ``poutine.scale``, or the terms outside the rows by B/N. ``fit`` does that itself, so the
    factor would be applied twice. A scale that differs between two runs on the same batch depends
    on something else, such as a counter of steps, and is left alone.
    """
    if inspection.row_count < 2:
        return
    try:
        smaller = inspection.smaller()
        again = [
            attempt(half, inspection.batch, inspection.pair.plate, Substitute(drawn_values(trace)))
            for half, trace in inspection.halves
        ]
    except CannotRunError:  # another rule reports it
        return
    for (_, trace), small_trace, same_trace in zip(inspection.halves, smaller, again, strict=True):
        small_sites, same_sites = sites.sample_sites(small_trace), sites.sample_sites(same_trace)
        for name, site in sites.sample_sites(trace).items():
            if name in small_sites and name in same_sites:
                first, small, same = (
                    _first_rows(scale_without_plates(s), inspection)
                    for s in (site, small_sites[name], same_sites[name])
                )
                if _equal(first, same) and not _equal(first, small):
                    yield _scaled_by_length(inspection, name, first, small)


def _first_rows(scale: Tensor, inspection: Inspection) -> Tensor:
    """Return a site's scale in the rows of the smaller batch; one number holds for all rows."""
    one_each = scale.ndim > 0 and scale.shape[-1] == inspection.row_count
    return scale[..., : inspection.small_count] if one_each else scale


def _equal(left: Tensor, right: Tensor) -> bool:
    """Return whether two scales are equal up to rounding."""
    return left.shape == right.shape and torch.allclose(left, right)


def _scaled_by_length(inspection: Inspection, name: str, scale: Tensor, smaller: Tensor) -> Finding:
    """Return the finding for a scale that changes with the length of the batch."""
    return site_error(
        name,
        "expected a scale that does not change with the length of the batch, got "
        f"{range_of_scale(scale)} for {inspection.row_count} rows and {range_of_scale(smaller)} "
        f"for {inspection.small_count}: fit weighs the rows of a batch as the whole data set "
        "itself, so that N/B would be applied twice",
        "remove len(x) from poutine.scale; a constant factor may stay",
    )


# The data that a likelihood reads

CELLS = 512  # most cells of a field that are changed, one at a time; more are spread over the field


def own_cells(inspection: Inspection) -> Iterator[Finding]:
    """Find data sites whose distribution depends on the very cell that it scores.

    A density of x must not move with x: log Normal(x; loc(x), scale) can be as high as one likes.
    Reading other cells is sound, as in an autoregressive likelihood: the probability of the row is
    then a product of conditional probabilities.

    So one cell of the data is changed at a time. Where the observed value of a cell changes, and
    the distribution of that same cell changes as well while the data sites return their old
    values, the distribution reads the cell that it scores. Each changed cell has a row of its own,
    so that many cells are changed in one run. Latents are once the guide's draws, and once drawn
    from the model's prior with equal random numbers, which shows a prior that reads the cell.

    A latent that holds the missing cells of a site gets what the site observes there. So a cell
    that says whether another one is missing does not move the other one's value, which it depends
    on by right where cells are missing for reasons that lie in them.

    A network whose last layer begins at zero reads nothing yet, and is not found.
    """
    if inspection.row_count < 2:
        return
    rolled = map_batch(inspection.batch, lambda field: field.roll(1, 0))
    rows = torch.arange(inspection.row_count)
    found: set[str] = set()
    for from_guide in (True, False):
        try:
            if _Change(inspection, inspection.batch, rolled, rows, from_guide).any_moved():
                for batch, changed, chosen in _changed_cells(inspection):
                    change = _Change(inspection, batch, changed, chosen, from_guide)
                    found |= set(change.own_cells_moved())
        except CannotRunError:  # for example a network that rejects the changed data
            continue
    for name in sites.with_role(inspection.model_trace, "data"):
        if name in found:
            yield warning(
                f'site "{name}"',
                "expected a distribution that does not depend on the cell that it scores, got one "
                "that moves when that cell of the data is changed: its log-probability is no "
                "density of the data, and can be as high as one likes",
                "compute it from latents, from other cells or from other fields; pass what is "
                "given about a row (a total, a library size) as a field of its own",
            )


class _Change:
    """The data sites of the model on a batch, before and after the batch is changed.

    Args:
        inspection: The pair.
        batch: Rows of the inspection's batch.
        changed: The same rows with other data.
        rows: Positions of the rows in the inspection's batch, (rows,).
        from_guide: Whether latents have the guide's draws; otherwise the model draws them, from
            the same random numbers in all runs.

    Raises:
        CannotRunError: If the model fails.
    """

    def __init__(
        self, inspection: Inspection, batch: Batch, changed: Batch, rows: Tensor, from_guide: bool
    ) -> None:
        def of_rows(site: sites.Site) -> Tensor:
            value, dim = site["value"], -1 - site["fn"].event_dim
            in_rows = sites.in_plate(site, inspection.pair.plate)
            if not in_rows or value.shape[dim] != inspection.row_count:
                return cast("Tensor", value)
            return cast("Tensor", value.index_select(value.ndim + dim, rows.to(value.device)))

        def run(data: Batch, values: dict[str, Tensor], *handlers: Messenger) -> Trace:
            with forked(0):
                given = Substitute(values)
                return attempt(inspection.pair.model, data, inspection.pair.plate, given, *handlers)

        latents = drawn_values(inspection.guide_trace, of_rows) if from_guide else {}
        self.before = run(batch, latents)
        held: dict[str, Any] = {
            latent: self.before.nodes[site]["value"]
            for site, names in holders(self.before).items()
            for latent in names
        }
        if held:
            latents |= held
            self.before = run(batch, latents)
        self.after = run(changed, latents)
        data = sites.with_role(self.before, "data")
        observed = {name: site["value"] for name, site in data.items()}
        self.with_old_values = run(changed, {**latents, **observed}, Unobserve())

    def _moved(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each data site, and which of its unmasked cells have another distribution.

        A cell is an event of the basic distribution: a number, or a vector of a joint one. A cell
        that the change hides, as a shorter sequence hides its last step, is not compared.
        """
        for name, site in sites.with_role(self.before, "data").items():
            other: Any = self.with_old_values.nodes.get(name)
            if other is None or site["value"].shape != other["value"].shape:
                continue
            before, after = (_log_prob_of_cells(s["fn"], site["value"]) for s in (site, other))
            if before is not None and after is not None and before.shape == after.shape:
                unmasked = sites.unmasked_cells(site) & sites.unmasked_cells(other)
                yield name, ~_close(before, after) & _by_cell(unmasked, before)

    def any_moved(self) -> bool:
        """Return whether the distribution of any cell moved."""
        return any(bool(moved.any()) for _, moved in self._moved())

    def own_cells_moved(self) -> Iterator[str]:
        """Yield the data sites with a cell whose value and whose distribution changed."""
        for name, moved in self._moved():
            old: Tensor = sites.sample_sites(self.before)[name]["value"]
            new: Any = self.after.nodes.get(name, {}).get("value")
            if new is not None and old.shape == new.shape:
                differs = (old != new) & ~(old.isnan() & new.isnan())
                if bool((_by_cell(differs, moved) & moved).any()):
                    yield name


def _log_prob_of_cells(fn: Any, value: Tensor) -> Tensor | None:
    """Return the log-probability of each event of the basic distribution inside a site's wrappers.

    ``None`` where the distribution cannot score the value.
    """
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    try:
        return cast("Tensor", fn.log_prob(value)).expand(value.shape[: value.ndim - fn.event_dim])
    except Exception:
        return None


def _by_cell(marks: Tensor, cells: Tensor) -> Tensor:
    """Return marks on the numbers of a value as marks on its cells: any number of the cell."""
    return marks.reshape(*cells.shape, -1).any(-1)


def _close(left: Tensor, right: Tensor) -> Tensor:
    """Return which log-probabilities are equal up to rounding."""
    return torch.isclose(left, right, rtol=1e-4, atol=1e-5, equal_nan=True)


def _changed_cells(inspection: Inspection) -> Iterator[tuple[Batch, Batch, Tensor]]:
    """Yield rows, the same rows with one changed cell each, and their positions in the batch.

    A cell gets the value that another row has there, so that it is a possible value. The two rows
    are those neighbours in the batch whose values differ most; a column with one value is left
    out. Only fields that the model reads are changed.
    """
    batch, size = inspection.batch, min(CELLS, block_rows(inspection.rows))
    fields = as_tuple(batch)
    model = inspection.pair.model
    read = model.fields_read(batch) if isinstance(batch, dict) else inspection.rows.names
    for position, name in enumerate(inspection.rows.names):
        if name not in read:
            continue
        flat = fields[position].reshape(inspection.row_count, -1)
        other = flat.roll(1, 0)
        distance = (flat.double() - other.double()).abs().nan_to_num(0.0)
        largest, row = distance.max(0)
        count = min(flat.shape[1], CELLS)
        spread = torch.linspace(0, flat.shape[1] - 1, count, dtype=torch.float64).long()
        cells = spread.to(flat.device)
        for block in cells[largest[cells] > 0].split(size):
            rows = row[block]
            values = flat[rows].clone()
            values[torch.arange(len(block)), block] = other[rows, block]
            taken = [field[rows] for field in fields]
            changed = [*taken]
            changed[position] = values.reshape(taken[position].shape)
            yield in_form_of(batch, taken), in_form_of(batch, changed), rows


RULES: tuple[Callable[[Inspection], Iterator[Finding]], ...] = (scales_by_length, own_cells)
