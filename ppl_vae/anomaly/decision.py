"""Which scored rows are flagged, at a rate of false alarms or of false discoveries."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from ppl_vae.anomaly import conformal
from ppl_vae.anomaly.conformal import Floats

COLUMNS = ("score", "p_value", "q_value", "flagged", "k_hat", "reliable")
"""Columns of the results, before those of an explanation."""

RATE = 0.05
"""The false-alarm rate where none is given."""


@dataclass(frozen=True)
class Decision:
    """A rate at which rows are flagged, given n calibration rows.

    Attributes:
        rows: n, the number of calibration rows.
        rate: The rate.
        by_discovery: Whether the rate is one of false discoveries, not of false alarms.
    """

    rows: int
    rate: float
    by_discovery: bool

    @classmethod
    def of(
        cls, rows: int, false_alarm_rate: float | None, false_discovery_rate: float | None
    ) -> Self:
        """Make a decision at the rate that is given, 5 % false alarms by default.

        Raises:
            ValueError: If both rates are given, or the rate is below 1 / (n + 1).
        """
        by_discovery = false_discovery_rate is not None
        rate = false_discovery_rate if by_discovery else false_alarm_rate
        if by_discovery and false_alarm_rate is not None:
            raise ValueError(
                "false_discovery_rate: expected None beside false_alarm_rate, got "
                f"{false_discovery_rate} and {false_alarm_rate}; pass one of the two"
            )
        rate = RATE if rate is None else rate
        name = "false_discovery_rate" if by_discovery else "false_alarm_rate"
        conformal.allowed_level(rows, rate, name)
        return cls(rows, rate, by_discovery)

    def __call__(self, scored: pd.DataFrame, counts: Any) -> pd.DataFrame:
        """Return scored rows with p-values and q-values, and whether each row is flagged.

        Args:
            scored: Some rows, as ``AnomalyDetector.parts`` yields them.
            counts: (n + 1,) numbers of rows at levels 1 to n + 1, among all rows.
        """
        p_values = scored["level"] / (self.rows + 1)
        q_values = conformal.q_values_from_counts(counts)[scored["level"] - 1]
        columns = {
            "score": scored["score"],
            "p_value": p_values,
            "q_value": q_values,
            "flagged": (q_values if self.by_discovery else p_values) <= self.rate,
            **scored.drop(columns=["score", "level"]),
        }
        frame = pd.DataFrame(columns, index=scored.index)
        frame.attrs = dict(scored.attrs)
        return frame


def warn_of_infinite(scores: Floats, *, stacklevel: int) -> None:
    """Warn if calibration rows have infinite scores, because few rows can be flagged then.

    Args:
        scores: (n,) scores of the calibration rows.
        stacklevel: As ``warnings.warn`` has it, counted from the caller.
    """
    infinite = int(np.isposinf(scores).sum())
    if infinite:
        lowest = (infinite + 1) / (len(scores) + 1)
        warnings.warn(
            f"calibration: {infinite} of {len(scores)} rows have an infinite score and count as "
            "stranger than any finite one, so that no row is flagged below a false-alarm rate "
            f"of {lowest:.2g}; look at these rows, and leave out those that are not clean",
            stacklevel=stacklevel + 1,
        )
