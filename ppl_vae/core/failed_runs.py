"""A run of a pair that failed: its cause in the frames of the traceback, and its message in a line.

Pyro's frames hold the sample statement that was being executed and its distribution, whose shapes
say where the rows stand and where they should. The frame of torch's check of values holds those
outside a support. The frame that makes a plate holds its length. ``failed_calls`` looks further.
"""

from __future__ import annotations

import linecache
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor
from torch.distributions import Independent

from ppl_vae.core.supports import (
    basic_distribution,
    mend_outside,
    support_of,
    support_text,
)
from ppl_vae.data.cells import cell_name, cells_in
from ppl_vae.data.rows import Batch, as_tuple, batch_rows

LONGEST_TEXT = 500  # most characters of another library's message that are repeated


class Cause(NamedTuple):
    """What made a run fail.

    Attributes:
        where: The place: ``site "x"``, ``field "k"`` or ``parameter "guide.net.weight"``.
        problem: What was expected and what came.
        fix: What to change.
    """

    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.fix}"


class FieldsError(ValueError):
    """Raised where a half cannot be called on the fields of the data.

    Pyro may raise it again, with the same class and with the text alone; the error that this
    library raised is then the ``__cause__``.

    Attributes:
        cause: The field, what was expected and what came, and what to pass.
    """

    def __init__(self, cause: Cause | str) -> None:
        super().__init__(str(cause))
        self.cause = cause if isinstance(cause, Cause) else None


@dataclass(frozen=True)
class FailedRun:
    """A run of a pair, or of a half, that raised an error.

    Attributes:
        error: What the run raised.
        batch: The rows that it ran on.
        positions: Their positions in the data, (rows,).
        role: What ran: ``"model"``, ``"guide"`` or ``"pair"``.
        plate: Name of the row plate.
        parameters: The parameters by name.
        run: Runs the same code on the same rows again.
        labels: Labels of the columns of each field; empty where they are not known.
    """

    error: Exception
    batch: Batch
    positions: Tensor
    role: str
    plate: str
    parameters: dict[str, Tensor]
    run: Callable[[], Any]
    labels: Sequence[Any] = ()


def cause_in_frames(failed: FailedRun) -> Cause | None:
    """Return the cause that the error itself has, or the frames of its traceback show."""
    for error in (failed.error, failed.error.__cause__):
        if isinstance(error, FieldsError) and error.cause is not None:
            return error.cause
    site = failed_site(failed.error)
    cause = _subsampling_cause(failed)
    if site is not None and cause is None:
        cause = (
            shape_cause(site, batch_rows(failed.batch))
            or size_cause(site)
            or _support_cause(failed, site)
        )
    return cause


def error_text(error: Exception) -> str:
    """Return an error's class and message in one line, whole sentences only.

    An error without a message, such as that of a bare ``assert``, is told by its line of code.
    """
    text = " ".join(str(error.__cause__ if raised_again(error) else error).split())
    if not text:
        text = "no message"
        for frame, line in traceback.walk_tb(error.__traceback__):  # the last one raised it
            file = frame.f_code.co_filename
            text = f"{linecache.getline(file, line).strip()} ({file}, line {line})"
    if len(text) > LONGEST_TEXT:
        begun = text[:LONGEST_TEXT]
        ends = [begun.rfind(mark) for mark in (". ", ": ", "; ", ", ") if mark in begun]
        text = begun[: ends[0]] + " ..." if ends else f"{begun} ..."
    return f"{type(error).__name__}: {text}"


def raised_again(error: Exception) -> bool:
    """Return whether Pyro raised an error of a model or a guide again, with a table of all shapes.

    The error's own words are those of its ``__cause__``; the table comes after them.
    """
    own = error.__cause__
    return type(own) is type(error) and str(error).startswith(str(own))


def raised_in(error: Exception, *packages: str) -> bool:
    """Return whether the line of code that raised an error belongs to one of the packages."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in packages


# Sites


def _frames(error: Exception) -> list[Any]:
    """Return the frames that an error passed, the innermost first."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]


