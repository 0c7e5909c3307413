"""What a report finds, a line each, with what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ppl_vae.checks.observed_and_replicated import ACROSS
from ppl_vae.checks.predictive_checks import PredictiveCheck
from ppl_vae.checks.step_statistics import AUTOCORRELATIONS, RUNS, TRANSITIONS
from ppl_vae.checks.summaries import QUANTILES
from ppl_vae.report.check_section import flagged_names
from ppl_vae.report.fit_facts import FitFacts
from ppl_vae.report.measurements import Measurements
from ppl_vae.report.numbers import shortened

NAMED = 3  # flagged statistics that a finding names
DEPENDENCE = (
    "Give the pair more latents, or take a likelihood whose features depend on one another "
    "(models/full_covariance.py)."
)
LATENTS = "Give the pair more latents, or the model a larger decoder."
SHAPE = (
    "Take a likelihood of another shape, such as one with heavier tails (models/student.py), or "
    "fit to another scale of the values, such as their logarithms."
)
OF_KIND = (
    "Take another kind for the column, table(frame, kinds={...}), or another likelihood for it: "
    "LIKELIHOODS in models/table.py."
)
STEPS = "Take a model whose steps depend on one another, or give its network more units."
ADVICE = {
    "correlation": DEPENDENCE,
    "co-occurrence": LATENTS,
    **dict.fromkeys(("skewness", "kurtosis", "minimum", "maximum", *QUANTILES), SHAPE),
    "dispersion index": "Take a likelihood with a dispersion (models/negative_binomial.py).",
    "zero fraction": "Take a likelihood with more zeros (models/zero_inflated.py).",
    **dict.fromkeys((*AUTOCORRELATIONS, *TRANSITIONS, *RUNS), STEPS),
}
"""What to do about a flagged statistic, by its name."""
FIT_ON = "Fit for more epochs, or give the model a larger decoder."  # the other statistics
PRIOR = (
    "The latents of the data do not follow the prior: take one that is fitted "
    "(models/vampprior.py, models/mixture_prior.py), or a wider guide."
)


class Finding(NamedTuple):
    """Something that the report found.

    Attributes:
        text: What was found, a sentence.
        next: What to do about it; empty where there is nothing to do.
    """

    text: str
    next: str = ""


def findings(fitted: FitFacts, measured: Measurements | None) -> Iterator[Finding]:
    """Yield what a report finds, the most important first.

    Args:
        fitted: What was fitted.
        measured: The measurements; ``None`` without data.
    """
    if measured is None:
        yield Finding(
            "Nothing was measured: this report was written without data.",
            "Write it with rows that the pair was not fitted to.",
        )
        if fitted.ending:
            yield Finding(f"The fit: {fitted.ending}.")
        return
    history = fitted.history
    if history is not None and len(history.frame) and history.converged is False:
        text = f"The fit has not converged: the {history.measure} still rises."
        yield Finding(text, "Fit for more epochs before reading on.")
    yield from _of_checks(measured)
    yield from _of_likelihood(measured)


def _of_checks(measured: Measurements) -> Iterator[Finding]:
    """Yield what the predictive checks find.

    The posterior check may miss what the prior check shows: with the guide, latents were drawn
    given the rows themselves. So a flag of either is a fault, and no flag needs both.
    """
    found = {"fitted pair": measured.posterior_check, "model alone": measured.prior_check}
    checks = {name: c for name, c in found.items() if isinstance(c, PredictiveCheck)}
    if any(isinstance(check, ValueError) for check in found.values()):
        yield Finding("A predictive check could not be made.", "Its error stands below.")
    known: list[str] = []
    for subject, check in checks.items():
        names = [name for name in flagged_names(check) if name not in known]
        if names:
            more = "also misses" if known else "misses"
            of_table = measured.rows.schema is not None
            advice = _advice(check, of_table=of_table)
            advice = PRIOR if check.prior and len(checks) > 1 else advice
            yield Finding(f"The {subject} {more} {_listed(names)}.", advice)
        known += names
    if checks and not known:
        both = len(checks) > 1
        who = "The fitted pair and the model alone agree" if both else f"The {min(checks)} agrees"
        right = "they are right" if both else "it is right"
        yield Finding(
            f"{who} with the data in all statistics, which does not prove that {right}.",
            "Check a statistic of your own: write_report(..., statistics=function).",
        )
    if unreliable := _sites(site for check in checks.values() for site in check.factors):
        yield Finding(
            f"Flags of {unreliable} are no findings: replicates do not follow the model's factors."
        )
    if masked := _sites(site for check in checks.values() for site in check.masked_by_draws):
        yield Finding(
            f"Flags of {masked} are no findings: the mask depends on values that replicates draw.",
            "Put both parts into one distribution, such as dist.ZeroInflatedDistribution.",
        )
    if points := _sites(site for check in checks.values() for site in check.points):
        yield Finding(
            f"The guide gives {points} as a point, so that a flag may be the fault of the guide.",
            "Fit a guide that draws it.",
        )


def _advice(check: PredictiveCheck, *, of_table: bool) -> str:
    """Return what to do about the flagged statistic that lies farthest out.

    Args:
        check: The check.
        of_table: Whether the data are a table of mixed columns, whose model is one for all kinds.
    """
    (site, statistic), *_ = check.frame.index[check.frame["flagged"]]
    if site == ACROSS:
        return LATENTS
    advice = ADVICE.get(statistic, FIT_ON)
    if of_table and "models/" in advice:
        return LATENTS if advice == DEPENDENCE else OF_KIND
    return advice


def _listed(names: list[str]) -> str:
    """Return the first names, and the number of the rest."""
    shown = [shortened(name, 48) for name in names[:NAMED]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _sites(names: Iterator[str]) -> str:
    return ", ".join(shortened(site, 48) for site in dict.fromkeys(names))


def _of_likelihood(measured: Measurements) -> Iterator[Finding]:
    """Yield whether the log-likelihood can be trusted."""
    summaries = list(measured.summaries().values())
    if not summaries:
        yield Finding("The log-likelihood could not be measured.", "Its error stands below.")
    elif summaries[-1].unreliable:
        what = "Fit a wider guide" if measured.has_guide else "Fit a guide"
        yield Finding(
            "The log-likelihood of some rows is not reliable.",
            f"{what}, refine the latents of these rows, or raise num_samples.",
        )
