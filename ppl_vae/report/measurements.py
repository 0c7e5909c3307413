"""What a report finds out about a pair and rows, and how far that reaches if a part fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from torch import Tensor

from ppl_vae.checks.predictive_checks import PredictiveCheck, predictive_check
from ppl_vae.core.pair import Guide, Model
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.likelihood import elbo_terms, log_likelihood
from ppl_vae.evaluation.psis import FEWEST, THRESHOLD

T = TypeVar("T")
FEW_DRAWS = 100  # for means of logarithms, which the ELBO by site is made of


@dataclass(frozen=True)
class Measurements:
    """The measurements of one report; an error in place of what could not be measured.

    Attributes:
        rows: The data.
        parts: Which rows were fitted to and which held out, where that is known.
        scores: Of ``log_likelihood``.
        terms: Of ``elbo_terms``.
        check: The posterior predictive check; ``None`` without a guide.
        prior: The prior predictive check.
        num_samples: Draws of the latents a row.
        has_guide: Whether the pair has a guide.
    """

    rows: Rows
    parts: dict[str, Tensor]
    scores: pd.DataFrame | ValueError
    terms: pd.DataFrame | ValueError
    check: PredictiveCheck | ValueError | None
    prior: PredictiveCheck | ValueError
    num_samples: int
    has_guide: bool

    @classmethod
    def of(
        cls,
        model: Model,
        guide: Guide,
        rows: Rows,
        *,
        parts: dict[str, Tensor],
        statistics: Any,
        num_samples: int,
        replicates: int,
        **shared: Any,
    ) -> Measurements:
        """Run the four functions of the library; ``shared`` goes to each of them."""
        pair = model, guide
        draws = {"num_samples": num_samples, **shared}
        few = {"num_samples": min(num_samples, FEW_DRAWS), **shared}
        checks = {"num_samples": replicates, "statistics": statistics, **shared}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "log_likelihood: k-hat")  # the page tells it
            scores = value_or_error(log_likelihood, *pair, rows, **draws)
        terms = value_or_error(elbo_terms, *pair, rows, **few)
        check = None if guide is None else value_or_error(predictive_check, *pair, rows, **checks)
        prior = value_or_error(predictive_check, model, None, rows, **checks)
        for fault in {str(f): f for f in (scores, check, prior) if isinstance(f, ValueError)}:
            warnings.warn(f"write_report: a part could not be measured: {fault}", stacklevel=4)
        return cls(rows, parts, scores, terms, check, prior, num_samples, guide is not None)

    def groups(self) -> dict[str, np.ndarray]:
        """Positions of the rows to speak of separately; the ones that the verdict is about first.

        Held-out rows say more of a fit than those it was made on.
        """
        known = {name: index.numpy() for name, index in self.parts.items()}
        names = {"held out": "held-out rows", "fitted": "rows fitted to"}
        named = {title: known[name] for name, title in names.items() if name in known}
        every = {"all rows": np.arange(len(self.rows))}
        return named if len(named) == 1 else {**named, **every}


def value_or_error(function: Callable[..., T], *args: Any, **keywords: Any) -> T | ValueError:
    """What a function gives, or the ``ValueError`` with which it refuses."""
    try:
        return function(*args, **keywords)
    except ValueError as error:
        return error


def mean(values: np.ndarray) -> tuple[float, float]:
    """The mean over rows and its standard error, NaN for one row."""
    with np.errstate(invalid="ignore"):  # -inf: a row that cannot be
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        return float(values.mean()), float(error)


def unreliable(scores: pd.DataFrame) -> int:
    """Rows whose k-hat is above 0.7."""
    return int((scores["k_hat"] > THRESHOLD).sum())


def trust(scores: pd.DataFrame, num_samples: int, *, has_guide: bool) -> list[str]:
    """How far the log-likelihoods can be trusted, a sentence each."""
    k_hat, rows = scores["k_hat"].to_numpy(), len(scores)
    impossible = int(np.isneginf(scores["log_prob"].to_numpy()).sum())
    exact, unknown = int(np.isneginf(k_hat).sum()), int(np.isnan(k_hat).sum()) - impossible
    told = []
    if unknown + impossible < rows:
        told.append(_above(unreliable(scores), rows, has_guide=has_guide))
    if exact:
        told.append(
            f"k-hat is minus infinity in {exact} of {rows} rows: all draws weigh the same, so the "
            "log-likelihood is exact there; nothing is left to draw, or the guide is the posterior."
        )
    if impossible:
        told.append(
            f"The log-likelihood of {impossible} of {rows} rows is minus infinity: no draw of the "
            "latents can have made them."
        )
    if num_samples < FEWEST:
        told.append(f"k-hat is unknown: it takes {FEWEST} draws a row or more.")
    elif unknown > 0:
        told.append(
            f"k-hat is unknown in {unknown} of {rows} rows: their largest weights are ties, as "
            "where the latents are discrete. Judge by the effective number of draws."
        )
    return told


def _above(bad: int, rows: int, *, has_guide: bool) -> str:
    if not bad:
        return (
            f"k-hat is at most {THRESHOLD} in every row that has one: the estimates can be trusted."
        )
    cause, mend = "the guide misses part of what explains them", "fit a better guide"
    if not has_guide:
        cause, mend = "draws from the prior seldom explain them", "fit a guide"
    return (
        f"k-hat is above {THRESHOLD} in {bad} of {rows} rows: {cause}, a few draws decide their "
        f"log-likelihood, and it may be far too low. What helps is to {mend}, or more draws."
    )
