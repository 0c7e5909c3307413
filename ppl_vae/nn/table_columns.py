"""The columns of a table inside a model and a guide: those of one kind as a group.

    decoder's numbers  ->  the parameters of each column's likelihood    ColumnGroup.parameters
    cells of a row     ->  numbers of about unit size for an encoder     TableInputs

A column is told by a mapping, as ``data.schema`` makes it and JSON can hold it:

    {"kind": "real", "loc": 40.0, "scale": 12.0, "categories": 0, "atoms": [40.0]}
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad
from torch.nn.utils.rnn import pad_sequence

from ppl_vae.arguments import shown
from ppl_vae.nn.condition import Condition

FLOOR = 0.01
"""The least standard deviation of a column of numbers, as a share of its scale."""


class ColumnGroup(nn.Module):
    """The columns of one kind, which stand side by side.

    Args:
        kind: The kind, such as ``"real"``.
        first: Position of the first column in the table.
        columns: The columns.
        cuts: Whether columns of ordered categories learn the cuts between these, as a model's do.

    Attributes:
        columns: Where the columns stand in a row, a slice.
        loc: Center of each column, (columns,), in its unit; of logarithms for ``"positive"``.
        scale: Spread of each column, (columns,), likewise.
        categories: Number of categories of each column.
        atoms: Values with probabilities of their own, (columns, atoms), NaN where a column has
            fewer.

    Example:
        >>> column = {"kind": "real", "loc": 2.0, "scale": 1.0, "categories": 0, "atoms": []}
        >>> group = ColumnGroup("real", 0, [column] * 3)
        >>> group.count, group.outputs(2)
        (3, 6)
    """

    loc: Tensor
    scale: Tensor
    atoms: Tensor
    places: Tensor
    own: Tensor
    last: Tensor

    def __init__(
        self, kind: str, first: int, columns: Sequence[Mapping[str, Any]], *, cuts: bool = True
    ) -> None:
        super().__init__()
        self.kind, self.columns = kind, slice(first, first + len(columns))
        dtype = torch.get_default_dtype()
        for name in ("loc", "scale"):
            values = torch.tensor([float(column[name]) for column in columns], dtype=dtype)
            self.register_buffer(name, values)
        self.categories = tuple(int(column["categories"]) for column in columns)
        atoms = [torch.tensor(column["atoms"], dtype=dtype) for column in columns]
        self.register_buffer("atoms", pad_sequence(atoms, True, torch.nan))
        # Where each category stands among those of all columns, (columns, most categories); a
        # category that a column does not have points one past the end.
        places = torch.arange(sum(self.categories)).split(self.categories)
        padded = pad_sequence([*places], True, sum(self.categories))
        self.register_buffer("places", padded)
        self.register_buffer("own", (padded < sum(self.categories)).flatten().nonzero().flatten())
        last = torch.tensor(self.categories)[:, None] - 1
        self.register_buffer("last", last)  # place of each column's last category, (columns, 1)
        if kind == "ordinal" and cuts:
            most = max(self.categories)
            self.steps = nn.Parameter(torch.full((len(columns), max(most - 2, 0)), 0.5))
            self.start = nn.Parameter(torch.full((len(columns), 1), -most / 4))

    @property
    def count(self) -> int:
        """Number of columns."""
        return len(self.categories)

    def outputs(self, numbers: int) -> int:
        """Return how many numbers a decoder gives for the columns of a row.

        Args:
            numbers: How many each column takes; 0 for one number a category.
        """
        return numbers * self.count + self.atoms.numel() if numbers else sum(self.categories)

    def parameters_of(self, given: Tensor, numbers: int) -> tuple[Tensor, ...]:
        """Return the decoder's numbers apart, (..., columns) each, without those of atoms.

        Args:
            given: (..., outputs).
            numbers: As in ``outputs``; of 0, the logits of all categories are returned, padded
                with minus infinity: (..., columns, most categories).
        """
        if not numbers:
            return (pad(given, (0, 1), value=-torch.inf)[..., self.places],)
        return given[..., : numbers * self.count].chunk(numbers, -1)

    def deviation(self, log_variance: Tensor) -> Tensor:
        """Return a standard deviation in each column's unit, (..., columns).

        It is at least ``FLOOR`` of the column's scale. No scale is squared, because the squares of
        very small ones leave single precision.

        Args:
            log_variance: The logarithm of the variance without units, (..., columns).
        """
        return self.scale * (log_variance.exp() + FLOOR**2).sqrt()

    def atom_logits(self, given: Tensor) -> Tensor:
        """Return the decoder's numbers for the atoms, (..., columns, atoms): their logits.

        Args:
            given: The decoder's numbers, (..., outputs), of which the last are for atoms.
        """
        logits: Tensor = given[..., given.shape[-1] - self.atoms.numel() :]
        by_column: Tensor = logits.unflatten(-1, self.atoms.shape)
        return by_column

    def ordered_logits(self, center: Tensor) -> Tensor:
        """Return logits of ordered categories, (..., columns, most categories).

        The probability of a category is that of a logistic variable, centered at ``center``,
        between two cuts, which are learned.

        Args:
            center: (..., columns).
        """
        steps = self.steps.clamp(-30.0, 30.0)
        cuts = torch.cat([self.start, self.start + steps.exp().cumsum(-1)], -1)
        below = cuts - center[..., None]  # (..., columns, most - 1)
        place = torch.arange(cuts.shape[-1] + 1, device=cuts.device)
        # log(F(b) - F(a)) = log F(b) + log(1 - F(a)) + log(1 - exp(a - b)), a and b neighbours
        upper = pad(logsigmoid(below).masked_fill(place[:-1] >= self.last, 0.0), (0, 1))
        lower = pad(logsigmoid(-below), (1, 0))
        gap = pad((-torch.expm1(-steps.exp())).log(), (1, 1))
        gap = gap.masked_fill(place >= self.last, 0.0)
        return (upper + lower + gap).masked_fill(place > self.last, -torch.inf)

    def inputs(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return cells as numbers for an encoder, (..., numbers): 0 for a cell that is not there.

        Args:
            x: The cells of these columns, (..., columns).
            seen: Which of them are there, like x, of bool.
        """
        if sum(self.categories):
            each = torch.arange(self.places.shape[1], device=x.device)
            held = (x[..., None] == each) & seen[..., None]
            return held.to(x.dtype).flatten(-2).index_select(-1, self.own)
        value = x.clamp_min(1e-30).log() if self.kind == "positive" else x
        value = ((value - self.loc) / self.scale).clamp(-10.0, 10.0)
        at = (x[..., None] == self.atoms) & seen[..., None]
        value = torch.where(seen & ~at.any(-1), value, 0.0)
        return torch.cat([value, at.flatten(-2).to(x.dtype)], -1)


