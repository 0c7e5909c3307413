"""``impute`` and its result: missing cells of the data, from their posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.arguments import (
    check_arguments,
    check_count,
    check_memory,
    check_number,
    check_seed,
    shown,
)
from ppl_vae.bars import Bar
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.fields import Field
from ppl_vae.data.rows import Data, Rows
from ppl_vae.imputation.completed import completed_data
from ppl_vae.imputation.imputer import Imputer
from ppl_vae.imputation.missing import MissingCells, find_missing
from ppl_vae.imputation.of_tables import categories_of, check_fields, of_unknown, table_lines
from ppl_vae.imputation.reliability import lines, reasons, warn
from ppl_vae.imputation.summaries import STATISTICS, BlockDraws, joined_rows
from ppl_vae.verdicts import Block, Line, Table, verdict

LINE = ("row", "column", *STATISTICS, "k_hat", "reason")
"""Columns of the frame of missing cells."""

SHOWN = 5  # columns with the most missing cells that a text lists


@dataclass(frozen=True)
@verdict
class Imputation:
    """Missing cells of the data, filled from their posterior.

    Attributes:
        completed: The data in their own form, index and order of columns, with a value in each
            missing cell: the posterior mean; the median of positive numbers, as of a ``LogNormal``
            or ``Gamma`` likelihood, whose mean a single far draw may decide; the rounded mean of
            counts; the most probable category of categories and of 0 and 1. Observed cells are
            those that were given, bit by bit; so are cells of a table with a category that the fit
            did not have, which the model takes for missing and ``frame`` has. A column of whole
            numbers becomes one of double precision where it cannot hold a value. A mask beside the
            data stays as it was.
        frame: A line for each missing cell, in the data's units: ``row``, the label of the row;
            ``column``, the name or position of the column (for rows of several dimensions a tuple,
            such as step and column; where several fields have missing cells, the field comes
            first); ``value``; ``sd``, the posterior standard deviation, NaN for positive numbers
            whose mean is outside the central 90 % of the draws; ``lower`` and ``upper``, between
            which the cell lies with probability ``level``; ``probability`` of the most probable
            category, else NaN; ``k_hat`` of the row; ``reason``, why the line is unreliable, ""
            where it is reliable. Categories have no order: ``sd``, ``lower`` and ``upper`` are NaN.
        unreliable: Which lines of ``frame`` are unreliable, (cells,) of bool. "few draws count":
            by the row's importance weights, ``k_hat`` above min(1 - 1/log10(S), 0.7) and less than
            S/2 effective draws; without ``k_hat``, less than 100 of them. "value outside its
            interval": a mean that is outside the central 90 % of the draws, whatever ``level`` is,
            because a few far draws decide it.
        rows: Number of rows that have missing cells.
        num_samples: S, draws for each row.
        level: Probability of the intervals.

    Example:
        >>> from ppl_vae import impute
        >>> from ppl_vae.models.state_space import StateSpaceModel
        >>> x = torch.zeros(2, 3, 1)
        >>> seen = torch.tensor([[1, 0, 1], [1, 1, 1]])[..., None].bool()
        >>> data = {"x": x, "lengths": torch.tensor([3, 2]), "seen": seen}
        >>> result = impute(StateSpaceModel(1, 1), None, data)
        >>> result.frame[["row", "column"]].values.tolist()
        [[0, (1, 0)]]
    """

    completed: Any
    frame: pd.DataFrame
    unreliable: np.ndarray
    rows: int
    num_samples: int
    level: float
    _imputer: Imputer = field(repr=False, compare=False)
    _seed: int | None = field(repr=False, compare=False)
    _probabilities: dict[str, Tensor] = field(repr=False, compare=False, default_factory=dict)

    def draw(self, m: int = 5, seed: int | None = 0) -> list[Any]:
        """Draw completed data sets: multiple imputation.

        All missing cells of a row come from one draw of the latents, so that a data set has the
        correlations of the posterior. The pair runs again.

        Args:
            m: Number of data sets.
            seed: Seeds the draws; the generators are restored afterwards.

        Returns:
            m data sets in the form of ``completed``.

        Raises:
            ValueError: If the data or the pair have changed, so that other cells are missing.

        Example:
            >>> from ppl_vae import impute
            >>> from ppl_vae.models.hmm import HMMModel
            >>> result = impute(HMMModel(2, 1), None, torch.zeros(3, 2, 1))
            >>> len(result.draw(2))
            2
        """
        check_count("m", m)
        check_seed("seed", seed)
        size = m * (self._imputer.rows.bytes_per_row * len(self._imputer.rows))
        check_memory("m", m, size, "draw fewer data sets at a time, with a seed for each call")
        values = torch.zeros(m, len(self._imputer.cells), dtype=torch.double)
        if len(self._imputer.cells):
            values = torch.cat(self._imputer.over_blocks(lambda draws: draws.draws(m), seed), 1)
        source = self._imputer
        return [completed_data(source.data, source.rows, source.cells, each) for each in values]

    def probabilities(self, column: Any) -> pd.DataFrame:
        """Return the probability of each category in the missing cells of a column.

        The pair runs again at the first call.

        Args:
            column: The column, as ``frame["column"]`` has it.

        Returns:
            A line for each missing cell of the column, with the label of its row; a column for each
            category: of a table its name, else its number.

        Raises:
            ValueError: If the column has no missing cell, or holds numbers.

        Example:
            >>> from ppl_vae import impute
            >>> from ppl_vae.models.hmm import HMMModel
            >>> seen = torch.ones(3, 2, 1, dtype=torch.bool)
            >>> impute(HMMModel(2, 1), None, torch.zeros(3, 2, 1)).frame.empty
            True
        """
        source, names = self._imputer, None
        lines = np.array([each == column for each in self.frame["column"]], dtype=bool)
        if source.rows.schema is not None:
            lines, names = categories_of(source.rows, source.cells, column)
        if not lines.any():
            known = list(dict.fromkeys(self.frame["column"]))
            raise ValueError(f"column: expected one of {known[:9]}, got {shown(column)}")
        if "all" not in self._probabilities:
            parts = source.over_blocks(BlockDraws.probabilities, self._seed)
            self._probabilities["all"] = joined_rows(parts)
        found = self._probabilities["all"][torch.from_numpy(lines)]
        if bool(found.isnan().all()):
            raise ValueError(f"column: expected one of categories, got {shown(column)} of numbers")
        found = found[:, ~found.isnan().all(0)]
        names = list(range(found.shape[1])) if names is None else names
        labels = pd.Index(names, tupleize_cols=False)
        return pd.DataFrame(found[:, : len(names)].numpy(), self.frame["row"][lines], labels)

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        total = len(self._imputer.rows)
        if not len(self.frame):
            return [[Line(f"no cell is missing in {total:,} rows", "title")]]
        title = f"{len(self.frame):,} missing cells imputed in {self.rows:,} of {total:,} rows"
        kept = int(of_unknown(self._imputer.rows, self._imputer.cells).sum())
        head = [Line(title, "title")]
        if kept:
            text = f"{kept:,} hold a category that the fit did not have, and stay as they are"
            head.append(Line(text, "warning"))
        reliability = lines(self.frame, self._imputer.cells.rows, self.rows)
        missing = self.frame["column"].astype(str).value_counts(sort=True)[:SHOWN]
        table = pd.DataFrame({"missing": missing, "share": missing / total})
        caption = "columns with the most missing cells"
        return [
            [*head, *reliability],
            Table(table.rename_axis(None), ".1%", caption),
        ]


def impute(
    model: Model,
    guide: Guide | None,
    data: Data,
    *,
    num_samples: int = 1000,
    level: float = 0.9,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> Imputation:
    """Return the data with their missing cells filled, and how sure each value is.

    A cell is missing where the model masks its likelihood: ``dist.Normal(...).mask(seen)``,
    ``poutine.mask`` or Pyro's ``obs_mask=``. The guide draws latents for each row, and importance
    weights make these draws follow the posterior given the observed cells; the model draws the
    missing cells from its likelihood. Where a latent of the model holds the missing cells, as where
    cells are missing for reasons that depend on them (``models/not_missing_at_random.py``), its
    values are the cells. Networks run in evaluation mode. Steps after the end of a sequence are no
    missing cells.

    Args:
        model: The model.
        guide: The guide; ``None`` draws latents from the prior.
        data: N rows, in any form that ``fit`` takes. What stands in a missing cell does not matter.
        num_samples: S, draws of the latents for each row.
        level: Probability of the intervals, between 0 and 1. They are central: below and above lie
            at most (1 - level) / 2 each.
        seed: Seeds the draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        An ``Imputation``: ``completed``, ``frame`` with a line for each missing cell, and
        ``draw(m)`` for multiple imputation. Without missing cells, ``completed`` is a copy of the
        data. A row of which nothing is observed gets what the model says of any row. Latents
        outside the row plate are taken as fitted to other rows than each row itself.

    Raises:
        ValueError: If a cell is NaN and no mask hides it; if a mask hides values that are no cells
            of the data; if the model reads the numbers that stand in missing cells; if the guide
            gives a latent of the rows as a point; if the weights of a row are NaN.

    Warns:
        UnreliableWarning: If in some rows few draws count, by ``k_hat`` and by their effective
            number; if a few far draws decide the mean of a cell.

    Example:
        >>> from ppl_vae.models.state_space import StateSpaceModel
        >>> seen = torch.ones(2, 3, 1, dtype=torch.bool)
        >>> seen[0, 1] = False
        >>> data = {"x": torch.zeros(2, 3, 1), "lengths": torch.tensor([3, 3]), "seen": seen}
        >>> impute(StateSpaceModel(1, 1), None, data).frame["row"].tolist()
        [0]
    """
    check_arguments(num_samples=num_samples, seed=seed, progress=progress)
    check_number("level", level, positive=True)
    if level >= 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {shown(level)}")
    pair = Pair.of(model, guide, plate)
    rows = pair.rows(data)
    cells, places = find_missing(pair, rows)
    check_fields(rows, cells)
    imputer = Imputer(pair, data, rows, cells, places, num_samples)
    found = _summaries(imputer, level, seed, Bar("imputation", progress))
    incomplete = int(cells.rows.unique().numel())
    frame = _frame(rows, cells, found).assign(reason=reasons(found, num_samples))
    warn(frame, cells.rows, incomplete)
    unreliable = (frame["reason"] != "").to_numpy(bool, copy=True)
    completed = completed_data(data, rows, cells, found["value"])
    return Imputation(
        completed, frame, unreliable, incomplete, num_samples, float(level), imputer, seed
    )


def _summaries(imputer: Imputer, level: float, seed: int | None, bar: Bar) -> dict[str, Tensor]:
    """Return statistics of all missing cells, and ess and k-hat of their rows, (cells,) each."""
    names = (*STATISTICS, "ess", "k_hat")
    if not len(imputer.cells):
        bar.over([], unit="block")
        none = torch.zeros(0, dtype=torch.double)
        return dict.fromkeys(names, none) | {"outside": none.bool()}
    parts = imputer.over_blocks(lambda draws: draws.summary(level) | draws.reliability(), seed, bar)
    return {name: torch.cat([part[name] for part in parts]) for name in (*names, "outside")}


def _frame(rows: Rows, cells: MissingCells, found: dict[str, Tensor]) -> pd.DataFrame:
    """Return the lines of the missing cells."""
    if rows.schema is not None:
        of_columns = {"row": rows.index[cells.rows.numpy()], **table_lines(rows, cells, found)}
        others = {n: found[n].numpy() for n in (*STATISTICS, "k_hat") if n not in of_columns}
        return pd.DataFrame({n: {**of_columns, **others}[n] for n in LINE[:-1]})
    several = len(cells.fields.unique()) > 1
    columns = np.empty(len(cells), dtype=object)
    for number, each in enumerate(rows.fields):
        chosen = (cells.fields == number).numpy()
        labels = column_labels(each, rows.names[number], several=several)
        columns[chosen] = labels[cells.places.numpy()[chosen]]
    frame = pd.DataFrame({"row": rows.index[cells.rows.numpy()], "column": columns})
    frame["column"] = frame["column"].infer_objects()
    numbers = {name: found[name].numpy() for name in (*STATISTICS, "k_hat")}
    return frame.assign(**numbers)


def column_labels(described: Field, name: str, *, several: bool) -> np.ndarray:
    """Return the label of each cell of a row of a field, (cells,) of objects.

    Args:
        described: The field.
        name: The field's name.
        several: Whether labels begin with the field's name.
    """
    shape = tuple(described.array.shape[1:])
    labels = np.empty(max(1, math.prod(shape)), dtype=object)
    has_names = isinstance(described.labels, pd.Index)
    for place in range(len(labels)):
        at: list[Any] = [int(each) for each in np.unravel_index(place, shape)] if shape else []
        if has_names and at:
            at[-1] = described.labels[at[-1]]
        if not at and not several:
            at = [name if described.labels is None else described.labels]
        at = [name, *at] if several else at
        labels[place] = at[0] if len(at) == 1 else tuple(at)
    return labels
