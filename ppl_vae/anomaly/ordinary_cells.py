"""By how much the score of a row falls where one of its cells has an ordinary value.

    attribution_i(x) = score(x) - min_v score(x with v in place of x_i)      i: cells of the row
    v: the quantiles 0.1, 0.3, 0.5, 0.7 and 0.9 of cell i over reference rows

The score is a function of the whole row, and so is the answer: a cell that is strange only beside
the other cells has a large attribution, for any likelihood. The part of a cell in
log p(x given z) says less, because a code follows the strange cell: the cell is reconstructed, and
the error shows in the other cells.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Rows, as_tuple

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
LOOKED_AT = 64  # rows from which the cells that a site observes are told apart


class OrdinaryCells:
    """Ordinary values of each cell that a pair observes.

    Args:
        pair: The pair.
        reference: Rows that are known to be normal.
        example: Rows of the same form, whose columns give the cells their names.

    Attributes:
        labels: Names of the cells, such as ``"age"``, ``"3"``, ``"0,3,5"`` of an image, or
            ``"7,speed"`` of a sequence's step 7.

    Example:
        >>> from ppl_vae.models.gaussian import GaussianModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> reference = Rows(torch.tensor([[1.0, 7.0], [2.0, 7.0]]))
        >>> pair = Pair.of(GaussianModel(2), NormalGuide(2), "data")
        >>> cells = OrdinaryCells(pair, reference, reference)
        >>> for cell, rows in cells.replaced(reference.subset(torch.tensor([0]))):
        ...     print(cell, rows.take(torch.arange(1))[0].tolist())
        0 [[1.0, 7.0]]
        0 [[2.0, 7.0]]
        1 [[1.0, 7.0]]
    """

    def __init__(self, pair: Pair, reference: Rows, example: Rows) -> None:
        self._shapes = _shapes(reference)
        self._check_steps(example)
        observed = _observed(pair, reference)
        whole = as_tuple(reference.take(torch.arange(len(reference))))
        at = [round(quantile * (len(reference) - 1)) for quantile in QUANTILES]
        self._cells: list[tuple[int, int, Tensor]] = []  # field, cell of its rows, values
        self.labels: list[str] = []
        for position, cells in observed.items():
            rising = whole[position].reshape(len(reference), -1).sort(0).values[at]
            names = _labels(example, position, named=len(observed) > 1)
            for cell in cells:  # values that rows have, so that a count stays a count
                self._cells.append((position, cell, rising[:, cell].unique()))
                self.labels.append(names[cell])

    def __len__(self) -> int:
        """Number of replacements that ``replaced`` yields."""
        return sum(len(values) for *_, values in self._cells)

    def replaced(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """Yield a cell's place among ``labels``, and all rows with an ordinary value in the cell.

        One value comes after the other, and one cell after the other.

        Raises:
            ValueError: If sequences have another number of steps than the reference rows.
        """
        self._check_steps(rows)
        tensors = as_tuple(rows.take(torch.arange(len(rows))))
        for place, (position, cell, values) in enumerate(self._cells):
            for value in values:
                changed = tensors[position].clone(memory_format=torch.contiguous_format)
                changed.view(len(rows), -1)[:, cell] = value
                fields = [*tensors[:position], changed, *tensors[position + 1 :]]
                yield place, rows.with_values(fields)

    def _check_steps(self, rows: Rows) -> None:
        """Raise ``ValueError`` where rows have cells that the reference rows do not have."""
        if _shapes(rows) != self._shapes:
            raise ValueError(
                f"attribution: expected rows of shapes {self._shapes}, as the reference rows have, "
                f"got {_shapes(rows)}; pad sequences to one number of steps, or leave attribution "
                "out and pass per_step=True"
            )


def _shapes(rows: Rows) -> list[tuple[int, ...]]:
    """Return the shape of a row of each field."""
    return [tuple(field.array.shape[1:]) for field in rows.fields]


def _observed(pair: Pair, rows: Rows) -> dict[int, list[int]]:
    """Return, for each field that is observed, the cells of its rows that are.

    Where what a site observes is computed from the data, every cell of every field is returned.
    """
    found: dict[int, set[int]] = {}
    with quiet_look(pair, rows, LOOKED_AT, spread=True) as batch:
        model_trace, _ = sites.traces(pair, batch)
        for site in sites.sample_sites(model_trace).values():
            if sites.role(site) != "data" or not sites.in_plate(site, pair.plate):
                continue
            fn = site["fn"]
            observed = cells_in(batch, site["value"], fn.event_dim)
            if observed is None:
                counts = [field[0].numel() for field in as_tuple(batch)]
                return {position: list(range(count)) for position, count in enumerate(counts)}
            position, cells = observed
            rows_first = cells.movedim(cells.ndim - 1 - fn.event_dim, 0)
            in_row = as_tuple(batch)[position][0].numel()
            of_site = (rows_first[0].reshape(-1) % in_row).tolist()
            found.setdefault(position, set()).update(of_site)
    return {position: sorted(cells) for position, cells in sorted(found.items())}


def _labels(rows: Rows, position: int, *, named: bool) -> list[str]:
    """Return the names of all cells of a field's rows.

    Args:
        rows: The data.
        position: The field's position.
        named: Whether the field's own name stands before them.
    """
    field = rows.fields[position]
    shape = tuple(field.array.shape[1:])
    names, places = field.columns, torch.ones(shape).nonzero().tolist() if shape else [[0]]
    if field.source == "series":
        labels = [str(field.labels)]
    elif names is not None:
        labels = [",".join(map(str, [*place[:-1], names[place[-1]]])) for place in places]
    else:
        labels = [",".join(map(str, place)) for place in places]
    return [f"{rows.names[position]}:{label}" for label in labels] if named else labels
