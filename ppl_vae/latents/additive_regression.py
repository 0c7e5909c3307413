"""Regression of factors on codes in bins, as a sum of one function of each code.

    y(t) = c(t) + sum_j f_jt(bin of code j)        t: an output; f_jt: one number for each bin

f minimizes the squared error plus a ridge penalty times the sum of squares of f, in closed form.
Each half of the rows has a fit of its own, f and f':

    R^2(k)    1 - squared error / variance of factor k, of each half's rows under the other's fit
    R(j, k)   covariance of f_jt and f'_jt over all rows, summed over the outputs of factor k

R(j, k) is the share of factor k's variance that code j adds. The noise of f and that of f' are
independent, so that they have expectation 0 in R.

Source: Hastie & Tibshirani (1986), Generalized additive models, Statistical Science 1(3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PENALTIES = (0.1, 1.0, 10.0, 100.0)  # ridge penalties that are tried, in rows for each bin

Halves = tuple[np.ndarray, np.ndarray]
"""Positions of the rows of two halves, (rows,) each; a row may be there several times."""


@dataclass(frozen=True)
class Fit:
    """What a regression gives: c, (outputs,), and f, (columns, outputs)."""

    constant: np.ndarray
    effects: np.ndarray


class AdditiveRegression:
    """Regressions of the same factors on the same codes, over any choice of rows.

    Each bin of a code is a column that is 1 in the rows of the bin and 0 in all others.

    Args:
        bins: (rows, codes) bin of each code, from 0.
        outputs: For each factor its outputs, (rows, outputs), with mean 0 and a total variance
            of 1: one number, or 0 and 1 for each category, scaled.
    """

    def __init__(self, bins: np.ndarray, outputs: Sequence[np.ndarray]) -> None:
        self._bins, self._given = bins, outputs
        sizes = bins.max(0) + 1
        self._starts = np.cumsum([0, *sizes[:-1]])  # first column of each code
        self._columns = bins + self._starts  # (rows, codes)
        self._sizes, self._width = sizes, int(sizes.sum())
        self._outputs = np.concatenate(outputs, 1)
        owner = np.repeat(np.arange(len(outputs)), [part.shape[1] for part in outputs])
        self._belongs = np.eye(len(outputs))[owner]  # (outputs, factors)

    def best_penalty(self, halves: Halves) -> float:
        """Return the penalty, of ``PENALTIES``, with the least error on held-out rows."""
        explained = [
            self.explained(halves, [self.fit(half, penalty) for half in halves]).sum()
            for penalty in PENALTIES
        ]
        return PENALTIES[int(np.argmax(explained))]

    def shuffled(self, random: np.random.Generator) -> AdditiveRegression:
        """Return the regression of factors that belong to other rows, of which codes know nothing.

        Args:
            random: Draws which row's factors a row gets.
        """
        others = random.permutation(len(self._bins))
        return AdditiveRegression(self._bins, [output[others] for output in self._given])

    def fit(self, rows: np.ndarray, penalty: float) -> Fit:
        """Return the regression on some rows, (rows,), in closed form.

        As columns are 0 or 1, their products are the numbers of rows that lie in two bins at once.
        """
        columns, outputs = self._columns[rows], self._outputs[rows]  # (rows, ...)
        every = columns.ravel()
        products = np.concatenate(
            [
                np.bincount(
                    ((column[:, None] - start) * self._width + columns).ravel(),
                    minlength=size * self._width,
                ).reshape(size, self._width)
                for start, size, column in zip(self._starts, self._sizes, columns.T, strict=True)
            ]
        )
        sums = [
            np.bincount(every, np.repeat(output, columns.shape[1]), minlength=self._width)
            for output in outputs.T
        ]
        mean, share = outputs.mean(0), np.diag(products) / len(rows)
        centered = products - len(rows) * np.outer(share, share) + penalty * np.eye(self._width)
        effects = np.linalg.solve(centered, np.stack(sums, 1) - len(rows) * np.outer(share, mean))
        return Fit(mean - share @ effects, effects)

    def explained(self, halves: Halves, fits: Sequence[Fit]) -> np.ndarray:
        """Return R^2, (factors,), of each half's rows under the fit to the other half."""
        error, total = np.zeros((2, self._belongs.shape[1]))
        for rows, fit in zip(halves, reversed(fits), strict=True):
            outputs = self._outputs[rows]
            expected = fit.constant + fit.effects[self._columns[rows]].sum(1)
            error += np.square(outputs - expected).sum(0) @ self._belongs
            total += np.square(outputs - outputs.mean(0)).sum(0) @ self._belongs
        share: np.ndarray = 1.0 - error / np.maximum(total, 1e-300)  # 0: a constant in these rows
        return share

    def importance(self, rows: np.ndarray, fits: Sequence[Fit]) -> np.ndarray:
        """Return R, (codes, factors), at least 0, over some rows, (rows,)."""
        counts = np.bincount(self._columns[rows].ravel(), minlength=self._width)
        share = counts[:, None] / len(rows)

        def mean(values: np.ndarray) -> np.ndarray:
            """Return the mean over the rows for each code, (codes, outputs)."""
            return np.add.reduceat(share * values, self._starts)

        one, other = (fit.effects for fit in fits)
        covariance = mean(one * other) - mean(one) * mean(other)
        added: np.ndarray = (covariance @ self._belongs).clip(0.0)
        return added