def failed_site(error: Exception) -> dict[str, Any] | None:
    """Return the sample statement that was executed, or scored, when an error was raised."""
    for frame in _frames(error):
        for name in ("msg", "site"):
            node = frame.f_locals.get(name)
            if isinstance(node, dict) and node.get("type") == "sample" and "fn" in node:
                return node
    return None


def shape_cause(site: dict[str, Any], row_count: int) -> Cause | None:
    """Return the cause where a distribution has the rows at another place than batch dim -1.

    Too few dimensions belong to the event then: an image of shape (channel, height, width) takes
    ``.to_event(3)``. Only a site with one plate is judged.

    Args:
        site: The site; its distribution need not fit into its plates.
        row_count: Rows of the batch.
    """
    fn = site["fn"]
    frames = [f for f in site["cond_indep_stack"] if f.dim is not None]
    batch_shape = tuple(getattr(fn, "batch_shape", ()))
    if [f.dim for f in frames] != [-1] or not batch_shape or frames[0].size != row_count:
        return None
    if batch_shape[-1] in (1, row_count):
        return None
    at_front, wrapped = row_count in batch_shape, isinstance(fn, Independent)
    if wrapped and not at_front:
        return None
    shape = batch_shape + tuple(fn.event_shape)
    event_dim = len(shape) - (shape.index(row_count) + 1 if at_front else 0)
    own = fn.base_dist.event_dim if wrapped else fn.event_dim
    fix = f"write .to_event({event_dim - own})"
    fix += f" in place of .to_event({fn.event_dim - own})" if wrapped else ""
    fix += ", so that what belongs to one row is one event"
    if not at_front:
        fix += "; parameters for single rows are indexed by row numbers, passed as a field"
    return Cause(
        f'site "{site["name"]}"',
        f'expected batch_shape ({row_count},), one entry for each row of plate "{frames[0].name}", '
        f"got batch_shape {batch_shape} and event_shape {tuple(fn.event_shape)}",
        fix,
    )


def size_cause(site: dict[str, Any]) -> Cause | None:
    """Return the cause where an observed row has another shape than the likelihood's event.

    Args:
        site: The site, whose value is observed.
    """
    value, event_shape = site.get("value"), tuple(getattr(site["fn"], "event_shape", ()))
    if not site.get("is_observed") or not isinstance(value, Tensor) or not event_shape:
        return None
    batch_shape = tuple(site["fn"].batch_shape)
    given, got = event_shape, tuple(value.shape[value.ndim - len(event_shape) :])
    if value.ndim and len(batch_shape) > 1 and batch_shape[0] == len(value):
        given, got = batch_shape[1:] + event_shape, tuple(value.shape[1:])  # rows came first
    fits = (a == b or 1 in (a, b) for a, b in zip(got, given, strict=False))  # broadcast
    if value.ndim <= len(event_shape) or (len(got) == len(given) and all(fits)):
        return None
    images = "resize or crop the images, or " if len(got) > 1 else ""
    return Cause(
        f'site "{site["name"]}"',
        f"expected rows of shape {given}, which the model gives, got rows of shape {got}",
        f"{images}give the columns that the model was made for (of counts of words, the same "
        "vocabulary); or make a model for these rows: build(Class, data)",
    )


def _support_cause(failed: FailedRun, site: dict[str, Any]) -> Cause | None:
    """Return the cause where torch has refused a site's value as outside its support."""
    checks = [f.f_locals for f in _frames(failed.error) if f.f_code.co_name == "_validate_sample"]
    if not checks or not {"support", "valid", "value"} <= checks[0].keys():
        return None
    valid, value = checks[0]["valid"], checks[0]["value"]
    row_dim = value.ndim - site["fn"].event_dim - 1
    if not 0 <= row_dim < valid.ndim or valid.shape[row_dim] != len(failed.positions):
        return None
    return outside_cause(site, ~valid, failed.batch, failed.positions, failed.labels)


