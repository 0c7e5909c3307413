"""Do generated rows of a table lie too close to the real ones: were rows learned by heart?

    d(a, b) = mean over columns of d_c(a, b)
      numbers       |a_c - b_c| / range of the column, 1 at most
      categories    0 if a_c = b_c, else 1, and 1 for a category that the real rows do not have
      gaps          0 if both are gaps, 1 if one is
    covariates are left out

For each generated row, the distance to the closest real row; beside it, for real rows, the distance
to the closest other real row. A model that has learned what rows have in common, and not the rows,
gives distances of the second kind. A row at distance 0 is a copy; a table of few categories has
many copies by chance, among its own rows as well.

Generated rows that vary less than real ones are close to any real row, learned by heart or not.
Rows that were held out from the fit tell which: to them the generated rows are as close then.

The check finds rows that are copied. It proves nothing about what else the rows may give away. Rows
that ``generate`` makes have no gaps, so that the copy of a row with gaps is not seen to be one.

Source: Gower (1971), A general coefficient of similarity, Biometrics 27.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from math import lgamma
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import check_arguments, check_count, shown
from ppl_vae.bars import Bar
from ppl_vae.checks.held_out_rows import share_by_chance
from ppl_vae.data.arrow import of_pandas
from ppl_vae.data.mixed_tables import COVARIATES, SEEN, Table, X, by_schema, table
from ppl_vae.data.plain_columns import is_missing, plain, text_of
from ppl_vae.data.schema import Schema
from ppl_vae.verdicts import Block, Line, verdict
from ppl_vae.verdicts import Table as Lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLOSE = 0.05
"""Share of real rows that are called close to another; so many generated ones are by chance."""

CHANCE = 1e-4
"""Probability below which it is no chance that so many generated rows are close to real ones."""

BLOCK = 1 << 22
"""Distances that are computed at once."""


Cells = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
@verdict
class PrivacyCheck:
    """How close generated rows are to real rows, beside how close real rows are to one another.

    Attributes:
        frame: A line for each generated row that was looked at, with its index: ``distance`` to the
            closest real row, from 0 to 1; ``closest``, the label of that row; ``close``, whether it
            is closer than 95 % of the real rows are to another real row.
        real: Of some real rows, the distance to the closest other real row, (rows,).
        limit: The distance below which 5 % of the real rows have another real row.
        held_out: Of each generated row, the distance to the closest row that was held out from the
            fit, (rows,); ``None`` without such rows.
        nearer: Share of generated rows whose closest real row was in the fit; NaN likewise.
        expected: The same share, if it is by chance which real rows were in the fit.
        chance: Probability, by chance, of a share as large as ``nearer`` or of so many copies of
            rows of the fit among the copies of real rows, the smaller one, doubled.

    Example:
        >>> people = pd.DataFrame({"age": range(20, 60), "city": ["Rome", "Oslo"] * 20})
        >>> found = privacy_check(people.head(3), people)
        >>> found.too_close, found.copies, len(found.frame)
        (False, (1.0, 1.0), 3)
        >>> print(found.plot().get_xlabel())
        distance to the closest (other) real row
    """

    frame: pd.DataFrame
    real: np.ndarray = field(repr=False)
    limit: float = 0.0
    held_out: np.ndarray | None = field(default=None, repr=False)
    nearer: float = math.nan
    expected: float = math.nan
    chance: float = math.nan

    @property
    def copies(self) -> tuple[float, float]:
        """Share of generated rows that equal a real row, and of real rows that equal another."""
        return float((self.frame["distance"] == 0).mean()), float((self.real == 0).mean())

    @property
    def too_close(self) -> bool:
        """Whether more generated rows are close to a real row than by chance, or equal to one.

        With rows held out: whether more are closer to a row of the fit than to one held out.
        """
        if self.held_out is not None:
            return self.chance < CHANCE
        made, held = self.frame["distance"].to_numpy(), self.real
        pairs = ((made < self.limit, held < self.limit), (made == 0, held == 0))
        return any(_chance(*pair) < CHANCE for pair in pairs)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the distances of generated rows over those of real rows; return the axes."""
        from ppl_vae.plots.distances import distance_histogram  # noqa: PLC0415  slow

        return distance_histogram(self.frame["distance"], self.real, ax=ax)

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        close, (copied, twins) = float(self.frame["close"].mean()), self.copies
        title = f"{len(self.frame):,} generated rows: distance to the closest real row"
        lines = pd.DataFrame(
            {
                "median": [self.frame["distance"].median(), np.median(self.real)],
                "equal to a real row": [copied, twins],
                "closer than 95 % of real rows": [close, float((self.real < self.limit).mean())],
            },
            index=["generated rows", "real rows, to another"],
        )
        if self.held_out is not None:
            far = self.held_out
            lines.loc["generated rows, to one held out"] = [
                np.median(far), (far == 0).mean(), (far < self.limit).mean()
            ]  # fmt: skip
        return [[Line(title, "title"), self._told()], Lines(lines)]

    def _told(self) -> Line:
        """Return the verdict in words."""
        if self.held_out is not None:
            share = f"{self.nearer:.1%} of the generated rows are closest to a row of the fit, "
            share += f"{self.expected:.1%} by chance"
            if self.too_close:
                mend = "rows were learned by heart: fewer epochs, or a smaller decoder"
                return Line(f"{share}: {mend}", "warning")
            return Line(f"{share}: no closer than to rows that were held out")
        if not self.too_close:
            return Line("generated rows are no closer to real rows than these to one another")
        return Line(
            "generated rows are closer to real ones than these to one another: rows were learned "
            "by heart, or generated rows vary less than real ones; held_out= with rows that were "
            "not in the fit tells which",
            "warning",
        )


