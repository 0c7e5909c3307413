"""Conformal p-values of scores, false discoveries, thresholds, and the errors of all of them.

    p(s)     = (1 + #{i: c_i >= s}) / (n + 1)              c: (n,) scores of calibration rows
    q(p_j)   = min over p_k >= p_j of  m p_k / #{l: p_l <= p_k}      of m rows (Benjamini-Hochberg)
    t(a)     = the k-th largest of c,  k = floor(a (n + 1))          p(s) <= a  <=>  s > t(a)
    rate | c ~ Beta(k, n + 1 - k)                          P(s > t(a)) of clean rows, given c
    D        = max_s |F_1(s) - F_2(s)|                     Kolmogorov-Smirnov

Why p is right. A clean row and the n calibration rows are exchangeable: each of the n + 1 scores is
as likely as any other to be the k-th largest. Hence P(p <= a) <= a, whatever the score and the
distribution of the rows. That probability is an average over calibration sets. For the one set at
hand, P(s > t) is the mass of clean rows above the k-th largest of n scores, which is Beta(k, n + 1
- k) where scores have no ties; with ties it is less.

A score that counts as infinite is stranger than any finite one, in the calibration rows as well as
in new ones. NaN has no place in an order, and is refused.

Sources: Vovk, Gammerman & Shafer (2005), Algorithmic learning in a random world, chapter 2; Bates,
Candès, Lei, Romano & Sesia (2023), arXiv:2104.08279 (false discoveries; the rate given the
calibration rows); Benjamini & Hochberg (1995), Controlling the false discovery rate; Vrbik (2018),
Small-sample corrections to Kolmogorov-Smirnov test statistic, Pioneer Journal of Theoretical and
Applied Statistics 15 (the correction of the argument of the limit).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ppl_vae.arguments import check_count, shown

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

CENTRAL = 0.9  # probability of the intervals


def p_values(scores: Any, calibration: Any) -> Floats:
    """Return the conformal p-value of every score.

    Args:
        scores: (m,) scores of new rows, higher is stranger.
        calibration: (n,) scores of clean rows that were held out from training.

    Returns:
        (m,) of the numbers k / (n + 1), k from 1 to n + 1; low is strange.

    Raises:
        ValueError: If a score is NaN, or there are no calibration scores.

    Example:
        >>> p_values([2.5, 0.0, np.inf], [1.0, 2.0, 3.0]).tolist()
        [0.5, 1.0, 0.25]
    """
    return levels(scores, calibration) / (len(calibration) + 1)


def levels(scores: Any, calibration: Any) -> Counts:
    """Return the numerator k of every score's p-value k / (n + 1); arguments as ``p_values``.

    Example:
        >>> levels([2.5, 0.0, np.inf], [1.0, 2.0, 3.0]).tolist()
        [2, 4, 1]
    """
    rising = np.sort(_as_scores(calibration, "calibration"))
    new = _as_scores(scores, "scores", least=0)
    return (1 + len(rising) - np.searchsorted(rising, new, side="left")).astype(np.int64)


def q_values(p: Any) -> Floats:
    """Return the q-value of every row: the lowest false-discovery rate at which it is flagged.

    The rows with a q-value of at most a are those that the procedure of Benjamini and Hochberg
    flags at the rate a: on average, at most the share a of them is clean. It holds for conformal
    p-values, although these depend on each other (Bates et al.).

    Args:
        p: (m,) p-values, from 0 to 1.

    Returns:
        (m,) from 0 to 1.

    Raises:
        ValueError: If a p-value is not from 0 to 1.

    Example:
        >>> q_values([0.01, 0.04, 0.03, 0.9]).round(3).tolist()
        [0.04, 0.053, 0.053, 0.9]
    """
    values = _as_scores(p, "p", least=0)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p: expected numbers from 0 to 1, got {values.min()} to {values.max()}")
    order = np.argsort(values, kind="stable")
    ratio = values[order] * len(values) / np.arange(1, len(values) + 1)
    result = np.empty_like(values)
    result[order] = _lowest_from_here(ratio)
    return result


def q_values_from_counts(counts: Any) -> Floats:
    """Return the q-value of each level of p-values, from the number of rows at each level.

    Conformal p-values take n + 1 values only, so that the q-values of a file of any length need no
    array of all its rows. Whole numbers are divided once, so that a q-value that is a rate is
    exactly the rate.

    Args:
        counts: (n + 1,) number of rows whose p-value is k / (n + 1), for k from 1 on.

    Returns:
        (n + 1,) the q-value of rows at each level; at levels of no row, the q-value at which the
        procedure would flag such a row. All are 1 where there are no rows.

    Raises:
        ValueError: If the counts are not whole numbers from 0 on.

    Example:
        >>> found = levels([2.5, 0.0, np.inf], [1.0, 2.0, 3.0])
        >>> q_values_from_counts(np.bincount(found - 1, minlength=4)).tolist()
        [0.75, 0.75, 1.0, 1.0]
    """
    numbers = np.asarray(counts)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise ValueError(
            f"counts: expected whole numbers from 0 on, one for each level, got {shown(counts)}"
        )
    size = len(numbers)
    below = numbers.astype(np.int64).cumsum()  # rows with a p-value of at most this level's
    numerator = np.arange(1, size + 1, dtype=np.int64) * below[-1]
    ratio = np.full(size, np.inf)
    np.divide(numerator, below * size, out=ratio, where=below > 0)
    return _lowest_from_here(ratio)


def threshold(calibration: Any, false_alarm_rate: float) -> float:
    """Return the score above which a row is flagged at a false-alarm rate.

    A score is above the threshold where its p-value is at most the rate, and nowhere else, ties and
    infinite scores included.

    Args:
        calibration: (n,) scores of clean rows that were held out from training.
        false_alarm_rate: Share of clean rows that may be flagged, from 1 / (n + 1) to below 1.

    Returns:
        A calibration score; infinite, so that nothing is flagged, where so many calibration scores
        are infinite.

    Raises:
        ValueError: If the rate is below 1 / (n + 1), which no p-value can reach; the message says
            how many calibration rows are needed.

    Example:
        >>> threshold([1.0, 2.0, 3.0], 0.5)
        2.0
    """
    values = _as_scores(calibration, "calibration")
    rank = allowed_level(len(values), false_alarm_rate)
    return float(np.partition(values, -rank)[-rank])


def allowed_level(rows: int, rate: float, name: str = "false_alarm_rate") -> int:
    """Return the largest k whose p-value k / (n + 1) is at most a rate.

    Args:
        rows: n, number of calibration rows.
        rate: The rate, from 1 / (n + 1) to below 1.
        name: The argument's name, for messages.

    Raises:
        ValueError: If the rate is outside; the message says how many calibration rows are needed.

    Example:
        >>> allowed_level(99, 0.29)  # 0.29 * 100 is 28.999999999999996
        29
    """
    check_count("rows", rows)
    check_rate(name, rate)
    level = int(rate * (rows + 1))
    level += (level + 1) / (rows + 1) <= rate  # products of floats are rounded, and the
    level -= level / (rows + 1) > rate  # p-values are these quotients
    if level < 1:
        raise ValueError(
            f"{name}: expected at least 1/{rows + 1} = {1 / (rows + 1):.3g}, the lowest "
            f"p-value that {rows} calibration rows can give, got {rate}; calibrate on "
            f"at least {_rows_needed(rate)} rows"
        )
    return level


def check_rate(name: str, value: Any) -> None:
    """Raise ``ValueError`` unless a value is a number above 0 and below 1."""
    number = not isinstance(value, bool) and isinstance(value, int | float | np.number)
    if not number or not 0 < value < 1:
        raise ValueError(f"{name}: expected a number above 0 and below 1, got {shown(value)}")


def rate_interval(
    rows: int, false_alarm_rate: float, level: float = CENTRAL
) -> tuple[float, float]:
    """Return the interval in which the true false-alarm rate lies, given n calibration rows.

    The p-values hold on average over calibration sets; the threshold from one set lets pass more or
    less. The interval is central: as much probability lies below as above. Ties among scores make
    the true rate smaller.

    Args:
        rows: n, number of calibration rows.
        false_alarm_rate: The rate asked for, at least 1 / (n + 1).
        level: Probability of the interval.

    Example:
        >>> [round(bound, 3) for bound in rate_interval(199, 0.05)]
        [0.028, 0.078]
    """
    rank = allowed_level(rows, false_alarm_rate)
    check_rate("level", level)
    tail = (1 - level) / 2
    return tuple(_beta_quantile(share, rank, rows + 1 - rank) for share in (tail, 1 - tail))  # type: ignore[return-value]


def alarms_interval(
    rows: int, false_alarm_rate: float, new_rows: int, level: float = CENTRAL
) -> tuple[int, int]:
    """Return the interval in which the number of false alarms among clean new rows lies.

    The number is beta-binomial: a rate from Beta(k, n + 1 - k), and m draws at that rate.

    Args:
        rows: n, number of calibration rows.
        false_alarm_rate: The rate asked for, at least 1 / (n + 1).
        new_rows: m, number of clean rows that were scored.
        level: Probability of the interval, at least; as much on either side at most.

    Returns:
        The lowest and the highest number, both within.

    Example:
        >>> alarms_interval(199, 0.05, 100)
        (1, 10)
    """
    rank = allowed_level(rows, false_alarm_rate)
    check_count("new_rows", new_rows)
    check_rate("level", level)
    a, b = rank, rows + 1 - rank
    count = torch.arange(new_rows + 1, dtype=torch.float64)
    total = torch.tensor(float(new_rows), dtype=torch.float64)
    ways = (total + 1).lgamma() - (count + 1).lgamma() - (total - count + 1).lgamma()
    mass = ways + _log_beta(count + a, total - count + b) - _log_beta(total * 0 + a, total * 0 + b)
    below = mass.exp().cumsum(0)
    tail = (1 - level) / 2
    low, high = torch.searchsorted(below, torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return int(low), min(int(high), new_rows)


def ks_test(first: Any, second: Any) -> tuple[float, float]:
    """Return the statistic and the p-value of the two-sample Kolmogorov-Smirnov test.

    The p-value is the limit for many rows, with a correction for few. Ties make it larger.

    Args:
        first: (n,) scores.
        second: (m,) scores.

    Returns:
        The largest difference of the two distribution functions, from 0 to 1; the probability of a
        difference at least as large where both come from one distribution.

    Raises:
        ValueError: If there are no scores, or some are NaN.

    Example:
        >>> statistic, p_value = ks_test([1.0, 2.0, 3.0, 4.0], [3.5, 4.5, 5.5, 6.5])
        >>> statistic
        0.75
    """
    one, two = np.sort(_as_scores(first, "first")), np.sort(_as_scores(second, "second"))
    both = np.concatenate([one, two])
    shares = [np.searchsorted(each, both, side="right") / len(each) for each in (one, two)]
    statistic = float(np.abs(shares[0] - shares[1]).max())
    rows = len(one) * len(two) / (len(one) + len(two))
    return statistic, _kolmogorov(statistic, rows)


def _kolmogorov(statistic: float, rows: float) -> float:
    """Return P(D >= statistic) for a one-sample test of ``rows`` rows, close to its limit.

    The limit is 2 sum_j (-1)^(j-1) exp(-2 j^2 x^2), x = sqrt(rows) D. Near x = 0 that sum does not
    converge, and the same function is 1 - sqrt(2 pi)/x sum_j exp(-(2 j - 1)^2 pi^2 / (8 x^2)).
    """
    if statistic == 0:
        return 1.0
    x = math.sqrt(rows) * statistic
    x += 1 / (6 * math.sqrt(rows)) + (x - 1) / (4 * rows)
    if x <= 0:
        return 1.0
    terms = np.arange(1, 101)
    if x < 1:
        inside = np.exp(-(((2 * terms - 1) * math.pi) ** 2) / (8 * x * x)).sum()
        return float(np.clip(1 - math.sqrt(2 * math.pi) / x * inside, 0.0, 1.0))
    return float(np.clip(2 * ((-1.0) ** (terms - 1) * np.exp(-2 * (terms * x) ** 2)).sum(), 0, 1))


def _as_scores(values: Any, name: str, least: int = 1) -> Floats:
    """Return scores as an array of one dimension, or raise ``ValueError`` that names them."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {shown(values)} ({error})") from error
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"{name}: expected a number for each row, got shape {array.shape}")
    missing = np.isnan(array)
    if missing.any():
        raise ValueError(
            f"{name}: expected numbers that can be ordered, got NaN in {missing.sum()} of "
            f"{len(array)} rows, first in row {missing.argmax()}"
        )
    return array


