"""What a report measures on data; a measurement that fails leaves its error in its place."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.anomaly.detector import AnomalyDetector
from ppl_vae.checks.predictive_checks import PredictiveCheck, predictive_check
from ppl_vae.checks.user_statistics import without_discrepancies
from ppl_vae.core.pair import Guide, Model
from ppl_vae.data.rows import Rows
from ppl_vae.evaluation.likelihood import elbo_terms, log_likelihood
from ppl_vae.evaluation.summary import TERMS_DRAWS, LikelihoodSummary, UnreliableWarning
from ppl_vae.report.columns_section import TableColumns
from ppl_vae.report.examples import Examples
from ppl_vae.report.images import ImageField
from ppl_vae.report.strange_rows import StrangeRows

T = TypeVar("T")
GROUP_TITLES = {"held out": "held-out rows", "fitted": "rows fitted to"}


@dataclass(frozen=True)
class Measurements:
    """The measurements of one report, each replaced by its error where it failed.

    Attributes:
        rows: The data.
        split: Which rows were fitted to and which were held out, as far as that is known:
            ``{"fitted": positions, "held out": positions}``, (rows,) integers each.
        scores: The frame of ``log_likelihood``.
        terms: The frame of ``elbo_terms``.
        posterior_check: The posterior predictive check; ``None`` without a guide.
        prior_check: The prior predictive check.
        strange: The scores of the rows, and what makes the strangest of them strange.
        examples: Some rows of the data and of the model; ``None`` where there is nothing to show.
        columns: Rows of a table and of the model; ``None`` for data that are no table.
        image: The field that holds images; ``None`` for none.
        num_samples: Draws of the latents for each row.
        fewer: Whether draws or replicates are fewer than usual, because the networks are large.
        has_guide: Whether the pair has a guide.
    """

    rows: Rows
    split: dict[str, Tensor]
    scores: pd.DataFrame | ValueError
    terms: pd.DataFrame | ValueError
    posterior_check: PredictiveCheck | ValueError | None
    prior_check: PredictiveCheck | ValueError
    strange: StrangeRows | ValueError
    examples: Examples | ValueError | None
    columns: TableColumns | ValueError | None
    image: ImageField | None
    num_samples: int
    fewer: bool
    has_guide: bool

    @classmethod
    def of(
        cls,
        model: Model,
        guide: Guide,
        rows: Rows,
        *,
        split: dict[str, Tensor],
        statistics: Any,
        num_samples: int,
        replicates: int,
        detector: AnomalyDetector | None = None,
        image: ImageField | None = None,
        fewer: bool = False,
        show_rows: bool = True,
        **shared: Any,
    ) -> Self:
        """Measure a pair on rows.

        Args:
            model: The model.
            guide: The guide; ``None`` is the prior.
            rows: The data.
            split: Which rows were fitted to and which were held out.
            statistics: Statistics of the predictive checks. A discrepancy T(x, latents) is left out
                of the prior check beside a posterior one.
            num_samples: Draws of the latents for each row.
            replicates: Replicated data sets for each predictive check.
            detector: A detector of strange rows.
            image: The field that holds images; ``None`` for none.
            fewer: Whether draws or replicates are fewer than usual.
            show_rows: Whether single rows are shown, some of the data and the strangest ones.
            shared: Arguments that every measurement takes: ``seed``, ``progress``, ``plate``.

        Warns:
            UserWarning: With the error of each measurement that failed.
        """
        pair = model, guide
        draws = {"num_samples": num_samples, **shared}
        terms_draws = {"num_samples": min(num_samples, TERMS_DRAWS), **shared}
        checks = {"num_samples": replicates, "statistics": statistics, **shared}
        # The page counts the rows that this warning is about.
        with warnings.catch_warnings(action="ignore", category=UnreliableWarning):
            scores = value_or_error(log_likelihood, *pair, rows, **draws)
        terms = value_or_error(elbo_terms, *pair, rows, **terms_draws)
        posterior = None
        if guide is not None:
            posterior = value_or_error(predictive_check, *pair, rows, **checks)
            checks["statistics"] = without_discrepancies(statistics)
        prior = value_or_error(predictive_check, model, None, rows, **checks)
        known = split.get("fitted", torch.arange(len(rows))).numpy()
        strange = value_or_error(
            StrangeRows.of, *pair, rows, scores, detector, known=known, image=image,
            show_rows=show_rows, **draws,
        )  # fmt: skip
        rest = {"seed": shared["seed"], "plate": shared["plate"]}
        examples = value_or_error(Examples.of, *pair, rows, image, show_rows=show_rows, **rest)
        columns = value_or_error(TableColumns.of, *pair, rows, **rest)
        results = (scores, posterior, prior, strange, examples, columns)
        for error in {str(found): found for found in results if isinstance(found, ValueError)}:
            warnings.warn(f"write_report: a part could not be measured: {error}", stacklevel=4)
        return cls(
            rows, split, scores, terms, posterior, prior, strange, examples, columns, image,
            num_samples, fewer, guide is not None,
        )  # fmt: skip

    @property
    def draws_nothing(self) -> bool:
        """Whether it is known that the pair draws no latent, so that log-likelihoods are exact."""
        return not isinstance(self.scores, ValueError) and bool(self.scores.attrs.get("exact"))

    def groups(self) -> dict[str, np.ndarray]:
        """Return the groups of rows for which means are given, ``{title: positions}``.

        The first group is the one that the verdict is about: held-out rows where there are some,
        because they say more about a fit than the rows that the pair was fitted to. The last group
        has all rows.
        """
        known = {
            title: self.split[name].numpy()
            for name, title in GROUP_TITLES.items()
            if name in self.split
        }
        everything = {"all rows": np.arange(len(self.rows))}
        return known if len(known) == 1 else {**known, **everything}

    def summaries(self) -> dict[str, LikelihoodSummary]:
        """Summarize the log-likelihoods of each group of rows, in the order of ``groups``.

        Returns:
            ``{title: summary}``; empty where the log-likelihood could not be measured.
        """
        if isinstance(self.scores, ValueError):
            return {}
        return {
            title: LikelihoodSummary.of(
                self.scores.iloc[positions], self.num_samples, has_guide=self.has_guide
            )
            for title, positions in self.groups().items()
        }


def value_or_error(function: Callable[..., T], *args: Any, **keywords: Any) -> T | ValueError:
    """Call a function and return its value, or the ``ValueError`` that it raised."""
    try:
        return function(*args, **keywords)
    except ValueError as error:
        return error