class TableInputs(nn.Module):
    """Rows of a table as numbers of about unit size: what an encoder reads.

    Numbers are scaled, an atom and a category is an indicator, and beside all of them stands which
    cells are there. A cell that is not there is 0, whatever it holds.

    Args:
        columns: The columns, as in the file's head.

    Attributes:
        size: How many numbers a row becomes.

    Example:
        >>> column = {"kind": "real", "loc": 2.0, "scale": 4.0, "categories": 0, "atoms": []}
        >>> TableInputs([column, column])(torch.tensor([[6.0, 9.0]]), torch.tensor([[True, False]]))
        tensor([[1., 0., 1., 0.]])
    """

    def __init__(self, columns: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.groups = nn.ModuleList(column_groups(columns))
        zeros = torch.zeros(1, len(columns))
        self.size = self(zeros, zeros.bool()).shape[-1]

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return numbers, (..., size), for rows x and the cells of them that are there."""
        each: Any = self.groups
        parts = [g.inputs(x[..., g.columns], seen[..., g.columns]) for g in each]
        return torch.cat([*parts, seen.to(x.dtype)], -1)


def column_groups(
    columns: Sequence[Mapping[str, Any]], kinds: Collection[str] | None = None
) -> list[ColumnGroup]:
    """Return the columns of a table by kind, in the order of the table.

    Args:
        columns: The columns, as in the file's head.
        kinds: The kinds that a model has likelihoods for; ``None`` for any kind, of columns that
            are read alone.

    Raises:
        ValueError: If there is no column, one is told in another way or is of another kind, or
            columns of one kind do not stand side by side.

    Example:
        >>> real = {"kind": "real", "loc": 2.0, "scale": 1.0, "categories": 0, "atoms": []}
        >>> groups = column_groups([real, real, {**real, "kind": "count"}])
        >>> [(group.kind, group.count) for group in groups]
        [('real', 2), ('count', 1)]
    """
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not columns:
        raise ValueError(
            f"columns: expected the columns of a table, got {shown(columns)}; build(Class, "
            "table(frame)) reads them from the data"
        )
    for column in columns:
        _check_column(column, kinds)
    found, first = [], 0
    for kind, members in groupby(columns, key=lambda column: str(column["kind"])):
        group = ColumnGroup(kind, first, list(members), cuts=kinds is not None)
        first += group.count
        found.append(group)
    names = [group.kind for group in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"columns: expected those of one kind side by side, got the kinds {', '.join(names)}"
        )
    return found


def _check_column(column: Any, kinds: Collection[str] | None) -> None:
    """Raise ``ValueError`` for a column that is told in another way than in the file's head."""
    needed = {"kind", "loc", "scale", "categories", "atoms"}
    if not isinstance(column, Mapping) or not needed <= set(column):
        raise ValueError(
            f"columns: expected a mapping with {', '.join(sorted(needed))} for each column, got "
            f"{shown(column)}"
        )
    kind, count, atoms = column["kind"], column["categories"], column["atoms"]
    if kinds is not None and kind not in kinds:
        raise ValueError(f"columns: expected kinds among {', '.join(kinds)}, got {shown(kind)}")
    if not (_is_number(column["loc"]) and _is_number(column["scale"]) and column["scale"] > 0):
        raise ValueError(
            "columns: expected a number loc and a scale above 0, got "
            f"{shown(column['loc'])} and {shown(column['scale'])}"
        )
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"columns: expected a number of categories, got {shown(count)}")
    if not isinstance(atoms, Sequence) or not all(map(_is_number, atoms)):
        raise ValueError(f"columns: expected a list of numbers as atoms, got {shown(atoms)}")


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number, and no truth value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def with_covariates(values: Tensor, y: Tensor | None, conditions: int) -> Tensor:
    """Return vectors joined with the covariates of their rows, (..., rows, size + conditions).

    Args:
        values: (..., rows, size).
        y: The covariates, (rows, conditions); ``None`` for none.
        conditions: Number of covariates, 0 for none.

    Raises:
        ValueError: If there are covariates and none were expected, or the other way round.

    Example:
        >>> with_covariates(torch.zeros(1, 2), torch.ones(1, 1), 1)
        tensor([[0., 0., 1.]])
    """
    if conditions == 0 and y is None:
        return values
    if conditions == 0 or y is None:
        expected = f"{conditions} covariates, for which the class was made"
        raise ValueError(f"y: expected {expected}, got {'none' if y is None else 'some'}")
    joined: Tensor = Condition(conditions)(values, y)
    return joined


def cells_there(x: Tensor, seen: Tensor | None, columns: int) -> tuple[Tensor, Tensor]:
    """Return rows with a number in every cell, and which cells are there, (rows, columns) each.

    Args:
        x: (rows, columns); cells that are not there hold any number; NaN only where ``seen`` is
            ``None``.
        seen: Which cells are there, like x, of bool; those that are not NaN if ``None``.
        columns: Number of columns.

    Raises:
        ValueError: If there are other columns.

    Example:
        >>> cells_there(torch.tensor([[1.0, torch.nan]]), None, 2)
        (tensor([[1., 0.]]), tensor([[ True, False]]))
    """
    for name, values in (("x", x), ("seen", x if seen is None else seen)):
        if values.shape[1:] != (columns,):
            raise ValueError(
                f"{name}: expected rows of shape ({columns},), which the model or guide was made "
                f"for, got rows of shape {tuple(values.shape[1:])}; build(Class, data) makes one "
                "for other columns"
            )
    x = x.to(torch.get_default_dtype())
    if seen is None:
        seen = ~x.isnan()
        x = x.nan_to_num(0.0)
    return x, seen.bool()
