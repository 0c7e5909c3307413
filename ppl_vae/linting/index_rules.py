"""The linter's rules on indices: negative categories, and rows that share an index.

    table[k]   with k = -1   is the last row of the table

Pandas writes -1 for a missing category (``.cat.codes``). An embedding refuses it; a tensor that is
indexed directly counts from its end, and the missing category becomes the last one.

A guide with parameters for single rows finds them by the row's index (``ppl_vae.nn.KnownRows``).
Two rows of one index would share parameters, and the guide would refuse one of them after the fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl_vae.compat.of_torch import tensors_in
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.linting.inspection import (
    CannotRunError,
    Finding,
    Inspection,
    error,
    run_pair,
    warning,
)
from ppl_vae.nn import KnownRows, row_keys

HEAD = 1000  # rows that tell most columns of measurements from columns of categories


class NegativeIndices(TorchFunctionMode):
    """Context that stores the tensors with negative numbers by which tensors are indexed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.indices: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            for index in tensors_in(args[1:]):
                counts = index.dtype == torch.bool or index.is_floating_point()
                if not counts and bool((index < 0).any()):
                    self.indices.append(index)
        return func(*args, **(kwargs or {}))


def negative_indices(inspection: Inspection) -> Iterator[Finding]:
    """Find fields whose negative whole numbers are an index, on rows that have such numbers."""
    positions = _rows_with_negative_categories(inspection.rows)[: inspection.LARGER_BATCH]
    if not len(positions):
        return
    batch = inspection.rows.take(positions, inspection.pair.device())
    watch = NegativeIndices()
    with contextlib.suppress(CannotRunError), watch:
        run_pair(inspection.pair, batch, positions)
    reported = set()
    for index in watch.indices:
        place = cells_in(batch, index) if index.ndim and len(index) == len(positions) else None
        if place is None or place[0] in reported:
            continue
        reported.add(place[0])
        cells = place[1] // max(1, as_tuple(batch)[place[0]][0].numel())
        first = (index < 0).flatten().nonzero()[0, 0]
        row = int(positions[cells.flatten()[first].cpu()])
        name = inspection.rows.names[place[0]]
        yield warning(
            f'field "{name}"' if inspection.rows.keys else f"data field {name}",
            f"expected categories from 0 as an index, got {int(index.flatten()[first])} in row "
            f"{row}, which counts from the end of the table",
            "give a missing category a number of its own, and the table a row for it",
        )


def shared_indices(inspection: Inspection) -> Iterator[Finding]:
    """Find different rows of one index, by which a guide finds parameters of single rows."""
    guide, rows = inspection.pair.guide.module, inspection.rows
    known = [m for m in guide.modules() if isinstance(m, KnownRows)] if guide is not None else []
    calls: list[Any] = []  # what is called with an index, (rows,), and the rows
    hooks = [m.register_forward_pre_hook(lambda _, called: calls.append(called)) for m in known]
    try:
        with contextlib.suppress(CannotRunError):
            run_pair(inspection.pair, inspection.batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or len(calls[0]) != 2:
        return
    places = [cells_in(inspection.batch, read) for read in calls[0]]
    if places[0] is None or places[1] is None:  # computed from the fields
        return
    field, name = rows.fields[places[0][0]], rows.names[places[0][0]]
    index = field.take(rows.positions_in_data(torch.arange(len(rows)))).flatten()
    pair = _different_rows_of_one_index(rows, index, places[1][0])
    if pair is not None:
        yield error(
            f'field "{name}"' if rows.keys else f"data field {name}",
            "expected an index of its own for each row, as the guide has parameters for single "
            f"rows, got {int(index[pair[0]])} in rows {pair[0]} and {pair[1]}, which are different",
            "number the rows: torch.arange(len(x))",
        )


def _different_rows_of_one_index(
    rows: Rows, index: Tensor, position: int
) -> tuple[int, int] | None:
    """Return the places of two rows that share an index and are not equal, if there are any.

    Args:
        rows: The data.
        index: The index of each row, (rows,).
        position: Which field holds the rows that are compared.
    """
    order = torch.argsort(index, stable=True)
    shared = index[order][1:] == index[order][:-1]
    earlier, later = order[:-1][shared], order[1:][shared]
    if not len(later):
        return None
    keys = [row_keys(as_tuple(rows.take(part))[position]) for part in (earlier, later)]
    different = (keys[0] != keys[1]).nonzero().flatten().cpu()
    if not len(different):
        return None
    first = different[later[different].argmin()]
    return int(earlier[first]), int(later[first])


def _rows_with_negative_categories(rows: Rows) -> Tensor:
    """Return the positions of rows with negative numbers in a column of whole numbers, (rows,).

    Fields that are read batch by batch (memory maps) are left out.
    """
    marked = torch.zeros(len(rows), dtype=torch.bool)
    for field in rows.fields:
        if isinstance(field.array, Tensor) and field.array.dtype != torch.bool:
            array = field.array if rows.positions is None else field.array[rows.positions]
            columns = array.reshape(len(array), -1)
            columns = columns[:, _whole(columns[:HEAD])].cpu()  # most columns end here
            marked |= ((columns < 0) & _whole(columns)).any(1)
    return marked.nonzero().flatten()


def _whole(columns: Tensor) -> Tensor:
    """Return which columns hold whole numbers and NaN alone, (columns,) of bool."""
    if not columns.is_floating_point():
        return torch.ones(columns.shape[1], dtype=torch.bool, device=columns.device)
    return ((columns == columns.round()) | columns.isnan()).all(0)
