"""One column of a table: its kind, and the way from its cells to numbers and back.

    real, positive, count   the number itself, less an offset where that is far from 0
    date                    days, seconds or parts of a second since the first date
    categories              0, 1, 2, ...

A new kind of column needs a line in ``kinds.KINDS``, its guess there, and its likelihood in the
model's file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import shown
from ppl_vae.data.kinds import CATEGORIES, LEFT_OUT, SMALLEST
from ppl_vae.data.plain_columns import (
    as_float,
    as_typed,
    factorized,
    in_type,
    is_missing,
    limits_of,
    place_of,
    plain,
    text_of,
    type_named,
)
from ppl_vae.data.times import (
    are_dates,
    dates_of,
    in_form,
    is_time,
    numbers_of,
    spans_of,
)

LARGEST = 1e15
"""The largest number of a column: the squares of larger ones leave single precision."""

ORDERED = "ordered category"
"""Name of the type of ordered categories, which pandas calls like that of others."""


WHOLE = "%d"
"""The form of numbers that are whole."""


@dataclass(frozen=True)
class SchemaColumn:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: One of ``kinds.KINDS``, or ``"ignored"`` for a column that the user leaves out.
        dtype: The type of its cells, as pandas calls it.
        unit: Of dates and spans of time, a name in ``times.UNITS``; else ``None``.
        form: Of dates that are text or objects of Python, how they are written; of numbers
            ``WHOLE`` where all are whole; else "".
        offset: What is taken off the numbers; of dates the first one, in the unit since 1970.
        categories: Its categories, as JSON can hold them; none for numbers.
        lower: The smallest number, in the column's unit; ``None`` for categories.
        upper: The largest number, likewise.
        atoms: Numbers that repeat, which get probabilities of their own, less the offset.
        loc: Mean of the numbers, or of their logarithms for ``positive``, without the atoms.
        scale: Standard deviation of the same numbers.
        gaps: Share of its cells that are missing.
        note: What a reader should look at; "" for nothing.
        originals: The categories as the table has them; ``None`` where JSON holds them all.
        pandas_type: The type of its cells; ``None`` for a schema from JSON, which has the name.
    """

    name: Any
    kind: str
    dtype: str
    unit: str | None = None
    form: str = ""
    offset: float = 0.0
    categories: tuple[Any, ...] = ()
    lower: float | None = None
    upper: float | None = None
    atoms: tuple[float, ...] = ()
    loc: float = 0.0
    scale: float = 1.0
    gaps: float = 0.0
    note: str = ""
    originals: tuple[Any, ...] | None = field(default=None, compare=False, repr=False)
    pandas_type: Any = field(default=None, compare=False, repr=False)

    @property
    def is_left_out(self) -> bool:
        """Whether no model reads the column."""
        return self.kind in LEFT_OUT or self.kind == "ignored"

    @property
    def is_category(self) -> bool:
        """Whether the values are categories; else they are numbers."""
        return self.kind in CATEGORIES

    @property
    def is_read(self) -> bool:
        """Whether categories or a range are known: a user may write a schema without them."""
        if self.is_left_out:
            return True
        return bool(self.categories) if self.is_category else self.lower is not None

    @property
    def likelihood(self) -> str:
        """The kind whose likelihood describes the numbers: that of real ones for dates."""
        return "real" if self.kind == "date" else self.kind

    @property
    def width(self) -> int:
        """How many numbers a covariate takes: an indicator of each category or atom, and a number.

        Categories have no number beside their indicators.
        """
        return len(self.categories) if self.is_category else 1 + len(self.atoms)

    @property
    def codes(self) -> tuple[Any, ...]:
        """What the numbers of the column depend on: columns with the same have the same numbers."""
        categories = tuple(map(text_of, self.categories))
        return text_of(self.name), self.kind, self.unit, self.offset, categories, self.atoms

    def layout(self) -> dict[str, Any]:
        """Return what a model or a guide needs of the column, for its argument ``columns``."""
        return {
            "name": self.name if isinstance(self.name, int) else text_of(self.name),
            "kind": self.likelihood, "loc": self.loc, "scale": self.scale,
            "categories": len(self.categories), "atoms": list(self.atoms),
        }  # fmt: skip

    def summary(self) -> dict[str, str]:
        """Return what a table of the schema shows of the column."""
        if self.is_category:
            few = ", ".join(map(text_of, self.categories[:4]))
            more = f", ... ({len(self.categories)})" if len(self.categories) > 4 else ""
            values = few + more
        elif self.is_left_out or self.lower is None or self.upper is None:
            values = ""
        elif self.kind == "date":
            values = f"{self._time(self.lower)} to {self._time(self.upper)}"
        else:
            values = f"{self.lower:g} to {self.upper:g}"
            if self.atoms:
                values += "; often " + ", ".join(f"{a + self.offset:g}" for a in self.atoms[:4])
        return {
            "kind": self.kind + (", left out" if self.is_left_out else ""),
            "unit": self.unit or "", "values": values,
            "missing": f"{self.gaps:.1%}" if self.gaps else "",
        }  # fmt: skip

    # To numbers

    def encoded(
        self, column: pd.Series, words: Sequence[Any], unseen: str, where: str
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the cells of a column as numbers, and which of them are there: (rows,) each.

        Args:
            column: The column.
            words: Texts and numbers that stand for a missing value.
            unseen: ``"missing"``; an unknown category is an error else, without gaps for "".
            where: The data's name, for messages.

        Raises:
            ValueError: If a cell is not of the column's kind.
        """
        column = plain(column)
        missing = is_missing(column, words)
        there = ~missing
        values = np.full(len(column), self.filling)
        if self.is_category:
            codes = self._codes(column, missing)
            unknown = there & (codes < 0)
            if unknown.any() and unseen != "missing":
                more = ', or take such cells for missing: table(..., unseen="missing")'
                raise self._error(
                    column, int(np.argmax(unknown)), where,
                    f"one of its {len(self.categories)} categories, "
                    f"{shown(list(self.categories[:5]))}", "correct it" + more * bool(unseen),
                )  # fmt: skip
            there = there & ~unknown
            values[there] = codes[there]
            return values, there
        numbers = self.numbers(column, missing, where)
        self.check_numbers(column, numbers, there, where)
        values[there] = (numbers - self.offset)[there]
        return values, there

    @property
    def filling(self) -> float:
        """A number of the column that stands in its missing cells: every likelihood takes it."""
        if self.is_category:
            return 0.0
        if self.kind == "count":
            return float(round(max(self.loc, 0.0)))
        return math.exp(self.loc) if self.kind == "positive" else self.loc

    def _codes(self, column: pd.Series, missing: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the place of each cell among the categories, (rows,); -1 for none."""
        if all(isinstance(key, int | float) for key in self.categories):
            column = as_typed(column, missing)  # texts that spell the numbers
        factors, different = factorized(column)
        known = {text_of(key): place for place, key in enumerate(self.categories)}
        places = np.array([known.get(text_of(value), -1) for value in different] + [-1])
        return np.where(missing, -1, places[factors])

    def numbers(
        self, column: pd.Series, missing: np.ndarray[Any, Any], where: str
    ) -> np.ndarray[Any, Any]:
        """Return the numbers of a column, dates and spans in their unit; NaN where missing.

        Args:
            column: The column, as ``plain`` returns it.
            missing: Which cells are missing, (rows,) of bool.
            where: The data's name, for messages.

        Raises:
            ValueError: If a cell is no number, or no date.
        """
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(object)
        if missing.all():
            return np.full(len(column), np.nan)
        values = as_typed(column, missing)
        if self.unit is not None:
            self._check_times(column, values, missing, where)
            return numbers_of(values.mask(missing), self.unit)
        wanted = "a date" if self.kind == "date" else "a number"
        if is_time(values.dtype) or values.dtype.kind in "mc" or self.kind == "date":
            raise self._error(column, int(np.argmin(missing)), where, wanted, "")
        try:
            found = pd.to_numeric(values.mask(missing), errors="coerce").astype(float)
        except (TypeError, ValueError, OverflowError):  # a whole number that no float holds
            found = values.map(as_float)
        numbers = found.to_numpy(float)
        wrong = np.isnan(numbers) & ~missing
        if wrong.any():
            row = int(np.argmax(wrong))
            mend = 'name what stands for a gap by missing=["..."], or set the kind by kinds='
            raise self._error(column, row, where, wanted, mend)
        return numbers

    def _check_times(
        self, column: pd.Series, values: pd.Series, missing: np.ndarray[Any, Any], where: str
    ) -> None:
        """Raise ``ValueError`` where the cells of a column are no points, or spans, of time."""
        fits = is_time(values.dtype) if self.kind == "date" else values.dtype.kind == "m"
        has_zone = getattr(values.dtype, "tz", None) is not None
        if fits and (self.kind != "date" or has_zone == self.has_zone):
            return
        expected = "a date" if self.kind == "date" else "a span of time"
        if fits:
            expected += " with a time zone" if self.has_zone else " without a time zone"
        bad = ~missing
        if values.dtype.kind == "O" and self.kind == "date":  # the first cell that is none
            bad = bad & ~np.array([are_dates([v]) for v in column.tolist()])
            bad = bad if bad.any() else ~missing
        raise self._error(column, int(np.argmax(bad)), where, expected, "")

    @property
    def has_zone(self) -> bool:
        """Whether dates have a time zone."""
        zone = getattr(self.type_of_cells, "tz", None) is not None
        return zone or "tz=" in self.dtype or self.form.endswith(("Z", "+00:00", "UTC"))

    def check_numbers(
        self, column: pd.Series, numbers: np.ndarray[Any, Any], there: np.ndarray[Any, Any],
        where: str,
    ) -> None:  # fmt: skip
        """Raise ``ValueError`` for the first number that the column's kind does not allow."""
        of_kind = f'set its kind: kinds={{"{self.name}": "real"}}'
        with np.errstate(invalid="ignore"):
            bad = there & ~(np.abs(numbers) <= (np.inf if self.kind == "date" else LARGEST))
            if bad.any():
                expected = f"numbers up to {LARGEST:g}"
                mend = f"correct it, use a larger unit, or leave it out: ignore=[{self.name!r}]"
            elif self.kind == "count":
                bad = there & ~((numbers >= 0) & (numbers == np.round(numbers)))
                expected, mend = "a whole number from 0", of_kind
            elif self.kind == "positive":
                atom = np.isin(numbers, np.asarray(self.atoms))
                bad = there & ~((numbers >= SMALLEST) | atom)
                expected = "a number above 0" + (f", from {SMALLEST:g}" if bad.any() else "")
                mend = of_kind
        if bad.any():
            raise self._error(column, int(np.argmax(bad)), where, expected, mend)

    def _error(
        self, column: pd.Series, row: int, where: str, expected: str, mend: str
    ) -> ValueError:
        """Return the error for a cell that is not of the column's kind."""
        return ValueError(
            f'{where}: column "{self.name}" ({self.kind}): expected {expected}, got '
            f"{shown(column.iloc[row])} in {place_of(column, row)}{mend and '; ' + mend}"
        )

    # And back

    @property
    def type_of_cells(self) -> Any:
        """The type of the cells; that of objects where pandas knows no type of the name."""
        if self.pandas_type is not None:
            return self.pandas_type
        return type_named("category" if self.dtype == ORDERED else self.dtype)

    def decoded(self, x: np.ndarray[Any, Any], there: np.ndarray[Any, Any]) -> pd.Series:
        """Return numbers as cells of the column, of its type: (rows,).

        Numbers that stood as text in the table come back as numbers.

        Args:
            x: The numbers; of a binary column probabilities as well.
            there: Which cells are there; the others become missing.
        """
        if self.is_category:
            return self._categories(np.clip(np.round(x), 0, len(self.categories) - 1), there)
        numbers = np.where(there, x + self.offset, np.nan)
        dtype = self.type_of_cells
        if self.unit is None:
            return self._cast(numbers, dtype)
        if self.kind != "date":
            return in_type(spans_of(numbers, self.unit, dtype), dtype)
        dates = dates_of(numbers, self.unit, dtype)
        if self.form:
            return in_type(in_form(dates, self.form, self.unit), dtype)
        return in_type(dates.dt.tz_localize("UTC") if self.has_zone else dates, dtype)

    def _cast(self, numbers: np.ndarray[Any, Any], dtype: Any) -> pd.Series:
        """Return numbers in the type of the column, whole ones where it holds whole ones."""
        if self.kind == "positive":  # a draw may be so small that single precision calls it 0
            atom = np.isin(numbers, np.asarray(self.atoms))
            least = 1.0 if self.form == WHOLE and min(self.atoms, default=1.0) > 0 else SMALLEST
            numbers = np.where(atom, numbers, np.maximum(numbers, least))
        numbers = np.maximum(numbers, 0.0) if self.kind == "count" else numbers
        is_whole = self.kind == "count" or self.form == WHOLE
        series = pd.Series(np.round(numbers) if is_whole else numbers)
        held = dtype.subtype if isinstance(dtype, pd.SparseDtype) else dtype
        if pd.api.types.is_integer_dtype(held):
            least, most = limits_of(held)
            series = series.round().clip(least, most)
        elif not pd.api.types.is_float_dtype(held):  # numbers that stood as text, say
            dtype = np.dtype("int64" if is_whole and not series.isna().any() else "float64")
        return in_type(series, dtype)

    def _categories(self, codes: np.ndarray[Any, Any], there: np.ndarray[Any, Any]) -> pd.Series:
        """Return the categories of codes, (rows,), in the type of the column."""
        values, dtype = self.originals or self.categories, self.type_of_cells
        places = np.where(there, codes, -1).astype(int)
        if isinstance(dtype, pd.CategoricalDtype):
            index = pd.Index(values, tupleize_cols=False)
            known = index if self.pandas_type is None else dtype.categories
            places = np.append(known.get_indexer(index), -1)[places]
            is_ordered = self.dtype == ORDERED
            return pd.Series(pd.Categorical.from_codes(places, known, ordered=is_ordered))
        cells = np.empty(len(values) + 1, dtype=object)  # the last one, None, is a missing cell
        for place, value in enumerate(values):
            cells[place] = value
        return in_type(pd.Series(cells[places], dtype=object), dtype)

    def _time(self, number: float) -> str:
        """Return the point in time of a number in the column's unit, as text."""
        unit = self.unit or "days"
        form = "%Y-%m-%d" if unit == "days" else "%Y-%m-%d %H:%M:%S"
        dates = dates_of(np.array([number]), unit, self.type_of_cells)
        return str(in_form(dates, form, unit).iloc[0])

    # Covariates

    def covariate(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the column as covariates, (rows, width): numbers without unit, or indicators.

        The number of a cell that holds an atom is 0, beside the indicator of the atom.
        """
        if self.is_category:
            return np.asarray(x[:, None] == np.arange(len(self.categories)), dtype=float)
        at = x[:, None] == np.asarray(self.atoms)
        values = np.log(np.maximum(x, SMALLEST)) if self.kind == "positive" else x
        numbers = np.where(at.any(1), 0.0, (values - self.loc) / self.scale)
        return np.concatenate([numbers[:, None], at.astype(float)], 1)

    def of_covariate(self, values: np.ndarray[Any, Any]) -> pd.Series:
        """Return covariates, (rows, width), as cells of the column."""
        everywhere = np.ones(len(values), dtype=bool)
        if self.is_category:
            return self.decoded(values.argmax(1).astype(float), everywhere)
        numbers = values[:, 0] * self.scale + self.loc
        numbers = np.exp(numbers) if self.kind == "positive" else numbers
        for place, atom in enumerate(self.atoms, 1):
            numbers = np.where(values[:, place] > 0.5, atom, numbers)
        form = "" if self.form == WHOLE else self.form  # they are no draws to be rounded
        return replace(self, form=form).decoded(numbers, everywhere)
