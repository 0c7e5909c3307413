"""``Drift``: whether a detector's calibration still holds on new rows."""

from __future__ import annotations

from dataclasses import dataclass

from ppl_vae.anomaly import conformal
from ppl_vae.anomaly.conformal import Floats
from ppl_vae.verdicts import Block, Line, verdict

SURE = 0.01
"""The p-value below which scores are said to have changed."""


@dataclass(frozen=True)
@verdict
class Drift:
    """How the scores of new rows compare with those of the calibration rows. Print it.

    Attributes:
        statistic: The largest difference of the two distribution functions of scores, from 0 to 1
            (Kolmogorov-Smirnov).
        p_value: Probability of a difference at least as large where nothing has changed.
        rows: Number of new rows.
        calibration_rows: Number of calibration rows.
        false_alarm_rate: The rate of the threshold that ``beyond`` speaks of.
        beyond: Number of new rows whose score is above the threshold.
        expected: Lowest and highest number that clean rows have above it, with a probability of
            90 %, where nothing has changed.
    """

    statistic: float
    p_value: float
    rows: int
    calibration_rows: int
    false_alarm_rate: float
    beyond: int
    expected: tuple[int, int]

    @classmethod
    def of(cls, calibration: Floats, scores: Floats, false_alarm_rate: float) -> Drift:
        """Compare the scores of new rows, (m,), with those of calibration rows, (n,).

        Example:
            >>> import numpy as np
            >>> drift = Drift.of(np.arange(100.0), np.arange(80.0) + 20, 0.05)
            >>> drift.beyond, drift.expected
            (4, (0, 9))
        """
        statistic, p_value = conformal.ks_test(calibration, scores)
        n, m = len(calibration), len(scores)
        beyond = int((scores > conformal.threshold(calibration, false_alarm_rate)).sum())
        expected = conformal.alarms_interval(n, false_alarm_rate, m)
        return cls(statistic, p_value, m, n, false_alarm_rate, beyond, expected)

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the calibration: a p-value of 0.01 or more."""
        return self.p_value >= SURE

    def _content(self) -> list[Block]:
        """Return what there is to read, for ``ppl_vae.verdicts``."""
        low, high = self.expected
        rate = f"{100 * self.false_alarm_rate:g} %"
        answer = "the scores have not changed by more than chance: the calibration holds"
        if not self.holds:
            answer = (
                "the scores have changed: p-values and thresholds do not hold for such rows; "
                "calibrate again on clean rows of the new kind"
            )
        p_value = f"= {self.p_value:.3f}" if self.p_value >= 0.001 else "< 0.001"
        title = f"drift: {self.rows} new rows against {self.calibration_rows} calibration rows"
        beyond = (
            f"above the threshold at {rate}: {self.beyond} rows "
            f"({100 * self.beyond / self.rows:.1f} %), expected {low} to {high}"
        )
        return [
            [
                Line(title, "title"),
                Line(f"Kolmogorov-Smirnov: largest difference {self.statistic:.3f}, p {p_value}"),
                Line(beyond),
                Line(answer, "good" if self.holds else "bad"),
            ]
        ]
