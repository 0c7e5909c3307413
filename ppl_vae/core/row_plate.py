"""Faults of the row plate: what ``lint`` reports, and what every other function refuses.

All numbers per row rest on one convention: each latent and each observed site of a row stands in
the row plate, at dim -1, in a plate as long as the batch. A pair that breaks the convention still
runs, and a sum over all rows would then be given to each row without an error. So the rules stand
here once; ``lint`` turns each fault into a finding, and evaluation raises the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pyro.poutine.trace_struct import Trace

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, batch_rows


class PlateFault(NamedTuple):
    """One fault of the row plate.

    Attributes:
        where: The place: ``site "z"`` or ``plate "data"``.
        problem: What was expected and what came.
        fix: What to change.
    """

    where: str
    problem: str
    fix: str


def check_row_plate(pair: Pair, rows: Rows) -> None:
    """Run a pair on a few rows, without an effect outside, and raise on a fault of the row plate.

    Args:
        pair: The pair.
        rows: The data.

    Raises:
        ValueError: If a row's site stands outside the row plate, or the plate is not at dim -1.
    """
    with quiet_look(pair, rows) as batch:
        raise_plate_fault(pair, *sites.traces(pair, batch), batch)


def raise_plate_fault(pair: Pair, model_trace: Trace, guide_trace: Trace, batch: Batch) -> None:
    """Raise a ``ValueError`` with the first fault of the row plate in two traces, if any.

    Args:
        pair: The pair.
        model_trace: Trace of the model on the batch; may be empty.
        guide_trace: Trace of the guide on the batch.
        batch: The rows.
    """
    for fault in row_plate_faults(pair.plate, model_trace, guide_trace, batch_rows(batch)):
        raise ValueError(f"{fault.where}: {fault.problem}; {fault.fix}")


def row_plate_faults(
    plate: str, model_trace: Trace, guide_trace: Trace, row_count: int
) -> Iterator[PlateFault]:
    """Yield the faults of a pair's row plate, as its traces on one batch show them.

    Faults are a row's site outside the row plate, an observed site that scores each row against all
    rows, a latent in other plates in the guide than in the model, a row plate at another dimension
    than -1 (a ``for`` loop over the plate has no dimension at all), and a row plate that is not as
    long as the batch.

    Args:
        plate: Name of the row plate.
        model_trace: Trace of the model; may be empty.
        guide_trace: Trace of the guide, on the same batch.
        row_count: Rows of the batch.
    """
    halves = (("model", model_trace), ("guide", guide_trace))
    frames = {
        (role, frame.dim, frame.size)
        for role, trace in halves
        for site in sites.sample_sites(trace).values()
        for frame in site["cond_indep_stack"]
        if frame.name == plate
    }
    for role, dim, size in sorted(frames, key=str):
        if dim is None:
            yield PlateFault(
                f'plate "{plate}"',
                f"expected the row plate at dim -1, got dim None in the {role}: a for loop",
                f'write "with pyro.plate("{plate}", len(x)):", not a for loop',
            )
        elif dim != -1:
            yield PlateFault(
                f'plate "{plate}"',
                f"expected the row plate at dim -1, got dim {dim} in the {role}",
                "open the row plate before other plates or pass dim=-1, and write .to_event(1) "
                "where the last dimension holds the features of a row",
            )
        elif 0 <= size != row_count:  # a plate without a size has a negative one
            yield PlateFault(
                f'plate "{plate}"',
                f"expected the {role} to open the row plate for the {row_count} rows of the batch, "
                f"got {size}",
                f'write pyro.plate("{plate}", len(x))',
            )
    data = sites.with_role(model_trace, "data").values()
    row_plates = {"", *map(_innermost_plate, data)}  # the user's names of the plate
    outside = set()
    # a summed latent has a dimension of its own, which may be as long as the batch
    summed = any(
        site["infer"].get("_enumerate_dim") is not None
        for _, trace in halves
        for site in sites.sample_sites(trace).values()
    )
    for role, trace in halves:
        for name, site in sites.with_role(trace, "data", "latent").items():
            varies = _as_long(site, row_count, row_plates)
            if sites.role(site) == "data":  # a constant may be observed outside the row plate
                varies = varies or row_count in site["value"].shape
            if varies and not sites.in_plate(site, plate):
                outside.add(name)
                yield _outside_row_plate(plate, name, site, role)
            elif sites.role(site) == "data" and not summed:
                yield from _broadcast_rows(name, site, row_count)
    in_guide = sites.with_role(guide_trace, "latent")
    for name, model_site in sites.sample_sites(model_trace).items():
        if name in in_guide and name not in outside:
            here, there = (
                sorted(frame.name for frame in site["cond_indep_stack"])
                for site in (model_site, in_guide[name])
            )
            if here != there:
                yield PlateFault(
                    f'site "{name}"',
                    f"expected the model's plates {here}, got {there} in the guide",
                    "open the same plates around the site in model and guide",
                )


def _broadcast_rows(name: str, site: sites.Site, row_count: int) -> Iterator[PlateFault]:
    """Yield the fault of an observed site where every row is scored against all rows.

    A distribution of shape (rows, 1), as a network with one output makes it, and a value of shape
    (rows,) broadcast to (rows, rows), without an error. What is in excess is the distribution's
    dimension, the value's, or both: then the last one was meant to be an event.
    """
    fn, value = site["fn"], site["value"]
    plates = {frame.dim for frame in site["cond_indep_stack"]}
    square = (row_count, row_count)
    in_fn = tuple(fn.batch_shape) == square
    value_shape = tuple(value.shape)
    in_value = fn.event_dim == 0 and value_shape == (row_count, 1)
    whole = value_shape[: value.ndim - fn.event_dim] == square  # a matrix of its own
    if row_count == 1 or -2 in plates or whole or not (in_fn or in_value):
        return
    got = f"batch_shape {tuple(fn.batch_shape)} and obs= of shape {value_shape}"
    if in_fn and in_value:
        fix = "add .to_event(1) to the distribution, or drop the last dimension of both"
    elif in_fn:
        fix = "drop the last dimension of the distribution's parameters, as in logits.squeeze(-1)"
    else:
        fix = "drop the last dimension of the value, as in y.squeeze(-1)"
    yield PlateFault(
        f'site "{name}"',
        f"expected batch_shape ({row_count},), one entry for each row, got {got}: broadcast "
        "to every row against all rows",
        fix,
    )


def _as_long(site: sites.Site, row_count: int, row_plates: set[str]) -> bool:
    """Return whether a site is as long as the batch, and no other plate explains that."""
    shape = tuple(site["fn"].batch_shape)
    as_long = bool(shape) and shape[-1] == row_count and row_count > 1
    return as_long and _innermost_plate(site) in row_plates


def _innermost_plate(site: sites.Site) -> str:
    """Return the name of the plate at dim -1, or "" where there is none."""
    return next((f.name for f in site["cond_indep_stack"] if f.dim == -1), "")


def _outside_row_plate(plate: str, name: str, site: sites.Site, role: str) -> PlateFault:
    """Return the fault of a site that belongs to the rows but stands outside their plate."""
    where, other = f'site "{name}"', _innermost_plate(site)
    problem = f'expected the site in the row plate "{plate}" of the {role}, got '
    fix = f'put the sample statement in "with pyro.plate("{plate}", len(x)):"'
    if not other:
        return PlateFault(where, f"{problem}no plate at dim -1", fix)
    fix = f'pass plate="{other}" if that plate holds the rows, or {fix}'
    return PlateFault(where, f'{problem}plate "{other}"', fix)
