"""What the log-likelihoods and the ELBO terms of many rows say together, and how reliable they are.

    mean over rows = 1/N sum_n v_n,   standard error = sd(v) / sqrt(N)      v: (N,), nats per row

The command ``evaluate`` and the report both print these numbers and these sentences, so that a
fit is described in the same words everywhere.

A k-hat above its threshold says that the largest weights may not have been drawn yet; it does not
say what they are worth. So the verdict weighs the effective number of draws and the standard error
too: where most draws count, the numbers do not say that an estimate is far too low.

Source of the threshold on k-hat, min(1 - 1/log10(S), 0.7): Vehtari, Simpson, Gelman, Yao & Gabry
(2024), arXiv:1507.02646.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ppl_vae.evaluation.psis import FEWEST, k_threshold, standard_error

TERMS_DRAWS = 100  # draws per row that suffice for elbo_terms, whose columns average logarithms
MOST_DRAWS = 0.5  # share of the draws that has to count where k-hat is above its threshold
SHARES = (0.05, 0.5, 0.95)  # quantiles over rows that are reported for ess and k-hat


class UnreliableWarning(UserWarning):
    """Warning that the log-likelihood of some rows is not reliable: high k-hat, low ESS.

    Callers that report unreliable rows in their own way ignore this category.
    """


def unreliable_rows(scores: pd.DataFrame, num_samples: int) -> np.ndarray:
    """Return in which rows a log-likelihood may be far too low, (rows,) of bool.

    These are the rows of ``UnreliableWarning`` and, among rows without a k-hat, those of which few
    draws count: without an estimate of the tail nothing speaks for them.

    Args:
        scores: A frame of ``log_likelihood``, with its ``attrs``.
        num_samples: Draws of the latents for each row.

    Example:
        >>> scores = pd.DataFrame({"ess": [9.0, 90.0, 9.0], "k_hat": [0.9, np.nan, 0.1]})
        >>> scores.attrs = {"exact": False, "k_hat_threshold": 0.5}
        >>> unreliable_rows(scores, 100)
        array([ True, False, False])
    """
    limits, ess = scores.attrs, scores["ess"].to_numpy()
    if limits["exact"]:
        return np.zeros(len(scores), dtype=bool)
    if "standard_error" in scores:
        near = scores["standard_error"].to_numpy() <= limits["standard_error_threshold"]
        reliable = near & (ess >= limits["ess_threshold"])
    else:
        known = scores["k_hat"].to_numpy() <= limits["k_hat_threshold"]
        reliable = known | (ess >= MOST_DRAWS * num_samples)
    return np.asarray(~reliable)  # NaN is no number that speaks for a row


@dataclass(frozen=True)
class MeanOverRows:
    """The mean of one quantity over rows, in nats per row.

    Attributes:
        mean: The mean.
        standard_error: The standard error of the mean; NaN for a single row, and where a value is
            infinite.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: np.ndarray) -> MeanOverRows:
        """Return the mean of values, (rows,), and its standard error.

        Example:
            >>> MeanOverRows.of(np.array([1.0, 3.0]))
            MeanOverRows(mean=2.0, standard_error=1.0)
        """
        with np.errstate(invalid="ignore"):  # the log-likelihood of an impossible row is -inf
            error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
            return cls(float(values.mean()), float(error))


