"""The sections of a report on the fit: what was fitted, learning curves, log-likelihood, code."""

import datetime
from collections.abc import Iterator

import numpy as np
import pandas as pd
from markupsafe import Markup

from ppl_vae.elbo.points import LOG_JOINT
from ppl_vae.evaluation.summary import TERMS_DRAWS, ElboSummary, LikelihoodSummary
from ppl_vae.plots import reliability
from ppl_vae.report import run_facts
from ppl_vae.report.figures import Figure, bars
from ppl_vae.report.fit_facts import FitFacts, versions_now
from ppl_vae.report.html import Table, render
from ppl_vae.report.measurements import Measurements
from ppl_vae.report.numbers import DASH, decimal, number
from ppl_vae.report.run_facts import Fact

# What was fitted


def fit_section(fitted: FitFacts, measured: Measurements | None) -> Markup:
    """Return the section on the pair, the data, the objective, the settings and the ending."""
    template = fitted.info.get("template") or (measured and measured.rows.template())
    fields = run_facts.fields_of(template) if template else []
    return render(
        "fit.html", facts=list(_facts(fitted, measured)),
        folded=[field for field in fields if len(field.columns) > run_facts.LISTED_COLUMNS],
        settings=list(run_facts.settings(fitted.info)),
        unknown=fitted.history is None and not fitted.info,
    )  # fmt: skip


def _facts(fitted: FitFacts, measured: Measurements | None) -> Iterator[Fact]:
    """Yield what is known of the fit, in the order of the page."""
    info, history = fitted.info, fitted.history
    yield Fact("model", code=fitted.model)
    if fitted.guide:
        yield Fact("guide", code=fitted.guide)
    else:
        yield Fact("guide", _no_guide(measured))
    if info.get("rows"):
        form = run_facts.form_of_rows(info["template"])
        yield Fact("fitted to", f"{info['rows']} rows, {form}")
    if measured is not None:
        form = "" if info.get("rows") else run_facts.form_of_rows(measured.rows.template())
        rows = f"{len(measured.rows)} rows{_split_in_words(measured)}"
        yield Fact("measured on", f"{rows}, {form}" if form else rows)
    if history is not None:
        yield Fact("objective", f"({history.reason})", code=history.objective)
    if fitted.ending:
        yield Fact("ending", fitted.ending)
    if history is not None:
        yield from run_facts.course(history, decimal)


def _no_guide(measured: Measurements | None) -> str:
    """Return what it means for the measurements that the pair has no guide."""
    if measured is None or isinstance(measured.scores, ValueError):
        return "none"
    if measured.draws_nothing:
        return "none: no latent is drawn"
    return "none: latents are drawn from the prior"


def _split_in_words(measured: Measurements) -> str:
    """Return which of the measured rows the pair was fitted to; empty where that is not known."""
    counts = {name: len(positions) for name, positions in measured.split.items()}
    if len(counts) == 2:
        fitted, held_out = counts["fitted"], counts["held out"]
        return f": {fitted} that the pair was fitted to, and {held_out} held out"
    words = {"fitted": ", which the pair was fitted to", "held out": ", held out"}
    return "".join(words[name] for name in counts)


# Learning curves


def curves_section(fitted: FitFacts) -> Markup:
    """Return the section with the ELBO over the epochs."""
    history = fitted.history
    if history is None or not len(history.frame):
        return render("curves.html", figure=None)
    last, held_out = history.frame.iloc[-1], history.frame["validation_elbo"].notna().any()
    alt = (
        f"Training{' and held-out' if held_out else ''} {history.measure} over "
        f"{len(history.frame)} epochs; for the training rows it ends at {last['elbo']:.2f} nats "
        "per row."
    )
    caption = f"{history.measure} in nats per row after each epoch; higher is better. " + (
        "A held-out curve that falls while the training curve rises shows overfitting; the pair "
        "has the weights of the epoch with the best held-out ELBO."
        if held_out
        else "No rows were held out, so the figure does not show how well the pair fits new rows."
    )
    return render("curves.html", figure=Figure.drawn(history.plot, alt, caption))


# Log-likelihood and ELBO


def likelihood_section(measured: Measurements | None) -> Markup:
    """Return the section with log-likelihoods, their reliability, and the ELBO by site."""
    if measured is None:
        return render("likelihood.html", measured=False)
    return render("likelihood.html", measured=True, **_scores(measured), **_terms(measured))