def outside_cause(
    site: dict[str, Any],
    outside: Tensor,
    batch: Batch,
    positions: Tensor,
    labels: Sequence[Any] = (),
    source: str = "data",
) -> Cause:
    """Return the cause for an observed value outside its likelihood's support.

    Args:
        site: The site, in the row plate.
        outside: Which numbers of the value are outside, or which vectors; one is at least.
        batch: The rows.
        positions: Their positions in the data, (rows,).
        labels: Labels of the columns of each field; empty where they are not known.
        source: Name of the argument that the rows were given as.
    """
    fn, value = site["fn"], site["value"]
    cell = first_cell(site, outside, batch, labels)
    row = int(positions[cell.row]) if cell.row < len(positions) else cell.row
    numbers = value[cell.at].flatten()[:5].tolist()
    support = support_text(support_of(fn), cell.at)
    place = f"row {row}{cell.name and f', {cell.name}'}"
    place += "" if source == "data" else f" of {source}"
    return Cause(
        f'site "{site["name"]}"',
        f"expected values in the support of {type(basic_distribution(fn)).__name__.lstrip('_')} "
        f"({support}), got {', '.join(f'{number:g}' for number in numbers)} in {place}",
        mend_outside(fn, numbers[0]),
    )


class Cell(NamedTuple):
    """One number of a site's value, or one vector.

    Attributes:
        at: Where it stands in the value.
        row: Its row in the batch.
        name: Its place in the row of the data, such as ``column "age"``; "" where a row is one
            number.
    """

    at: tuple[int, ...]
    row: int
    name: str


def first_cell(
    site: dict[str, Any], marked: Tensor, batch: Batch, labels: Sequence[Any] = ()
) -> Cell:
    """Return the first marked cell of an observed value, in the first row that has one.

    A site may observe some columns of the data. The cell is named by its column in the data where
    the observed value can be found there, else by its place in the event.

    Args:
        site: The site, in the row plate.
        marked: (...) of bool, shaped like the value, or without the last dimensions of a vector.
        batch: The rows.
        labels: Labels of the columns of each field; empty where they are not known.
    """
    value, event_dim = site["value"], site["fn"].event_dim
    row_dim = value.ndim - event_dim - 1
    marks = marked.nonzero()
    index = tuple(marks[marks[:, row_dim].argmin()].tolist())
    fields = as_tuple(batch)
    place = cells_in(batch, value, event_dim) if marked.shape == value.shape else None
    if place is not None:
        field = fields[place[0]]
        shape = tuple(field.shape[1:])
        cell = int(place[1][index]) % max(1, math.prod(shape))
        position = [int(at) for at in np.unravel_index(cell, shape)] if shape else []
        own = labels[place[0]] if labels else None
        return Cell(index, index[row_dim], cell_name(position, shape, [(shape, own)]))
    shapes = [tuple(field.shape[1:]) for field in fields]
    described = zip(shapes, labels, strict=False)
    name = cell_name(index[row_dim + 1 :], marked.shape[row_dim + 1 :], described)
    return Cell(index, index[row_dim], name)


# Plates


def plate_cause(plate: str, role: str, row_count: int, length: int) -> Cause:
    """Return the cause for a row plate that is not as long as the batch.

    Args:
        plate: Name of the row plate.
        role: ``"model"`` or ``"guide"``.
        row_count: Rows of the batch.
        length: Rows that the plate stands for.
    """
    return Cause(
        f'plate "{plate}"',
        f"expected the {role} to open the row plate for the {row_count} rows of the batch, "
        f"got {length}",
        f'write pyro.plate("{plate}", len(x)): fit makes the batches itself, and scales them to '
        "the data",
    )


def _subsampling_cause(failed: FailedRun) -> Cause | None:
    """Return the cause where a row plate that subsamples wants more rows than the batch has."""
    row_count = batch_rows(failed.batch)
    for frame in _frames(failed.error):
        variables, file = frame.f_locals, frame.f_globals.get("__name__")
        length = variables.get("subsample_size")
        makes_plate = file == SubsampleMessenger.__module__ and isinstance(length, int)
        if makes_plate and variables.get("name") == failed.plate:
            return plate_cause(failed.plate, failed.role, row_count, length)
    return None