def _chance(made: np.ndarray, real: np.ndarray) -> float:
    """Return the probability that so many generated rows are close, if they were real rows.

    Where both kinds of rows are alike, their distances come in any order: how many generated ones
    are below the k-th of n real ones has a beta-binomial distribution. The n real rows count as
    n/2, because two rows are often the closest to one another and have one distance.

    Args:
        made: Which generated rows are close, (rows,) of bool.
        real: Which real rows are close to another one, likewise.

    Example:
        >>> few, many = np.arange(400) < 20, np.arange(400) < 80
        >>> bool(_chance(few, few) > 0.2), bool(_chance(many, few) < 1e-4)
        (True, True)
    """
    (n, k), (m, j) = ((len(each), int(each.sum())) for each in (real, made))
    if k == n:
        return 1.0
    a, b = (k + 1) / 2, (n - k) / 2
    norm = lgamma(m + a + b) + lgamma(a) + lgamma(b) - lgamma(a + b) - lgamma(m + 1)
    logs = [
        lgamma(i + a) + lgamma(m - i + b) - lgamma(i + 1) - lgamma(m - i + 1) - norm
        for i in range(j, m + 1)
    ]
    return float(np.exp(logs).sum())


def privacy_check(
    generated: Any,
    data: Any,
    *,
    held_out: Any = None,
    num_rows: int = 1000,
    seed: int | None = 0,
    progress: bool | None = None,
) -> PrivacyCheck:
    """Compare the distances of generated rows to real rows with those among real rows.

    A table whose repeated rows were removed has no two equal rows, whereas rows of an honest model
    repeat by chance: keep repeated rows where columns are few.

    Args:
        generated: A frame of generated rows, as ``generate`` returns it for a table. Columns that
            the schema of the data leaves out may be absent.
        data: The real rows that the model was fitted to: a frame, or what ``table`` made of it.
            Covariates of a table do not count, because ``generate`` copies them from real rows.
        held_out: Real rows of the same origin that the model was not fitted to, a frame or a table
            with the same columns, the more the better. With these the verdict is a fair one:
            whether generated rows are closer to the rows of the fit than to rows held out.
        num_rows: The most generated rows and the most real rows whose distances are looked at;
            each is compared with all real rows.
        seed: Chooses them.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.

    Raises:
        ValueError: If there are fewer than two real rows, or the generated rows or those held out
            have not the columns of the data.

    Example:
        >>> people = pd.DataFrame({"age": range(20, 60), "city": ["Rome", "Oslo"] * 20})
        >>> print(round(privacy_check(people.head(3), people).copies[0], 2))
        1.0
    """
    check_arguments(seed=seed, progress=progress)
    check_count("num_rows", num_rows)
    real = data if isinstance(data, Table) else table(data)
    frame = of_pandas(generated, "generated")
    if not isinstance(frame, pd.DataFrame) or not len(frame):
        raise ValueError(f"generated: expected a frame with rows, got {shown(generated)}")
    if len(real[X]) < 2:
        raise ValueError(f"data: expected two rows or more, got {len(real[X])}")
    schema = _of_any_numbers(real.schema)
    made = by_schema(frame, schema, "generated", tell=False)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(frame))[:num_rows])
    others = np.sort(random.permutation(len(real[X]))[:num_rows])
    cells, of_real = _cells(made), _cells(by_schema(_frame(real), schema, tell=False))
    apart_from = _held_out_cells(held_out, schema)
    bar = Bar("distances", progress)
    with bar.over(total=len(chosen) + len(others), unit="row") as told:
        rows = _rows_of(cells, chosen)
        distance, closest, *of_held = _closest(rows, of_real, apart_from, schema, told.update)
        rows = _rows_of(of_real, others)
        apart, *_ = _closest(rows, of_real, None, schema, told.update, without=others)
    limit = float(np.quantile(apart, CLOSE))
    index = real.index if real.index is not None else pd.RangeIndex(len(real[X]))
    found = pd.DataFrame(
        {"distance": distance, "closest": list(index[closest]), "close": distance < limit},
        index=frame.index[chosen],
    )
    if apart_from is None:
        return PrivacyCheck(found, apart, limit)
    expected = len(of_real[0]) / (len(of_real[0]) + len(apart_from[0]))
    beyond, counts, copies = of_held
    share, chance = share_by_chance(counts, len(of_real[0]), random)
    chance = min(1.0, 2 * min(chance, share_by_chance(copies, len(of_real[0]), random)[1]))
    return PrivacyCheck(found, apart, limit, beyond, share, expected, chance)


