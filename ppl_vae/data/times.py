"""Points and spans of time as numbers of days, seconds or parts of a second, and back.

Points in time count from the beginning of 1970, those with a time zone in UTC.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

UNITS = {"days": 86_400_000_000, "seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}
"""Microseconds of each unit that times are counted in."""

_ISO = re.compile(
    r"\s*\d{4}-\d{2}-\d{2}([T ]\d{2}(:?\d{2}(:?\d{2}([.,]\d+)?)?)?\s*(Z|[+-]\d.*)?)?\s*"
)
"""A date, or a date and a time of day, as ISO 8601 writes them."""

_LAST_SECOND = 253_402_300_799  # of the year 9999
_FIRST_SECOND = -62_135_596_800  # of the year 1
_NANOSECONDS = 9_223_372_036  # seconds from 1970 that 64 bits hold in nanoseconds


def is_time(dtype: Any) -> bool:
    """Return whether a dtype is one of points in time."""
    return isinstance(dtype, pd.DatetimeTZDtype) or dtype.kind == "M"


def are_dates(values: Sequence[Any]) -> bool:
    """Return whether cells of a column of objects are all points in time, texts or objects.

    Those with a time zone and those without are no column together.

    Example:
        >>> are_dates(["2024-05-01", "2024-05-01 10:30"]), are_dates(["2024-05-01", "May"])
        (True, False)
    """
    texts = [v for v in values if isinstance(v, str)]
    if len(texts) not in (0, len(values)):
        return False
    if texts and not all(map(_ISO.fullmatch, texts)):
        return False
    if not texts and not all(hasattr(v, "isoformat") and hasattr(v, "year") for v in values):
        return False
    zones = {_has_zone(value) for value in values}
    if len(zones) > 1 or not len(values):
        return False
    return len(_parsed(values, utc=zones == {True})) == len(values)


def _has_zone(value: Any) -> bool:
    """Return whether a date, as text or object, has a time zone."""
    if isinstance(value, str):
        return re.search(r"(Z|[+-]\d{2}(:?\d{2})?)\s*$", value.strip()[10:]) is not None
    return getattr(value, "tzinfo", None) is not None


def _parsed(values: Sequence[Any], *, utc: bool) -> pd.Series:
    """Return points in time, without those that are none."""
    with warnings.catch_warnings(action="ignore"):
        try:
            found = pd.to_datetime(
                pd.Series(values, dtype=object), errors="coerce", format="ISO8601", utc=utc
            )
        except (TypeError, ValueError, OverflowError):
            return pd.Series(dtype="datetime64[s]")
    return found.dropna() if is_time(found.dtype) else found[:0]


def parsed_dates(values: Sequence[Any]) -> pd.Series:
    """Return what ``are_dates`` lets pass as a column of points in time; zones become UTC."""
    return _parsed(values, utc=_has_zone(values[0]))


def dates_in(words: Sequence[Any]) -> list[pd.Timestamp]:
    """Return the points in time without a zone among words of any kind.

    Example:
        >>> dates_in(["?", "1900-01-01"])
        [Timestamp('1900-01-01 00:00:00')]
    """
    known = [word for word in words if are_dates([word]) and not _has_zone(word)]
    return [pd.Timestamp(word) for word in known]


# To numbers


def unit_of(column: pd.Series, missing: np.ndarray[Any, Any]) -> str:
    """Return the largest unit in which all times of a column are whole numbers.

    Times are rounded to microseconds.

    Args:
        column: Points or spans of time.
        missing: Which cells are missing, (rows,) of bool.

    Example:
        >>> unit_of(pd.Series(pd.to_datetime(["2024-05-01", "2024-05-02"])), np.zeros(2, bool))
        'days'
    """
    for unit in UNITS:
        numbers = numbers_of(column, unit)[~missing]
        if bool((numbers == np.round(numbers)).all()):
            return unit
    return "microseconds"


def numbers_of(column: pd.Series, unit: str) -> np.ndarray[Any, Any]:
    """Return points or spans of time as numbers of a unit, (rows,); NaN for those missing.

    Args:
        column: Points or spans of time.
        unit: A name in ``UNITS``.

    Example:
        >>> numbers_of(pd.Series(pd.to_timedelta(["36h", None])), "days").tolist()
        [1.5, nan]
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    values: Any = column.to_numpy()
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[np.datetime_data(values.dtype)[0]]
    missing = np.isnat(values)
    whole, rest = np.divmod(np.where(missing, 0, values.astype(np.int64)), per_second)
    size = UNITS[unit]
    if size >= UNITS["seconds"]:
        numbers = (whole + rest / per_second) / (size // UNITS["seconds"])
    else:
        numbers = whole * float(UNITS["seconds"] // size) + rest * (1e6 / per_second) / size
        numbers = np.round(numbers) if unit == "microseconds" else numbers
    return np.where(missing, np.nan, numbers)


# And back


def spans_of(numbers: np.ndarray[Any, Any], unit: str, dtype: Any) -> pd.Series:
    """Return numbers of a unit as spans of time, rounded to the unit; NaN becomes NaT.

    Args:
        numbers: (rows,).
        unit: A name in ``UNITS``.
        dtype: The type of the column.
    """
    most = _limit(dtype) * float(UNITS["seconds"]) / UNITS[unit]
    ticks = _ticks(np.clip(numbers, -most, most), unit)
    return pd.Series(ticks.astype("timedelta64[us]"))


def dates_of(numbers: np.ndarray[Any, Any], unit: str, dtype: Any) -> pd.Series:
    """Return numbers of a unit as points in time in UTC, rounded to the unit; NaN becomes NaT.

    They keep to what the type of the column can hold, and to the years from 1 to 9999.

    Args:
        numbers: (rows,).
        unit: A name in ``UNITS``.
        dtype: The type of the column.
    """
    limit, second = _limit(dtype), float(UNITS["seconds"]) / UNITS[unit]
    low, high = max(_FIRST_SECOND, -limit), min(_LAST_SECOND, limit)
    ticks = _ticks(np.clip(numbers, np.ceil(low * second), np.floor(high * second)), unit)
    return pd.Series(ticks.astype("datetime64[us]"))


def _limit(dtype: Any) -> int:
    """Return how many seconds from 0 a type of times reaches, less than a day of them."""
    unit = getattr(dtype, "unit", None) or (
        np.datetime_data(dtype)[0] if isinstance(dtype, np.dtype) and dtype.kind in "mM" else "us"
    )
    is_arrow = isinstance(dtype, pd.ArrowDtype) and "[ns" in str(dtype)
    is_period = isinstance(dtype, pd.PeriodDtype)
    narrow = unit == "ns" or is_arrow or is_period
    return (_NANOSECONDS if narrow else 9_000_000_000_000) - 86_400


def _ticks(numbers: np.ndarray[Any, Any], unit: str) -> np.ndarray[Any, Any]:
    """Return numbers of a unit as whole microseconds; the least number of 64 bits, NaT, for NaN."""
    whole = np.round(np.where(np.isnan(numbers), 0.0, numbers)).astype(np.int64) * UNITS[unit]
    return np.where(np.isnan(numbers), np.iinfo(np.int64).min, whole)


# Dates as text and as objects of Python


def form_of(values: Sequence[Any]) -> str:
    """Return how dates stand in a column of objects: as objects or as text.

    Args:
        values: Dates that ``are_dates`` lets pass.

    Returns:
        ``"date"``, ``"datetime"`` or ``"datetime, UTC"`` for objects of Python; else the form of
        the text in the letters of ``strftime``.

    Example:
        >>> form_of(["2024-05-01"]), form_of(["2024-05-01T10:30:00Z"])
        ('%Y-%m-%d', '%Y-%m-%dT%H:%M:%SZ')
    """
    if not isinstance(values[0], str):
        if not any(hasattr(value, "hour") for value in values):
            return "date"
        return "datetime, UTC" if _has_zone(values[0]) else "datetime"
    longest = max((value.strip() for value in values), key=len)
    if len(longest) <= len("2024-05-01"):
        return "%Y-%m-%d"
    zone = ("Z" if longest.endswith("Z") else "+00:00") if _has_zone(longest) else ""
    return f"%Y-%m-%d{longest[10]}%H:%M:%S{zone}"


def in_form(dates: pd.Series, form: str, unit: str) -> pd.Series:
    """Return points in time in UTC as text, or as objects of Python; ``None`` for those missing.

    Args:
        dates: Points in time without a zone.
        form: As ``form_of`` returns it; texts with a zone are in UTC.
        unit: The unit that they are rounded to; parts of a second are written where it is smaller.
    """
    missing = dates.isna()
    if not form.startswith("%"):
        dates = dates.dt.tz_localize("UTC") if form.endswith("UTC") else dates
        objects = [None if n else d.to_pydatetime() for d, n in zip(dates, missing, strict=True)]
        if form == "date":
            objects = [value and value.date() for value in objects]
        return pd.Series(objects, dtype=object)
    is_day = "%H" not in form
    code: Any = {"milliseconds": "ms", "microseconds": "us"}.get(unit, "D" if is_day else "s")
    texts = np.datetime_as_string(dates.to_numpy().astype(f"datetime64[{code}]"), unit=code)
    zone = form.partition("%S")[2]
    found = [t if is_day else t.replace("T", form[8]) + zone for t in map(str, texts)]
    return pd.Series(found, dtype=object).where(~missing, None)
