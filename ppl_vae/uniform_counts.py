"""Ranks of a calibrated prediction are uniform: how many of them lie below points, by chance.

    r_i          rank of row i among S draws, uniform on 0 ... S          i = 1 ... n rows
    C_k          rows whose rank is below k, Binomial(n, k / (S + 1))     k = 1 ... S
    a_k          min(P(C <= C_k), P(C >= C_k)), the tail of C_k
    p            P(some a_k is as small as the smallest that came)

C_1, C_2, ... are the counts of a Poisson process at rising times, given that it ends at n. So the
probability that all of them lie in their intervals is a product of sums: the counts inside the
k-th interval follow those inside the one before, by an independent Poisson number. It is exact,
without random draws, and p with it.

Source: Sailynoja, Burkner & Vehtari (2022), Graphical test for discrete uniformity and its
applications in goodness-of-fit evaluation and multiple sample comparison, arXiv:2103.10522.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

MOST_POINTS = 99
"""Most points at which rows are counted; of more draws, evenly spaced ranks are taken."""

LEAST = 1e-30
"""Probability that stands for all smaller ones, which ``binomial_mass`` leaves out."""

EXACT = 1e-9
"""Below it, the difference to 1 is rounding, and the bound of Bonferroni is taken."""


class RankCounts:
    """How many of n uniform ranks lie below each of some points, and how far that is chance.

    Args:
        rows: n, 1 or more.
        num_draws: S; a rank is one of 0 ... S.

    Attributes:
        points: (points,) ranks k below which rows are counted, rising.
        shares: (points,) the expected shares of rows, k / (S + 1).

    Example:
        >>> counts = RankCounts(200, 99)
        >>> uniform, high = np.arange(200) // 2, np.arange(200) % 30 + 70
        >>> bool(counts.p_value(uniform) > 0.5), bool(counts.p_value(high) < 1e-10)
        (True, True)
    """

    def __init__(self, rows: int, num_draws: int) -> None:
        self.rows, self.num_draws = rows, num_draws
        every = np.arange(1, num_draws + 1)
        chosen = np.linspace(0, num_draws - 1, min(num_draws, MOST_POINTS)).round().astype(int)
        self.points = every[chosen]
        self.shares = self.points / (num_draws + 1)
        self._laws = [_tails(rows, float(share)) for share in self.shares]

    def below(self, ranks: np.ndarray) -> np.ndarray:
        """Return how many ranks lie below each point, (points,)."""
        counts: np.ndarray = np.searchsorted(np.sort(ranks), self.points, side="left")
        return counts

    def p_value(self, ranks: np.ndarray) -> float:
        """Return the probability that uniform ranks are as far from uniform at some point.

        Args:
            ranks: (rows,) whole numbers from 0 to S.
        """
        pairs = zip(self.below(ranks), self._laws, strict=True)
        smallest = min(law.tail(int(count)) for count, law in pairs)
        bound = 2 * len(self.points) * smallest
        # a count on the other side may have the same tail but for rounding
        outside = 1 - self.probability_inside(*self.limits(smallest * (1 + 1e-9)))
        return float(min(1.0, bound, outside if outside > EXACT else bound))

    def limits(self, tail: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest count at each point with more than ``tail`` beyond.

        Args:
            tail: Probability on each side, below 0.5.
        """
        both = [law.limits(tail) for law in self._laws]
        return np.array([low for low, _ in both]), np.array([high for _, high in both])

    def band(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the counts between which all points lie with probability ``level`` or more.

        Args:
            level: Between 0 and 1.

        Returns:
            (points,) lowest and (points,) highest counts.
        """
        wide, narrow = (1 - level) / (2 * len(self.points)), 0.25
        for _ in range(25):
            tail = (wide * narrow) ** 0.5
            inside = self.probability_inside(*self.limits(tail)) >= level
            wide, narrow = (tail, narrow) if inside else (wide, tail)
        return self.limits(wide)

    def probability_inside(self, low: np.ndarray, high: np.ndarray) -> float:
        """Return the probability that all counts lie in their intervals.

        Args:
            low: (points,) lowest counts.
            high: (points,) highest counts.
        """
        if (low > high).any():
            return 0.0
        times = np.diff(self.shares, prepend=0.0, append=1.0) * self.rows
        mass, start, end = np.ones(1), 0, 0
        ends = zip(times, [*low, self.rows], [*high, self.rows], strict=True)
        for time, lowest, highest in ends:
            steps = np.arange(highest - start + 1)  # from the lowest count before
            poisson = np.exp(steps * np.log(time) - time - log_factorial(steps))
            first, last = max(int(lowest), start), int(highest)
            mass = np.convolve(mass, poisson)[first - start : last - start + 1]
            start, end = first, last
        every = np.array(self.rows)
        whole = every * np.log(self.rows) - self.rows - log_factorial(every)
        assert start == end
        return float(min(1.0, mass[0] / np.exp(whole)))


class _Law:
    """The binomial distribution of a count, with the tails on both sides.

    Args:
        rows: Number of rows.
        share: Probability of each.
    """

    def __init__(self, rows: int, share: float) -> None:
        self.rows = rows
        self.hits, mass = binomial_mass(rows, share)
        self.lower, self.upper = mass.cumsum(), mass[::-1].cumsum()[::-1]

    def tail(self, count: int) -> float:
        """Return the smaller of the probabilities of no more and of no fewer than a count."""
        place = count - int(self.hits[0])
        if not 0 <= place < len(self.hits):
            return LEAST
        return float(max(LEAST, min(self.lower[place], self.upper[place])))

    def limits(self, tail: float) -> tuple[int, int]:
        """Return the lowest and the highest count with more than a probability beyond."""
        low = self.hits[np.argmax(self.lower > tail)]
        high = self.hits[len(self.hits) - 1 - np.argmax(self.upper[::-1] > tail)]
        return int(low), int(high)


@functools.lru_cache(maxsize=1024)
def _tails(rows: int, share: float) -> _Law:
    """Return the distribution of a count, kept for the next question."""
    return _Law(rows, share)


def binomial_mass(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of a binomial distribution and their probabilities.

    Counts more than 12 standard deviations from the mean are left out, because their probability
    is below 1e-30.

    Args:
        count: Number of trials.
        share: Probability of each trial, between 0 and 1.

    Returns:
        (counts,) rising, and (counts,) probabilities.
    """
    middle, reach = count * share, 12 * (count * share * (1 - share)) ** 0.5 + 12
    hits = np.arange(max(0, int(middle - reach)), min(count, int(middle + reach) + 1) + 1)
    ways = log_factorial(np.array(count)) - log_factorial(hits) - log_factorial(count - hits)
    return hits, np.exp(ways + hits * np.log(share) + (count - hits) * np.log1p(-share))


def central_counts(hits: np.ndarray, mass: np.ndarray, tail: float) -> tuple[int, int]:
    """Return the lowest and the highest count with at most ``tail`` beyond on each side.

    Args:
        hits: (counts,) rising.
        mass: (counts,) probabilities.
        tail: Probability on each side, at most.
    """
    low = hits[np.argmax(mass.cumsum() > tail)]
    high = hits[::-1][np.argmax(mass[::-1].cumsum() > tail)]
    return int(low), int(high)


def log_factorial(counts: np.ndarray) -> np.ndarray:
    """Return log(n!) of each count."""
    return torch.lgamma(torch.as_tensor(counts, dtype=torch.float64) + 1).numpy()