def _frame(real: Table) -> pd.DataFrame:
    """Return the frame of a table, made of its numbers where there is none."""
    if real.frame is not None:
        return real.frame
    return real.schema.decoded(real[X], real[SEEN], real.get(COVARIATES), real.index)


def _held_out_cells(held_out: Any, schema: Schema) -> Cells | None:
    """Return the cells of the rows that were held out; ``None`` where none are given.

    Raises:
        ValueError: If they are no frame with the columns of the schema.
    """
    if held_out is None:
        return None
    frame = _frame(held_out) if isinstance(held_out, Table) else of_pandas(held_out, "held_out")
    if not isinstance(frame, pd.DataFrame) or not len(frame):
        raise ValueError(f"held_out: expected a frame with rows, got {shown(held_out)}")
    return _cells(by_schema(frame, schema, "held_out", tell=False))


def _of_any_numbers(schema: Schema) -> Schema:
    """Return a schema that takes any numbers and categories, as another program may make them."""
    columns = [
        replace(column, kind="real") if column.kind in ("positive", "count") else column
        for column in schema.columns
    ]
    return replace(schema, columns=tuple(columns), unseen="missing")


def _cells(rows: Table) -> Cells:
    """Return the numbers of a table, and which cells are there, (rows, columns) each.

    Categories that the schema does not have are NaN, which equals nothing.
    """
    x, seen = rows[X].numpy().astype(np.float32), rows[SEEN].numpy().copy()
    assert rows.frame is not None
    places = list(map(text_of, rows.frame.columns))
    for number, column in enumerate(rows.schema.modelled):
        if column.is_category:
            cells = rows.frame.iloc[:, places.index(text_of(column.name))]
            unknown = ~seen[:, number] & ~is_missing(plain(cells), rows.schema.missing)
            x[unknown, number], seen[unknown, number] = np.nan, True
    return x, seen


def _rows_of(cells: Cells, chosen: np.ndarray) -> Cells:
    """Return some rows of numbers and of which cells are there."""
    return cells[0][chosen], cells[1][chosen]


def _closest(
    rows: Cells, real: Cells, held: Cells | None, schema: Schema, told: Any,
    without: np.ndarray | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """Return the distance of each row to the closest real row, and the position of that row.

    Args:
        rows: The rows.
        real: The real rows.
        held: Other real rows, which were held out; ``None`` for none.
        schema: Says which columns hold categories, and the range of numbers.
        told: Is called with the number of rows that are done.
        without: The position of a real row that does not count, for each row.

    Returns:
        The distances and the positions, (rows,) each; with ``held`` the distance of each row to the
        closest of these, and to how many rows each real row and each one held out is the closest,
        (real and held rows,): those at one distance share a row; and the same of copies alone.
    """
    fitted = len(real[0])
    if held is not None:
        real = np.concatenate([real[0], held[0]]), np.concatenate([real[1], held[1]])
    size = max(1, BLOCK // len(real[0]))
    distances, places, beyond = [], [], []
    counts, copies = np.zeros((2, len(real[0])))
    for start in range(0, len(rows[0]), size):
        part = _rows_of(rows, np.arange(start, min(start + size, len(rows[0]))))
        total = np.zeros((len(part[0]), len(real[0])), np.float32)
        for number, column in enumerate(schema.modelled):
            a, b = part[0][:, number, None], real[0][None, :, number]
            both = part[1][:, number, None] & real[1][None, :, number]
            if column.is_category:
                apart = (a != b).astype(np.float32)
            else:
                spread = (column.upper or 0.0) - (column.lower or 0.0)
                apart = np.minimum(np.abs(a - b) / np.float32(spread or 1.0), 1.0)
            neither = ~part[1][:, number, None] & ~real[1][None, :, number]
            total += np.where(both, apart, ~neither)
        mean = total / max(len(schema.modelled), 1)
        if without is not None:
            mean[np.arange(len(mean)), without[start : start + size]] = np.inf
        places.append(mean[:, :fitted].argmin(1))
        distances.append(mean[:, :fitted].min(1).astype(float))
        if held is not None:
            beyond.append(mean[:, fitted:].min(1).astype(float))
            ties = mean == mean.min(1, keepdims=True)
            shares = ties / ties.sum(1, keepdims=True)
            counts += shares.sum(0)
            copies += shares[(mean == 0).any(1)].sum(0)
        told(len(mean))
    found = [np.concatenate(distances), np.concatenate(places)]
    return found if held is None else [*found, np.concatenate(beyond), counts, copies]