@dataclass(frozen=True)
class LikelihoodSummary:
    """Summary of a frame of ``log_likelihood``: means, quantiles, and counts of unreliable rows.

    Attributes:
        rows: Number of rows.
        num_samples: Draws of the latents for each row.
        has_guide: Whether the draws came from a guide (otherwise from the prior).
        log_prob: Mean log-likelihood.
        elbo: Mean ELBO.
        gap: Mean of log-likelihood minus ELBO: what the guide loses, in nats per row.
        ess: Quantiles of the effective number of draws, ``{share of rows: value}``. Each quantile
            is the value of one row, so that an infinite value is never averaged with a finite one.
        k_hat: Quantiles of k-hat, in the same form; rows without a k-hat are left out, and all
            quantiles are NaN where no row has one.
        threshold: What k-hat may be at this number of draws: ``psis.k_threshold``.
        above: Number of rows whose k-hat is above the threshold.
        unreliable: Number of those rows in which the effective number of draws is below half of the
            draws.
        doubtful_ess: The effective number of draws of the unreliable rows, their median; of all
            rows above the threshold, the smallest, where none is unreliable.
        exact: Number of rows whose k-hat is ``-inf``: all draws have the same importance weight.
        impossible: Number of rows whose log-likelihood is ``-inf``.
        overflowed: Number of rows whose log-likelihood is NaN, because the pair overflows on them;
            means and quantiles leave them out.
        without_k_hat: Number of rows whose k-hat is NaN, the impossible and overflowed rows among
            them.
        draws_nothing: Whether no latent is drawn at all, so that the log-likelihoods are exact.
    """

    rows: int
    num_samples: int
    has_guide: bool
    log_prob: MeanOverRows
    elbo: MeanOverRows
    gap: MeanOverRows
    ess: dict[float, float]
    k_hat: dict[float, float]
    threshold: float
    above: int
    unreliable: int
    doubtful_ess: float
    exact: int
    impossible: int
    overflowed: int
    without_k_hat: int
    draws_nothing: bool

    @classmethod
    def of(cls, scores: pd.DataFrame, num_samples: int, *, has_guide: bool) -> LikelihoodSummary:
        """Summarize a frame of ``log_likelihood``.

        Args:
            scores: Columns ``log_prob``, ``elbo``, ``ess`` and ``k_hat``, a line for each row.
            num_samples: Draws of the latents for each row.
            has_guide: Whether the draws came from a guide.

        Example:
            >>> scores = pd.DataFrame({"log_prob": [-2.0, -4.0], "elbo": [-3.0, -5.0],
            ...                        "ess": [9.0, 2.0], "k_hat": [0.1, 0.9]})
            >>> summary = LikelihoodSummary.of(scores, 100, has_guide=True)
            >>> summary.log_prob.mean, summary.gap.mean, summary.unreliable
            (-3.0, 1.0, 1)
            >>> summary.verdict()
            'k-hat is above 0.5 in 1 of 2 rows: their log-likelihood is not reliable.'
        """
        rows, scores = len(scores), scores[scores["log_prob"].notna()]
        log_prob, elbo, ess, k_hat = (
            scores[name].to_numpy() for name in ("log_prob", "elbo", "ess", "k_hat")
        )
        with np.errstate(invalid="ignore"):  # an impossible row has -inf in both
            gap = log_prob - elbo
        threshold = k_threshold(num_samples)
        above = k_hat > threshold
        unreliable = above & (ess < MOST_DRAWS * num_samples)
        doubtful = (
            np.median(ess[unreliable]) if unreliable.any() else ess[above].min(initial=np.inf)
        )
        return cls(
            rows=rows, num_samples=num_samples, has_guide=has_guide,
            log_prob=MeanOverRows.of(log_prob), elbo=MeanOverRows.of(elbo),
            gap=MeanOverRows.of(gap), ess=quantiles(ess), k_hat=quantiles(k_hat),
            threshold=threshold, above=int(above.sum()), unreliable=int(unreliable.sum()),
            doubtful_ess=float(doubtful), exact=int(np.isneginf(k_hat).sum()),
            impossible=int(np.isneginf(log_prob).sum()), overflowed=rows - len(scores),
            without_k_hat=int(np.isnan(k_hat).sum()) + rows - len(scores),
            draws_nothing=scores.attrs.get("exact", False),
        )  # fmt: skip

    def verdict(self) -> str:
        """Return one sentence on whether the log-likelihoods are reliable.

        Returns:
            The sentence; empty where no row has a k-hat.
        """
        if self.draws_nothing:
            return "No latent is drawn: the log-likelihood is exact."
        if self.without_k_hat == self.rows:
            return ""
        at_most = f"{self.threshold:.2g}"
        if not self.above:
            return (
                f"k-hat is at most {at_most} in every row that has a k-hat: their "
                "log-likelihood is reliable."
            )
        verdict = f"k-hat is above {at_most} in {self._share(self.above)}: "
        if not self.unreliable:
            return (
                f"{verdict}their weights have a heavy tail that is worth little so far: "
                f"at least {self._effective_draws()}."
            )
        which = (
            "their log-likelihood"
            if self.unreliable == self.above
            else f"the log-likelihood of {self.unreliable} of them"
        )
        return f"{verdict}{which} is not reliable."

    def advice(self, option: str = "num_samples") -> str:
        """Return why some rows are unreliable and what helps; empty where no row is.

        Args:
            option: The name under which the caller's user sets the number of draws.
        """
        if not self.unreliable:
            return ""
        if self.has_guide:
            cause = "the guide misses part of their posterior"
            mend = (
                "refine the guide for these rows, refine(model, guide, data) (for states of "
                'sequences, take method="particle_filter"), fit a wider one (for codes of real '
                "numbers, guides/multivariate_normal.py or flow.py)"
            )
        else:
            cause = "draws from the prior rarely reach their posterior"
            mend = "fit a guide, let refine(model, None, data) find one for these rows"
        return (
            f"In these rows {cause}, with a median of {self._effective_draws()}, so that "
            f"a few draws decide the estimate, which may be far too low; {mend}, or "
            f"raise {option}."
        )

    def _effective_draws(self) -> str:
        """Return words for ``doubtful_ess`` and for the standard error that follows from it."""
        error = standard_error(self.doubtful_ess, self.num_samples)
        draws = f"{self.doubtful_ess:,.{0 if self.doubtful_ess >= 100 else 1}f}"
        return (
            f"{draws} of {self.num_samples:,} effective draws (a standard error of "
            f"{error:.1g} nats)"
        )

    def notes(self, option: str = "num_samples") -> list[str]:
        """Return one sentence for each other thing to know about k-hat and the log-likelihoods.

        The sentences count the rows that are exact, the rows that are impossible under the model,
        and the rows that have no k-hat, and say why.

        Args:
            option: The name under which the caller's user sets the number of draws.
        """
        sentences = []
        if self.exact and not self.draws_nothing:
            sentences.append(
                f"k-hat is -inf in {self._share(self.exact)}: all draws have the same importance "
                "weight, so the log-likelihood is exact there. Either the guide equals the "
                "posterior, or no latent is left to draw."
            )
        if self.impossible:
            sentences.append(
                f"The log-likelihood is -inf in {self._share(self.impossible)}: no draw of the "
                "latents gives them a positive probability, so they have no k-hat."
            )
        if self.overflowed:
            sentences.append(
                f"The log-likelihood is NaN in {self._share(self.overflowed)}, which the means "
                "leave out: they are so far from the data that the networks overflow."
            )
        tied = self.without_k_hat - self.impossible - self.overflowed
        if self.draws_nothing:
            return sentences
        if self.num_samples < FEWEST:
            sentences.append(
                f"k-hat is not known: it needs at least {FEWEST} draws for each row; "
                f"raise {option}."
            )
        elif tied > 0:
            sentences.append(
                f"k-hat is not known in {self._share(tied)}: their largest importance weights are "
                "equal, which is usual for discrete latents that are drawn. A value that the guide "
                "never draws leaves no sign in the weights; sum such a latent exactly with "
                'infer={"enumerate": "parallel"} to be sure.'
            )
        return sentences

    def sentences(self, option: str = "num_samples") -> list[str]:
        """Return everything there is to say on reliability: verdict, advice and notes."""
        first = f"{self.verdict()} {self.advice(option)}".strip()
        return [first, *self.notes(option)] if first else self.notes(option)

    def _share(self, count: int) -> str:
        return f"{count} of {self.rows} row{'' if self.rows == 1 else 's'}"


