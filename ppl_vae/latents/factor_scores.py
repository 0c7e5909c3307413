"""Scores of disentanglement, from how much each code says of each factor.

    I(j, k)    mutual information of code j and factor k, both in bins, in nats
    A(j, k)    (I - E) / (H(k) - E): I adjusted for chance, from 0 to 1. H(k) is the entropy of the
               factor, E the mean of I over shuffled rows, whose codes know nothing of the factor
    R(j, k)    importance: what code j adds to a regression of factor k on all codes, as a share of
               the factor's variance
    S(j, k)    what code j says of factor k by itself: the squared correlation of two numbers, the
               balanced accuracy for a factor of categories

    mig                  mean over k of A(first, k) - A(second, k), the two codes of the largest A
    dci_disentanglement  1 - entropy of R(j, .) / log(factors), mean over j, weighted by sum_k R
    dci_completeness     1 - entropy of R(., k) / log(codes), mean over k, weighted by sum_j R
    dci_informativeness  mean over k of R^2 on held-out rows of the regression on all codes
    sap                  mean over k of S(first, k) - S(second, k), the two codes of the largest S
    modularity           1 - sum_(k but the best) m(j, k)^2 / (m(j, best)^2 (factors - 1)), with
                         m = A(j, k) H(k), mean over the codes j that hold any

Few rows in many bins have mutual information by chance: to the first order the product of both
numbers of bins, less 1 each, over twice the rows. A is 0 on average where code and factor have
nothing in common, and 1 where the bin of the code tells that of the factor.

Sources: Chen et al. (2018), section 4.1, arXiv:1802.04942 (mig); Eastwood & Williams (2018),
section 2, ICLR (dci); Kumar et al. (2018), section 3, arXiv:1711.00848 (sap); Ridgeway & Mozer
(2018), section 3, arXiv:1802.05312 (modularity); Vinh, Epps & Bailey (2010), JMLR 11 (adjusted).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SCORES = (
    "mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap", "modularity"
)  # fmt: skip


@dataclass(frozen=True)
class Relations:
    """How codes and factors are related in some rows: all that the scores are made of.

    Attributes:
        information: I, (codes, factors), in nats, with what it has by chance.
        entropy: H, (factors,), in nats.
        importance: R, (codes, factors).
        explained: R^2 on held-out rows, (factors,), at least 0.
        alone: S, (codes, factors).
        baseline: S of a code that says nothing, (factors,).
    """

    information: np.ndarray
    entropy: np.ndarray
    importance: np.ndarray
    explained: np.ndarray
    alone: np.ndarray
    baseline: np.ndarray

    def scores(self, chance: np.ndarray) -> np.ndarray:
        """Return the scores in the order of ``SCORES``, (6,); NaN where a score is not defined.

        Args:
            chance: I of shuffled rows, (shuffles, codes, factors).
        """
        share = self.adjusted(chance)
        first, second = largest_two(share, np.zeros(len(self.entropy)))
        best, next_best = largest_two(self.alone, self.baseline)
        return np.array(
            [
                (first - second).mean(),
                concentration(self.importance),
                concentration(self.importance.T),
                self.explained.mean(),
                (best - next_best).mean(),
                modularity(share * self.entropy),
            ]
        )

    def adjusted(self, chance: np.ndarray) -> np.ndarray:
        """Return A, (codes, factors); 0 where I is not above that of 95 % of the shuffles.

        Args:
            chance: I of shuffled rows, (shuffles, codes, factors).
        """
        expected = chance.mean(0)
        share = (self.information - expected) / (self.entropy - expected)
        above = self.information > np.quantile(chance, 0.95, axis=0)
        return np.where(above, share.clip(0.0, 1.0), 0.0)


def largest_two(values: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest and the second value of each column, (columns,) each.

    Args:
        values: (rows, columns).
        least: (columns,) stands for the second value where there is one row only.

    Example:
        >>> largest_two(np.array([[1.0], [3.0], [2.0]]), np.zeros(1))
        (array([3.]), array([2.]))
    """
    ordered = np.sort(values, 0)
    return ordered[-1], ordered[-2] if len(values) > 1 else least


def concentration(importance: np.ndarray) -> float:
    """Return how far each row's importances lie in one column, from 0 (spread evenly) to 1.

    Rows are weighted by their sum. Where all importances are 0, so is the result; with a single
    column it is not defined, NaN.

    Args:
        importance: (rows, columns), none below 0.

    Example:
        >>> concentration(np.array([[1.0, 0.0], [0.0, 2.0]])), concentration(np.ones((2, 2)))
        (1.0, 0.0)
    """
    columns, sums = importance.shape[1], importance.sum(1, keepdims=True)
    if columns < 2:
        return np.nan
    if sums.sum() <= 0:
        return 0.0
    shares = np.divide(importance, sums, out=np.ones_like(importance), where=importance > 0)
    entropy = -np.sum(shares * np.log(shares), 1) / np.log(columns)
    return float(np.average(1.0 - entropy, weights=sums[:, 0]))


def modularity(information: np.ndarray) -> float:
    """Return the mean modularity of the codes that hold information; 0 if none does.

    Args:
        information: m, (codes, factors), in nats; with a single factor the result is NaN.

    Example:
        >>> modularity(np.array([[1.0, 0.0], [0.0, 0.0]])), modularity(np.ones((2, 2)))
        (1.0, 0.0)
    """
    factors, squares = information.shape[1], np.square(information)
    if factors < 2:
        return np.nan
    best = squares.max(1)
    holding = best > 0
    others = (squares.sum(1) - best)[holding] / (best[holding] * (factors - 1))
    return float(np.mean(1.0 - others)) if holding.any() else 0.0