def _scores(measured: Measurements) -> dict[str, object]:
    """Return the table, sentences and figure on log-likelihoods, or the error that came."""
    scores = measured.scores
    if isinstance(scores, ValueError):
        return {"scores_error": scores}
    summaries = measured.summaries()
    *_, summary = summaries.values()  # the last one is of all rows
    columns = ["rows", "count", "log-likelihood", "standard error", "ELBO", "gap"]
    means = [_group(title, group) for title, group in summaries.items()]
    return {
        "scores_error": None, "fewer": measured.fewer, "num_samples": measured.num_samples,
        "proposal": "the guide" if measured.has_guide else "the prior",
        "draws_nothing": summary.draws_nothing,
        "means": Table("Means over rows, in nats per row", columns, means),
        "sentences": summary.sentences(), "k_hat": _k_hat_figure(scores, summary),
        "ess": [number(value, 3) for value in summary.ess.values()],
    }  # fmt: skip


def _group(title: str, summary: LikelihoodSummary) -> list[object]:
    """Return the line of the table of means for one group of rows."""
    means = (summary.log_prob.mean, summary.log_prob.standard_error, summary.elbo.mean)
    return [title, number(summary.rows), *map(decimal, (*means, summary.gap.mean))]


def _k_hat_figure(scores: pd.DataFrame, summary: LikelihoodSummary) -> Figure | None:
    """Draw the k-hat of each row; ``None`` where no row has one."""
    if summary.without_k_hat == summary.rows or summary.draws_nothing:
        return None
    alt = "k-hat of each row in rising order. " + " ".join(summary.sentences())
    caption = (
        "k-hat is the shape of the tail of a row's importance weights: below 0.5 is good; above "
        f"{summary.threshold:.2g}, a few draws may decide the estimate: see their effective number."
    )
    return Figure.drawn(lambda ax: reliability(scores, ax=ax), alt, caption)


def _terms(measured: Measurements) -> dict[str, object]:
    """Return a table of each site's contribution to the ELBO, or the error instead."""
    terms = measured.terms
    if isinstance(terms, ValueError):
        return {"terms_error": terms, "terms_measure": "ELBO", "is_point": False}
    summary = ElboSummary.of(terms)
    lines = [(name, site.mean, site.standard_error) for name, site in summary.sites.items()]
    lines += [
        (f"{name}, outside the row plate", total / summary.rows, np.nan)
        for name, total in summary.outside.items()
    ]
    lines.append(("together", summary.together.mean, summary.together.standard_error))
    *rows, foot = [
        [name, bar, decimal(mean), decimal(error)]
        for (name, mean, error), bar in zip(lines, bars([v for _, v, _ in lines]), strict=True)
    ]
    caption = (
        f"{summary.measure} by site, means over rows in nats per row. The length of a bar is the "
        "square root of its number, so that small terms are seen beside large ones"
    )
    return {
        "terms_error": None,
        "terms_measure": summary.measure,
        "is_point": summary.measure == LOG_JOINT,
        "terms_draws": min(measured.num_samples, TERMS_DRAWS),
        "sites": Table(caption, ["site", "bar", "mean", "standard error"], rows, foot=foot),
    }


# Code and versions


def code_section(fitted: FitFacts) -> Markup:
    """Return the section with the code of the model and the guide."""
    return render("code.html", sources=fitted.sources)


def versions_section(
    fitted: FitFacts, measured: Measurements | None, seed: int | None, replicates: int | None
) -> Markup:
    """Return the section with the versions, seeds and numbers of draws that reproduce the report.

    Args:
        fitted: Versions, seeds and settings of the fit.
        measured: The measurements; ``None`` if the report was made without data.
        seed: The seed of the report's draws; ``None`` if the global generators were used.
        replicates: Number of replicated data sets in each predictive check.
    """
    info, now = fitted.info, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = [Fact("fit begun", _date(str(info["created"])))] if info else []
    if "seed" in info:
        facts += [Fact(f"fit's {name}", str(info[name])) for name in ("seed", "threads")]
    facts.append(Fact("report written", _date(now)))
    if measured is not None:
        draws = f"{measured.num_samples} for each row, for the log-likelihood"
        facts.append(Fact("report's seed", str(seed)))
        facts.append(Fact("report's draws", draws))
        facts.append(Fact("replicates", f"{replicates} data sets for each predictive check"))
    then, here = dict(info.get("versions") or {}), versions_now()
    columns = ["package", *(["of the fit"] if then else []), "of this report"]
    lines = [[name, *([then.get(name, DASH)] if then else []), here[name]] for name in here]
    return render("versions.html", facts=facts, table=Table("Versions", columns, lines))


def _date(iso: str) -> str:
    return iso.replace("T", " ").replace("+00:00", " UTC")
