"""The lead of one pair over another on the same rows, with its error, and whether it is firm.

    d_n         = log p_k(x_n) - log p_1(x_n), estimates                 n = 1 ... N rows
    difference  = 1/N sum_n d_n                                          nats a row
    se^2        = var(d) / N + shared_1^2 + shared_k^2
    interval    = [difference - t se - bias_1, difference + t se + bias_k]

The spread of d over the rows holds two things: rows differ, and each estimate has an error of its
own. Rows draw their latents by themselves, so that both shrink with N. Latents outside the row
plate are drawn once for all rows of a block, and the rows' errors may then all go one way:
``shared`` is the mean over rows of the Monte Carlo standard error where a pair has such latents,
else 0.

An estimate of a log-likelihood is too low on average. In a reliable row it is so by half its
squared standard error, to first order; ``bias`` is the mean of that over rows. Either pair may be
better than its estimate by its bias, and each end of the interval moves by the bias of one pair.

In an unreliable row nobody knows by how much the estimate is too low. Such rows of the pair that is
ahead make its lead too small at worst. Those of the pair that is behind make the lead doubtful, and
a lead is firm only if it remains when all rows in which the other pair is unreliable and behind are
counted as equal. What is left to assume, how far the other pair's estimates may be too low in these
rows, is said in words.

Sources: Vehtari, Gelman & Gabry (2017), section 5, arXiv:1507.04544 (the paired standard error);
Burda, Grosse & Salakhutdinov (2016), theorem 1, arXiv:1509.00519 (the estimate is a lower bound).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.evaluation.psis import standard_error
from ppl_vae.evaluation.summary import MeanOverRows, unreliable_rows

FEWEST = 4
"""Rows below which the spread of the differences says too little for an interval."""

Floats = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RowLikelihoods:
    """The log-likelihoods of all rows under one pair, with what is known of their errors.

    Attributes:
        name: The pair's name.
        log_prob: (rows,), in nats; NaN where the pair overflows.
        error: Monte Carlo standard error of each row, (rows,), in nats.
        unreliable: Which rows are not to be trusted, (rows,).
        k_hat: Pareto shape of each row's weights, (rows,); NaN where there is none.
        threshold: What k-hat may be.
        exact: Whether nothing is drawn, so that ``log_prob`` has no error.
        shared: Whether rows share draws of latents outside the row plate.
    """

    name: str
    log_prob: Floats
    error: Floats
    unreliable: Floats
    k_hat: Floats
    threshold: float
    exact: bool
    shared: bool

    @classmethod
    def of(cls, name: str, scores: pd.DataFrame, num_samples: int) -> RowLikelihoods:
        """Read a frame of ``log_likelihood``.

        Args:
            name: The pair's name.
            scores: The frame.
            num_samples: Draws of the latents for each row.
        """
        exact, rows = bool(scores.attrs["exact"]), len(scores)
        error = np.zeros(rows)
        if "standard_error" in scores:
            error = scores["standard_error"].to_numpy()
        elif not exact:
            error = standard_error(scores["ess"].to_numpy(), num_samples)
        k_hat = scores["k_hat"].to_numpy() if "k_hat" in scores else np.full(rows, np.nan)
        return cls(
            name, scores["log_prob"].to_numpy(), np.nan_to_num(error),
            unreliable_rows(scores, num_samples), k_hat,
            scores.attrs.get("k_hat_threshold", math.nan), exact,
            shared=bool(scores.attrs["not_covered"]),
        )  # fmt: skip

    def without(self, left_out: Floats) -> RowLikelihoods:
        """Return the log-likelihoods of the rows that are not marked; marks are (rows,) of bool."""
        kept = ~left_out
        return replace(
            self, log_prob=self.log_prob[kept], error=self.error[kept],
            unreliable=self.unreliable[kept], k_hat=self.k_hat[kept],
        )  # fmt: skip

    @property
    def bias(self) -> float:
        """By how much ``log_prob`` is too low, to first order, as a mean over rows in nats."""
        return float((self.error**2).mean() / 2)

    @property
    def k_hat_above(self) -> float:
        """Share of rows whose k-hat is above its threshold; NaN where no row has a k-hat."""
        known = ~np.isnan(self.k_hat)
        if self.exact:
            return 0.0
        return float((self.k_hat > self.threshold).mean()) if known.any() else math.nan


@dataclass(frozen=True)
class Lead:
    """The lead of the best pair over another one, on the rows that both have.

    Attributes:
        first: The best pair's name.
        other: The other pair's name.
        difference: Mean of the other's log-likelihood minus the best one's, in nats a row.
        error: Its standard error.
        lower: Lower end of its interval.
        upper: Upper end of its interval.
        upper_of_equals: Upper end where rows in which the other is unreliable and behind are equal.
        rows_better: Share of rows in which the other pair is better.
        rows: Number of rows.
        unreliable_first: Rows in which the best pair's estimate is not reliable.
        unreliable_other: The same of the other pair.
        impossible: Rows to which the other pair gives a probability of 0.
        lost: Rows that are left out because the best pair overflows on them, where the other pair
            does not.
        level: Probability of the interval.
    """

    first: str
    other: str
    difference: float
    error: float
    lower: float
    upper: float
    upper_of_equals: float
    rows_better: float
    rows: int
    unreliable_first: int
    unreliable_other: int
    impossible: int
    lost: int
    level: float

    @classmethod
    def of(cls, first: RowLikelihoods, other: RowLikelihoods, lost: int, level: float) -> Lead:
        """Return the lead of one pair over another.

        Args:
            first: The pair with the larger mean.
            other: The other pair, of the same rows.
            lost: Rows that are left out because the first overflows on them.
            level: Probability of the interval.
        """
        with np.errstate(invalid="ignore"):  # a difference of impossible rows is infinite or NaN
            differences = other.log_prob - first.log_prob
            equals = np.where(other.unreliable, np.maximum(differences, 0.0), differences)
            mean, error, reach = _interval(differences, first, other, level)
            equal, _, reach_of_equals = _interval(equals, first, other, level)
        return cls(
            first.name, other.name, mean, error, mean - reach - first.bias,
            mean + reach + other.bias, equal + reach_of_equals + other.bias,
            rows_better=float((differences > 0).mean()), rows=len(differences),
            unreliable_first=int(first.unreliable.sum()),
            unreliable_other=int(other.unreliable.sum()),
            impossible=int(np.isneginf(other.log_prob).sum()), lost=lost, level=level,
        )  # fmt: skip

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.upper < 0

    @property
    def firm(self) -> bool:
        """Whether the lead can be told: it does not come from rows that are not reliable."""
        return self.clear and self.upper_of_equals < 0 and not self.lost

    def sentence(self, option: str = "num_samples") -> str:
        """Return the verdict in words, with what it rests on.

        Args:
            option: The name under which the caller's user sets the number of draws.
        """
        first, other = self.first, self.other
        numbers = self._numbers()
        if self.firm:
            words = f"{first} explains the rows better than {other} by {numbers}"
            return words + (self._assumption() if self.unreliable_other else "")
        if self.impossible:
            return (
                f"no verdict on {first} and {other}: {other} gives {self._share(self.impossible)} "
                "a probability of 0 (log-likelihood -inf), so that its mean is no number; look at "
                "these rows"
            )
        if self.rows < FEWEST:
            return (
                f"no clear difference between {first} and {other}: {-self.difference:.3g} nats a "
                f"row, from {self.rows} row{'' if self.rows == 1 else 's'}, too few for an interval"
            )
        if not self.clear:
            words = f"no clear difference between {first} and {other}: {numbers}"
            return words + self._doubts()
        if self.lost:
            return (
                f"no verdict: {first} is ahead of {other} by {numbers}, but overflows on rows, "
                f"{self.lost} in number, that are left out and that {other} explains"
            )
        return (
            f"no verdict: {first} is ahead of {other} by {numbers}, but not without the "
            f"{self._share(self.unreliable_other)} in which the log-likelihood of {other} is not "
            f"reliable and may be far too low; refine its guide (refine), or raise {option}"
        )

    def _numbers(self) -> str:
        """Return the lead with its error and interval, to two digits of the error."""
        digits = 3
        if 0 < self.error < math.inf:
            digits = min(max(1 - math.floor(math.log10(self.error)), 0), 9)
        lead, error, low, high = (
            f"{round(value, digits) + 0.0:.{digits}f}"  # 0.0 and not -0.0
            for value in (-self.difference, self.error, -self.upper, -self.lower)
        )
        interval = f"{100 * self.level:.4g} % interval: {low} to {high}"
        return f"{lead} +- {error} nats a row ({interval})"

    def _assumption(self) -> str:
        """Return how far the other pair's unreliable estimates may be off while the lead holds."""
        nats = -self.upper * self.rows / self.unreliable_other
        shown = f"{nats:,.0f}" if nats >= 100 else f"{nats:.3g}"
        return (
            f", unless the log-likelihood of {self.other} is too low by more than {shown} nats "
            f"a row in the {self._share(self.unreliable_other)} in which it is not reliable"
        )

    def _doubts(self) -> str:
        """Return in how many rows each pair is not reliable; empty where both are."""
        counts = {self.first: self.unreliable_first, self.other: self.unreliable_other}
        told = [f"of {name} in {self._share(count)}" for name, count in counts.items() if count]
        if not told:
            return ""
        return f"; the log-likelihood {' and '.join(told)} is not reliable and may be far too low"

    def _share(self, count: int) -> str:
        return f"{count} of {self.rows} row{'' if self.rows == 1 else 's'}"


def _interval(
    differences: Floats, first: RowLikelihoods, other: RowLikelihoods, level: float
) -> tuple[float, float, float]:
    """Return a mean over rows, its standard error, and the half width of its interval.

    Args:
        differences: (rows,), in nats.
        first: The pair that is ahead.
        other: The other pair.
        level: Probability of the interval.
    """
    spread = MeanOverRows.of(differences)
    shared = [float(each.error.mean()) for each in (first, other) if each.shared]
    error = math.sqrt(spread.standard_error**2 + sum(e**2 for e in shared))
    few = len(differences) < FEWEST
    reach = math.nan if few else student_quantile(level, len(differences) - 1) * error
    return spread.mean, error, reach


def student_quantile(level: float, degrees: int) -> float:
    """Return how many standard errors on each side hold a share of Student's t distribution.

    Args:
        level: The share, between 0 and 1.
        degrees: Degrees of freedom, 3 or more: for fewer, the series is off by more than 5 %.

    Source: Abramowitz & Stegun (1964), formula 26.7.5.

    Example:
        >>> round(student_quantile(0.95, 10), 3), round(student_quantile(0.95, 10**6), 3)
        (2.228, 1.96)
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, 1))