@dataclass(frozen=True)
class ElboSummary:
    """Summary of a frame of ``elbo_terms``: the mean of each site, and of all sites together.

    Attributes:
        rows: Number of rows.
        sites: ``{site: mean over rows}`` of the sites in the row plate.
        outside: ``{site: total in nats}`` of the sites outside the row plate.
        together: Mean ELBO per row: the sum of all sites, those outside the row plate divided by
            the number of rows.
        measure: What the terms add up to: ``"ELBO"``, or ``"log joint density"`` where the guide
            gives a latent as a point.
    """

    rows: int
    sites: dict[str, MeanOverRows]
    outside: dict[str, float]
    together: MeanOverRows
    measure: str = "ELBO"

    @classmethod
    def of(cls, terms: pd.DataFrame) -> ElboSummary:
        """Summarize a frame of ``elbo_terms``, whose ``attrs["global"]`` holds global sites.

        Example:
            >>> terms = pd.DataFrame({"z": [-1.0, -3.0], "x": [-9.0, -7.0]})
            >>> terms.attrs["global"] = {"level": -4.0}
            >>> ElboSummary.of(terms).together.mean
            -12.0
        """
        outside: Mapping[str, float] = terms.attrs["global"]
        measure = terms.attrs.get("measure", "ELBO")
        terms = terms.dropna()  # rows on which the pair overflows
        shared = sum(outside.values()) / len(terms)
        return cls(
            rows=len(terms),
            sites={str(name): MeanOverRows.of(terms[name].to_numpy()) for name in terms},
            outside=dict(outside),
            together=MeanOverRows.of(terms.to_numpy().sum(1) + shared),
            measure=measure,
        )


def quantiles(values: np.ndarray) -> dict[float, float]:
    """Return quantiles over rows, each of which is the value of one row.

    No two rows are averaged: between ``-inf`` and a finite value there is no middle.

    Args:
        values: (rows,); NaNs are left out.

    Returns:
        ``{share of rows: value}`` for the shares 0.05, 0.5 and 0.95; NaN where nothing is left.

    Example:
        >>> quantiles(np.array([1.0, -np.inf, 3.0, np.nan]))[0.5]
        1.0
    """
    known = values[~np.isnan(values)]
    return {
        share: float(np.quantile(known, share, method="nearest")) if len(known) else float("nan")
        for share in SHARES
    }
