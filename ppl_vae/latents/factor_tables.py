"""How much each code says of each factor, in any choice of rows: tables of numbers of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppl_vae.latents.additive_regression import AdditiveRegression, Halves
from ppl_vae.latents.factor_scores import Relations
from ppl_vae.latents.variables import Variable


class FactorTables:
    """Codes and factors of N rows, measured in any choice of the rows.

    Args:
        codes: The codes.
        factors: The factors, none of them constant.
        halves: All rows in two halves, which the ridge penalty of the regression is chosen by.
    """

    def __init__(
        self, codes: Sequence[Variable], factors: Sequence[Variable], halves: Halves
    ) -> None:
        self._codes, self._factors = codes, factors
        self._code_bins = np.stack([code.bins for code in codes], 1)  # (rows, codes)
        self._factor_bins = np.stack([factor.bins for factor in factors], 1)  # (rows, factors)
        outputs = [factor.outputs() for factor in factors]
        self._regression = AdditiveRegression(self._code_bins, outputs)
        self._penalty = self._regression.best_penalty(halves)

    def measure(self, halves: Halves) -> Relations:
        """Return how codes and factors are related in the rows of two halves.

        Args:
            halves: Positions of rows, some of them perhaps several times; no row is in both halves.
        """
        rows = np.concatenate(halves)
        tables = [self._tables(half, half) for half in halves]
        table = tables[0] + tables[1]
        shares = table[0].sum(1) / len(rows)  # (factors, factor bins)
        fits = [self._regression.fit(half, self._penalty) for half in halves]
        return Relations(
            information=mutual_information(table),
            entropy=-np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), 1),
            importance=self._regression.importance(rows, fits),
            explained=self._regression.explained(halves, fits).clip(0.0),
            alone=self._alone(rows, tables),
            baseline=np.array([1 / f.count if f.values is None else 0.0 for f in self._factors]),
        )

    def shuffled_information(self, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the mutual information, (codes, factors), of codes and factors of other rows.

        All copies of a row get the factors of one other row. So the copies that a bootstrap draws
        raise the information by chance as much as they raise that of the rows themselves.

        Args:
            rows: Positions of rows, (rows,), some of them perhaps several times.
            random: Draws which row's factors a row gets.
        """
        others = random.permutation(len(self._code_bins))
        return mutual_information(self._tables(rows, others[rows]))

    def importance_by_chance(self, halves: Halves, random: np.random.Generator) -> float:
        """Return the sum of R over codes and factors where the codes are those of other rows.

        Args:
            halves: Positions of all rows, in two halves.
            random: Draws which row's factors a row gets.
        """
        regression = self._regression.shuffled(random)
        fits = [regression.fit(half, self._penalty) for half in halves]
        return float(regression.importance(np.concatenate(halves), fits).sum())

    def _tables(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return numbers of rows, (codes, factors, code bins, factor bins).

        Args:
            rows: Positions of the rows whose codes are counted, (rows,).
            others: Positions of the rows whose factors they are counted with, (rows,).
        """
        bins, factors = self._code_bins[rows], self._factor_bins[others]
        high, wide = int(self._code_bins.max()) + 1, int(self._factor_bins.max()) + 1
        size = high * wide * factors.shape[1]
        cells = factors + high * wide * np.arange(factors.shape[1])  # of code bin 0
        counts = [np.bincount((cells + wide * b[:, None]).ravel(), minlength=size) for b in bins.T]
        tables: np.ndarray = np.stack(counts).reshape(-1, factors.shape[1], high, wide)
        return tables

    def _alone(self, rows: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray:
        """Return what each code says of each factor by itself, (codes, factors).

        Args:
            rows: Positions of all rows that are measured.
            tables: Numbers of rows of each half.
        """
        alone: np.ndarray = (balanced_accuracy(*tables) + balanced_accuracy(*tables[::-1])) / 2
        for k, factor in enumerate(self._factors):
            for j, code in enumerate(self._codes):
                if factor.values is not None:
                    alone[j, k] = _squared_correlation(code, factor.values, rows)
        return alone


def mutual_information(tables: np.ndarray) -> np.ndarray:
    """Return the mutual information of two variables in nats, (...), from numbers of rows.

    Args:
        tables: (..., bins of one, bins of the other).

    Example:
        >>> float(mutual_information(np.array([[5, 0], [0, 5]])) / np.log(2))
        1.0
    """
    joint = tables / tables.sum((-2, -1), keepdims=True)
    expected = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
    ratio = np.divide(joint, expected, out=np.ones_like(joint), where=joint > 0)
    return np.asarray(np.sum(joint * np.log(ratio), (-2, -1)))


def information_by_chance(
    code: np.ndarray, factor: np.ndarray, random: np.random.Generator
) -> tuple[float, float]:
    """Return the mutual information of a code and a shuffled factor, and the most it can be.

    The most is the smaller entropy of the two, which a code reaches by chance where nearly every
    row has a bin, or a category, of its own.

    Only pairs of bins that hold rows are counted, so that many bins cost no more than few.

    Args:
        code: Bins of a code, (rows,).
        factor: Bins of a factor, (rows,).
        random: Draws which row's factor a row gets.

    Returns:
        Both in nats.

    Example:
        >>> each = np.arange(100)  # a bin for every row: the code tells any factor, by chance
        >>> information, most = information_by_chance(each, each, np.random.default_rng(0))
        >>> round(information / most, 6)
        1.0
    """
    pairs = code * (int(factor.max()) + 1) + random.permutation(factor)
    of_code, of_factor, of_pairs = (entropy(bins) for bins in (code, factor, pairs))
    return of_code + of_factor - of_pairs, min(of_code, of_factor)


def entropy(bins: np.ndarray) -> float:
    """Return the entropy of the bins of rows, (rows,), in nats."""
    shares = np.unique(bins, return_counts=True)[1] / len(bins)
    return float(-np.sum(shares * np.log(shares)))


def balanced_accuracy(fitted: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return the mean share of each category's rows that one code recognizes, (codes, factors).

    A row is taken for the category that is the most frequent in its bin, where every category
    counts as much as any other.

    Args:
        fitted: Numbers of rows that give the rule, (codes, factors, code bins, categories).
        tested: Numbers of the rows to recognize, likewise.
    """
    rule = np.argmax(fitted / np.maximum(fitted.sum(2, keepdims=True), 1), 3)
    taken = rule[..., None] == np.arange(fitted.shape[3])  # (codes, factors, bins, categories)
    rows = tested.sum(2)  # (codes, factors, categories)
    recognized = (tested * taken).sum(2) / np.maximum(rows, 1)
    return np.asarray(recognized.sum(-1) / (rows > 0).sum(-1))


def _squared_correlation(code: Variable, factor: np.ndarray, rows: np.ndarray) -> float:
    """Return the squared correlation of a code and a number in some rows; 0 for a constant.

    Of categories, each stands for the mean of the number in its rows.
    """
    target = factor[rows]
    if code.values is None:
        bins = code.bins[rows]
        guess = (np.bincount(bins, target) / np.maximum(np.bincount(bins), 1))[bins]
    else:
        guess = code.values[rows]
    guess, target = guess - guess.mean(), target - target.mean()
    scale = np.square(guess).sum() * np.square(target).sum()
    return float(np.square(guess @ target) / scale) if scale > 0 else 0.0