def _lowest_from_here(ratio: Floats) -> Floats:
    """Return the minimum of each number and of all that follow it, at most 1."""
    lowest: Floats = np.minimum.accumulate(ratio[::-1])[::-1]
    return np.minimum(lowest, 1.0)


def _rows_needed(rate: float) -> int:
    """Return the fewest calibration rows that give a p-value of at most a rate."""
    rows = max(1, math.ceil(1 / rate) - 2)
    while 1 / (rows + 1) > rate:
        rows += 1
    return rows


def _log_beta(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the beta function."""
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


def _beta_quantile(share: float, a: int, b: int) -> float:
    """Return the quantile of Beta(a, b), by bisection of its distribution function."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if _beta_share(middle, a, b) < share else (low, middle)


def _beta_share(x: float, a: int, b: int) -> float:
    """Return P(X <= x) for X ~ Beta(a, b), 0 < x < 1, by its continued fraction (Lentz's method).

    The fraction converges fast where x is below the mean; above, the other tail is computed.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front += a * math.log(x) + b * math.log1p(-x)
    ratio = 1 / (1 - (a + b) * x / (a + 1))
    fraction, last = ratio, 1.0
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            ratio, last = 1 / (1 + term * ratio), 1 + term / last
            fraction *= ratio * last
        if abs(ratio * last - 1) < 1e-15:
            break
    return math.exp(front) * fraction / a
