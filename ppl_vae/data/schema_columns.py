"""One column of a table: its kind, and the way from its cells to numbers and back.

    real, positive, count   the number itself, less an offset where that is far from 0
    date                    days or seconds since the first date
    categories              0, 1, 2, ...

A new kind of column needs a line in ``kinds.KINDS``, its guess there, and its likelihood in the
model's file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.arguments import shown
from ppl_vae.data.kinds import (
    CATEGORIES,
    KINDS,
    LEFT_OUT,
    as_typed,
    is_missing,
    is_time,
)

LARGEST = 1e15
"""The largest number of a column: the squares of larger ones leave single precision."""

UNITS = {"days": 86_400.0, "seconds": 1.0}
"""Seconds of each unit that dates are counted in."""


@dataclass(frozen=True)
class SchemaColumn:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: One of ``kinds.KINDS``, or ``"ignored"`` for a column that the user leaves out.
        dtype: The type of its cells, as pandas calls it.
        unit: Of dates and spans of time, ``"days"`` or ``"seconds"``; else ``None``.
        offset: What is taken off the numbers; of dates the first one, in seconds since 1970.
        categories: Its categories, as JSON can hold them; none for numbers.
        lower: The smallest number, in the column's unit; ``None`` for categories.
        upper: The largest number, likewise.
        atoms: Numbers that repeat, which get probabilities of their own, less the offset.
        loc: Mean of the numbers, or of their logarithms for ``positive``, without the atoms.
        scale: Standard deviation of the same numbers.
        gaps: Share of its cells that are missing.
        note: What a reader should look at; "" for nothing.
        originals: The categories as the table has them; ``None`` where JSON holds them all.
    """

    name: Any
    kind: str
    dtype: str
    unit: str | None = None
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

    @property
    def is_left_out(self) -> bool:
        """Whether no model reads the column."""
        return self.kind in LEFT_OUT or self.kind == "ignored"

    @property
    def is_category(self) -> bool:
        """Whether the values are categories; else they are numbers."""
        return self.kind in CATEGORIES

    @property
    def likelihood(self) -> str:
        """The kind whose likelihood describes the numbers: dates are described like real ones."""
        return "real" if self.kind == "date" else self.kind

    @property
    def width(self) -> int:
        """How many numbers a covariate takes: an indicator of each category, else one."""
        return len(self.categories) if self.is_category else 1

    def layout(self) -> dict[str, Any]:
        """Return what a model or a guide needs of the column, for its argument ``columns``."""
        return {
            "name": self.name if isinstance(self.name, int) else str(self.name),
            "kind": self.likelihood, "loc": self.loc, "scale": self.scale,
            "categories": len(self.categories), "atoms": list(self.atoms),
        }  # fmt: skip

    def summary(self) -> dict[str, str]:
        """Return what a table of the schema shows of the column."""
        if self.is_category:
            few = ", ".join(map(str, self.categories[:4]))
            more = f", ... ({len(self.categories)})" if len(self.categories) > 4 else ""
            values = few + more
        elif self.is_left_out or self.lower is None or self.upper is None:
            values = ""
        elif self.kind == "date":
            values = " to ".join(str(self._time(v)) for v in (self.lower, self.upper))
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
            unseen: What becomes of an unknown category, ``"error"`` or ``"missing"``.
            where: The data's name, for messages.

        Raises:
            ValueError: If a cell is not of the column's kind.
        """
        missing = is_missing(column, words)
        there = ~missing
        values = np.full(len(column), self.filling)
        if self.is_category:
            codes = self._codes(column, missing)
            unknown = there & (codes < 0)
            if unknown.any() and unseen == "error":
                row = int(np.argmax(unknown))
                raise self._error(
                    column, row, where, f"one of its {len(self.categories)} categories, "
                    f"{shown(list(self.categories[:5]))}",
                    'correct it, or take unknown categories for missing: unseen="missing"',
                )  # fmt: skip
            there = there & ~unknown
            values[there] = codes[there]
            return values, there
        numbers = self._numbers(column, missing, where)
        self._check_numbers(column, numbers, there, where)
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
        known = {key: place for place, key in enumerate(self.categories)}
        dtype = column.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            places = np.array([known.get(key_of(v), -1) for v in dtype.categories] + [-1])
            return np.asarray(places[np.asarray(column.cat.codes)])
        values = as_typed(column, missing)
        numeric = all(isinstance(key, int | float) for key in self.categories)
        if not numeric and not is_time(values.dtype) and values.dtype.kind != "m":
            values = column
        factors, different = pd.factorize(values, use_na_sentinel=True)
        places = np.array([known.get(key_of(v), -1) for v in different] + [-1])
        return np.where(missing, -1, places[factors])

    def _numbers(
        self, column: pd.Series, missing: np.ndarray[Any, Any], where: str
    ) -> np.ndarray[Any, Any]:
        """Return the numbers of a column, dates and spans in their unit; NaN where missing."""
        values = as_typed(column, missing)
        wanted = "a date" if self.kind == "date" else "a number"
        if self.unit is not None:
            fits = is_time(values.dtype) if self.kind == "date" else values.dtype.kind == "m"
            if not fits and not missing.all():
                row = int(np.argmin(missing))
                raise self._error(column, row, where, wanted, "")
            return seconds_of(values) / UNITS[self.unit]
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = values.astype(object)
        if is_time(values.dtype) or values.dtype.kind in "mc":
            raise self._error(column, int(np.argmin(missing)), where, wanted, "")
        numbers = pd.to_numeric(values.mask(missing), errors="coerce").to_numpy(
            float, na_value=np.nan
        )
        wrong = np.isnan(numbers) & ~missing
        if wrong.any():
            row = int(np.argmax(wrong))
            mend = 'name what stands for a gap by missing=["..."], or set the kind by kinds='
            raise self._error(column, row, where, wanted, mend)
        return np.asarray(numbers)

    def _check_numbers(
        self, column: pd.Series, numbers: np.ndarray[Any, Any], there: np.ndarray[Any, Any],
        where: str,
    ) -> None:  # fmt: skip
        """Raise ``ValueError`` for the first number that the column's kind does not allow."""
        of_kind = f'set its kind: kinds={{"{self.name}": "real"}}'
        with np.errstate(invalid="ignore"):
            bad = there & ~(np.abs(numbers) <= LARGEST)
            if bad.any():
                expected = f"numbers up to {LARGEST:g}"
                mend = "correct it, or give the column in a larger unit"
            elif self.kind == "count":
                bad = there & ~((numbers >= 0) & (numbers == np.round(numbers)))
                expected, mend = "a whole number from 0", of_kind
            elif self.kind == "positive":
                atom = np.isin(numbers, np.asarray(self.atoms) + self.offset)
                bad = there & ~((numbers > 0) | atom)
                expected, mend = "a number above 0", of_kind
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

    def decoded(self, x: np.ndarray[Any, Any], there: np.ndarray[Any, Any]) -> pd.Series:
        """Return numbers as cells of the column, of its type: (rows,).

        Args:
            x: The numbers; of a binary column probabilities as well.
            there: Which cells are there; the others become missing.
        """
        if self.is_category:
            return self._categories(np.clip(np.round(x), 0, len(self.categories) - 1), there)
        numbers = np.where(there, x + self.offset, np.nan)
        if self.kind == "date":
            return self._dates(numbers)
        if self.unit is not None:
            spans = pd.to_timedelta(np.round(numbers * UNITS[self.unit] * 1e9), unit="ns")
            cells: pd.Series = pd.Series(spans).astype(pd.api.types.pandas_dtype(self.dtype))
            return cells
        return self._cast(numbers)

    def _cast(self, numbers: np.ndarray[Any, Any]) -> pd.Series:
        """Return numbers in the type of the column, whole ones where it holds whole ones."""
        dtype = pd.api.types.pandas_dtype(self.dtype)
        series = pd.Series(numbers)
        if not pd.api.types.is_integer_dtype(dtype):
            if self.kind == "count":
                series = series.round()
            return series.astype(dtype) if pd.api.types.is_float_dtype(dtype) else series
        limits = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
        least = max(limits.min, 1) if self.kind == "positive" and not self.atoms else limits.min
        whole = series.round().clip(least, float(limits.max))
        if whole.isna().any() and isinstance(dtype, np.dtype):
            return whole  # an integer of NumPy cannot be missing
        return whole.astype(dtype)

    def _categories(self, codes: np.ndarray[Any, Any], there: np.ndarray[Any, Any]) -> pd.Series:
        """Return the categories of codes, (rows,), in the type of the column."""
        values = self.originals or self.categories
        dtype: Any = self.dtype
        whole = np.where(there, codes, -1).astype(int)
        if dtype == "category":
            ordered = self.kind == "ordinal"
            return pd.Series(pd.Categorical.from_codes(whole, pd.Index(values), ordered=ordered))
        cells = np.array([*values, None], dtype=object)[whole]
        series = pd.Series(cells, dtype=object)
        if dtype == "object" or (not there.all() and dtype == "bool"):
            return series
        if not there.all() and isinstance(pd.api.types.pandas_dtype(dtype), np.dtype):
            is_text = any(isinstance(value, str) for value in values)
            return series if is_text else pd.to_numeric(series)
        return series.astype(dtype)

    def _time(self, number: float) -> Any:
        """Return the point in time of a number in the column's unit, as text."""
        stamp = pd.Timestamp(number * UNITS[self.unit or "days"], unit="s")
        return stamp.date() if self.unit == "days" else stamp.round("s")

    def _dates(self, numbers: np.ndarray[Any, Any]) -> pd.Series:
        """Return points in time, rounded to the column's unit, in the type of the column."""
        whole = np.round(numbers) * UNITS[self.unit or "days"]
        stamps = pd.Series(pd.to_datetime(whole, unit="s", errors="coerce"))
        dtype = pd.api.types.pandas_dtype(self.dtype)
        if isinstance(dtype, pd.DatetimeTZDtype):
            return stamps.dt.tz_localize("UTC").dt.tz_convert(dtype.tz).astype(dtype)
        if is_time(dtype):
            return stamps.astype(dtype)
        text = stamps.dt.strftime("%Y-%m-%d" if self.unit == "days" else "%Y-%m-%d %H:%M:%S")
        return text.astype(object).where(stamps.notna(), None)

    # Covariates

    def covariate(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the column as covariates, (rows, width): numbers without unit, or indicators."""
        if self.is_category:
            return np.asarray(x[:, None] == np.arange(len(self.categories)), dtype=float)
        values = np.log(np.maximum(x, 1e-30)) if self.kind == "positive" else x
        return np.asarray((values - self.loc) / self.scale)[:, None]

    def of_covariate(self, values: np.ndarray[Any, Any]) -> pd.Series:
        """Return covariates, (rows, width), as cells of the column."""
        everywhere = np.ones(len(values), dtype=bool)
        if self.is_category:
            return self.decoded(values.argmax(1).astype(float), everywhere)
        numbers = values[:, 0] * self.scale + self.loc
        return self.decoded(np.exp(numbers) if self.kind == "positive" else numbers, everywhere)

    # JSON

    def to_json(self) -> dict[str, Any]:
        """Return the column as JSON can hold it."""
        entry = {name: getattr(self, name) for name in _FIELDS}
        entry["name"] = self.name if isinstance(self.name, int) else str(self.name)
        entry["categories"], entry["atoms"] = list(self.categories), list(self.atoms)
        return entry

    @classmethod
    def of_json(cls, entry: dict[str, Any]) -> SchemaColumn:
        """Return a column from what ``to_json`` returned."""
        known = {name: entry[name] for name in _FIELDS if name in entry}
        column = cls(**known)
        if column.kind not in (*KINDS, "ignored"):
            raise ValueError(
                f'column "{column.name}": kind: expected one of {", ".join(KINDS)}, got '
                f"{shown(column.kind)}"
            )
        object.__setattr__(column, "categories", tuple(column.categories))
        object.__setattr__(column, "atoms", tuple(map(float, column.atoms)))
        return column


_FIELDS = (
    "name", "kind", "dtype", "unit", "offset", "categories", "lower", "upper", "atoms", "loc",
    "scale", "gaps", "note",
)  # fmt: skip


def place_of(frame: Any, row: int) -> str:
    """Return where a row stands, for messages: its position and its label, where it has one.

    Example:
        >>> place_of(pd.DataFrame(index=["a", "b"]), 1)
        'row 1 (label b)'
    """
    label = frame.index[row]
    return f"row {row}" if label == row else f"row {row} (label {label})"


def key_of(value: Any) -> Any:
    """Return a category as JSON can hold it: texts, truth values and numbers, others as text.

    Example:
        >>> key_of(np.int64(3)), key_of(pd.Interval(0, 1))
        (3, '(0, 1]')
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def seconds_of(column: pd.Series) -> np.ndarray[Any, Any]:
    """Return points in time as seconds since 1970, or spans of time as seconds; NaN for none."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    values = column.to_numpy()
    if values.dtype.kind not in "mM":
        return np.full(len(values), np.nan)
    kind = "datetime64[ns]" if values.dtype.kind == "M" else "timedelta64[ns]"
    numbers = values.astype(kind).astype(np.int64) / 1e9
    return np.where(np.isnat(values), np.nan, numbers)
