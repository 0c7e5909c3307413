"""Codes of rows and known factors of rows, in one form: numbers or categories, and their bins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ppl_vae.arguments import shown

COLLAPSED = 0.01
"""Share of a latent's variance over all rows that its means have; below it, they tell nothing."""

ROUNDING = 1e-6
"""Relative range of means in single precision that are equal but for rounding."""


@dataclass(frozen=True)
class Variable:
    """A code or a factor: its value in every row.

    Attributes:
        name: Its name.
        bins: (rows,) number of the bin that a row's value lies in, from 0, with a row in every bin;
            for categories, the number of the category.
        values: (rows,) numbers; ``None`` for categories, which have no order.
    """

    name: str
    bins: np.ndarray
    values: np.ndarray | None

    @property
    def count(self) -> int:
        """Number of bins or categories."""
        return int(self.bins.max()) + 1

    def outputs(self) -> np.ndarray:
        """Return the factor for a regression, (rows, outputs), with mean 0 and total variance 1.

        A number is one output; of categories, each is an output of two values.
        """
        whole = np.eye(self.count)[self.bins] if self.values is None else self.values[:, None]
        centered = whole - whole.mean(0)
        scaled: np.ndarray = centered / np.sqrt(np.square(centered).mean(0).sum())
        return scaled


def in_bins(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the bin of each number, (rows,), from 0; all bins have about as many rows.

    Bins depend on the order of the values alone, so that an increasing function of the values
    changes none. Equal values share a bin; where there are few different values, each has its own.

    Args:
        values: (rows,) finite numbers.
        num_bins: Most bins.

    Example:
        >>> in_bins(np.array([0.1, 0.2, 7.0, 9.0]), 2), in_bins(np.array([5.0, 5.0, 1.0]), 2)
        (array([0, 0, 1, 1]), array([1, 1, 0]))
    """
    distinct, bins = np.unique(values, return_inverse=True)
    if len(distinct) > num_bins:
        edges = np.quantile(values, np.arange(1, num_bins) / num_bins)
        bins = np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]
    return np.asarray(bins)


def as_variable(name: str, values: np.ndarray, num_bins: int) -> Variable:
    """Return a variable of numbers, (rows,) of floats, or of categories, (rows,) of integers."""
    if values.dtype.kind == "f":
        return Variable(name, in_bins(values, num_bins), values)
    return Variable(name, np.unique(values, return_inverse=True)[1], None)


@dataclass(frozen=True)
class Codes:
    """The codes of rows.

    Attributes:
        variables: A code for each latent; a collapsed one is constant.
        collapsed: Names of the collapsed ones.
    """

    variables: list[Variable]
    collapsed: list[str]


def codes_of(means: pd.DataFrame, num_bins: int) -> Codes:
    """Return the codes of rows: the means of their latents, the most probable of categories.

    A latent whose means have less than 1 % of its variance is collapsed (Burda, Grosse &
    Salakhutdinov, 2016, appendix C, arXiv:1509.00519, for a prior of variance 1): even where its
    means follow a factor, the noise around them hides that from the model.

    Args:
        means: The frame of ``encode``, with finite numbers.
        num_bins: Most bins of a code.
    """
    codes = Codes([], [])
    for site in means.columns.unique("site"):
        moments = means[site]
        if "probability" in moments:
            columns = [
                (part.argmax(1), part.var(0).sum(), (part.mean(0) * (1 - part.mean(0))).sum())
                for part in _categories(moments["probability"].to_numpy())
            ]
        else:
            mean, sd = (moments[name].to_numpy(dtype=float) for name in ("mean", "sd"))
            among, within = mean.var(0), np.square(sd).mean(0)
            columns = list(zip(mean.T, among, among + within, strict=True))
        for number, (values, among, total) in enumerate(columns):
            name = f"{site}[{number}]" if len(columns) > 1 else str(site)
            if among <= COLLAPSED * total or np.ptp(values) <= ROUNDING * np.abs(values).max():
                codes.collapsed.append(name)
                values = np.zeros(len(values))  # noqa: PLW2901
            codes.variables.append(as_variable(name, values, num_bins))
    return codes


def _categories(probabilities: np.ndarray) -> list[np.ndarray]:
    """Return the probabilities of each categorical latent of a site, (rows, categories) each.

    Args:
        probabilities: (rows, latents * categories), which add up to 1 for each latent.
    """
    latents = max(1, round(float(probabilities.sum(1).mean())))
    return np.split(probabilities, latents, axis=1)


def factors_of(factors: Any, index: pd.Index) -> dict[str, np.ndarray]:
    """Return what is known of the rows, ``{name: (rows,)}``: floats, or integers for categories.

    Args:
        factors: A frame, or a mapping from names to values.
        index: Labels of the rows of the data.

    Raises:
        ValueError: If the factors have another form, other rows, or values missing.
    """
    if not isinstance(factors, pd.DataFrame | Mapping):
        raise ValueError(
            "factors: expected a frame, or a mapping from names to one value for each row, got "
            f"{type(factors).__name__}"
        )
    columns = [(str(name), values) for name, values in factors.items()]
    if len({name for name, _ in columns}) < len(columns) or not columns:
        names = [name for name, _ in columns]
        raise ValueError(f"factors: expected at least one, each of a name of its own, got {names}")
    return {name: _factor(f'factors["{name}"]', values, index) for name, values in columns}


def _factor(where: str, values: Any, index: pd.Index) -> np.ndarray:
    """Return one factor, (rows,): floats, or integers for categories.

    Args:
        where: Name of the factor, for messages.
        values: Its values, in any form.
        index: Labels of the rows of the data.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if not isinstance(values, pd.Series):
        if np.ndim(values) != 1:
            shape = np.shape(values)
            raise ValueError(f"{where}: expected one value for each row, got shape {shape}")
        values = pd.Series(values)
    elif not _in_order(values.index, index):
        raise ValueError(
            f"{where}: expected the rows of the data in their order, got another index; "
            "factors.loc[data.index] puts the rows in order"
        )
    if len(values) != len(index):
        raise ValueError(
            f"{where}: expected {len(index)} values, one for each row, got {len(values)}"
        )
    missing = np.flatnonzero(values.isna())
    if len(missing):
        raise ValueError(
            f"{where}: expected a value for each row, got none in {len(missing)} of {len(values)}, "
            f"the first is row {missing[0]}; leave those rows out of the data and of the factors"
        )
    names = [isinstance(value, str | bool | np.bool_) for value in values]
    if isinstance(values.dtype, pd.CategoricalDtype) or all(names):
        return np.asarray(pd.factorize(values)[0])
    if not all(isinstance(value, Real) for value in values) or any(names):
        raise ValueError(
            f"{where}: expected numbers or names, got {shown(next(iter(values)))} of dtype "
            f"{values.dtype}; turn the values into numbers, or into strings"
        )
    numbers: np.ndarray = values.to_numpy(dtype=float)
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"{where}: expected finite numbers, got {numbers[~np.isfinite(numbers)][0]}"
        )
    return numbers


def _in_order(given: pd.Index, rows: pd.Index) -> bool:
    """Return whether values with an index may be taken row by row for those of the data.

    Where the rows of the data have no labels of their own, values of any rows may be meant, but not
    the same numbers in another order.
    """
    own = not isinstance(rows, pd.RangeIndex)
    return given.equals(rows) or not (own or set(given) == set(rows))
