"""The chapters of a report: what was fitted, how it went, how good it is, with what code."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.plots import elbo_bars, reliability
from ppl_vae.report import html
from ppl_vae.report.fit_facts import Fact, FitFacts, describe_fields
from ppl_vae.report.html import (
    Markup,
    capital,
    decimal,
    element,
    figure,
    join,
    number,
    paragraphs,
    table,
)
from ppl_vae.report.measurements import FEW_DRAWS, Measurements, mean, trust

LISTED = 24  # names of features in a line; more are folded away
SHARES = {"5 %": 0.05, "50 %": 0.5, "95 %": 0.95}
NO_DATA = (
    "This needs data, and the report was written without. With rows, best held-out ones, it "
    "measures them: "
)
HOW = "ppl-vae report RUN DATA", "write_report(model, guide, data, path)"


def without_data() -> Markup:
    """Where a measurement would stand: how to get it."""
    ways = [element("code", HOW[0]), " from the command line, ", element("code", HOW[1])]
    return element("p", NO_DATA, *ways, " in Python.")


# What was fitted


def fit(fitted: FitFacts, measured: Measurements | None) -> Markup:
    """What was fitted, on what, by which objective, and how it ended."""
    parts: list[object] = [html.facts(_facts(fitted, measured))]
    template = fitted.info.get("template") or (measured and measured.rows.template())
    if template:
        parts += [
            element("details", element("summary", f"All {len(labels)} columns{of}"), _names(labels))
            for of, _, labels in (
                (f" of {n}" if n else "", s, c) for n, s, c in describe_fields(template)
            )
            if len(labels) > LISTED
        ]
    settings = list(fitted.settings())
    if settings:
        parts += [element("h3", "Settings"), html.facts(settings)]
    elif fitted.history is None and not fitted.info:
        parts.append(
            element("p", "How it was fitted is not told here: a report that is given the fit's ",
                    element("code", "history="), " or its ", element("code", "run="), " says so.")
        )  # fmt: skip
    return join(parts)


def _names(labels: list[str]) -> Markup:
    return element("p", ", ".join(labels))


def _facts(fitted: FitFacts, measured: Measurements | None) -> Iterator[tuple[str, object]]:
    yield "model", element("code", fitted.model)
    yield "guide", element("code", fitted.guide) if fitted.guide else "none: latents of the prior"
    info, history = fitted.info, fitted.history
    if info.get("rows"):
        yield "fitted to", f"{info['rows']} rows, {_form(info['template'])}"
    if measured is not None:
        rows = f"{len(measured.rows)} rows{_split(measured)}"
        same = bool(info.get("rows"))
        yield "measured on", rows if same else f"{rows}, {_form(measured.rows.template())}"
    if history is not None:
        yield (
            "objective",
            join([element("code", history.objective), f"({history.reason})"]),
        )
    if fitted.ending:
        yield "ended by", fitted.ending
    if history is not None:
        yield from _course(fitted)


def _course(fitted: FitFacts) -> Iterator[Fact]:
    """What the history says in numbers."""
    history = fitted.history
    assert history is not None
    frame = history.frame
    if len(frame):
        last, best = frame.iloc[-1], frame.loc[frame["epoch"] == history.best_epoch].tail(1)
        steps = f"{int(last['step'])} steps in {last['seconds']:.1f} s"
        yield "length", f"{int(last['epoch'])} epochs, {steps}"
        yield "training ELBO", f"{decimal(last['elbo'])} nats per row, in the last epoch"
        if len(best) and best["validation_elbo"].notna().all():
            value = decimal(best["validation_elbo"].iloc[0])
            kept = f"epoch {history.best_epoch}, whose weights are kept"
            yield "held-out ELBO", f"{value} nats per row ({kept})"
    if history.step:
        yield "step", f"{history.step}: {history.step_reason}"


def _form(template: Any) -> str:
    """What a row is, in words."""
    told = []
    for name, shape, labels in describe_fields(template):
        size = f" {html.TIMES} ".join(map(str, shape)) or "one"
        text = f"{size} number{'' if shape in ((), (1,)) else 's'} each"
        if len(shape) == 1:
            text = f"{shape[0]} feature{'' if shape[0] == 1 else 's'}"
        if 0 < len(labels) <= LISTED:
            text += f": {', '.join(labels)}"
        told.append(f"{name}: {text}" if name else text)
    return "; ".join(told)


def _split(measured: Measurements) -> str:
    """Which of the measured rows the fit has seen."""
    parts = {name: len(index) for name, index in measured.parts.items()}
    if len(parts) == 2:
        return f": {parts['fitted']} that it was fitted to and {parts['held out']} held out"
    whose = {"fitted": ", those that it was fitted to", "held out": ", held out"}
    return "".join(whose[name] for name in parts)


# Learning curves


def curves(fitted: FitFacts) -> Markup:
    """The ELBO over epochs."""
    history = fitted.history
    if history is None or not len(history.frame):
        return paragraphs("No history of the fit is known.")
    last, held_out = history.frame.iloc[-1], history.frame["validation_elbo"].notna().any()
    alt = (
        f"Training{' and held-out' if held_out else ''} ELBO over {len(history.frame)} epochs; "
        f"the training ELBO ends at {last['elbo']:.2f} nats per row."
    )
    caption = (
        "ELBO in nats per row after every epoch, higher is better. "
        + ("A held-out curve that falls while the training curve rises shows overfitting; the "
           "weights of its best epoch are kept." if held_out else
           "No rows were held out: how well the pair does on new ones does not show here.")
    )  # fmt: skip
    return figure(history.plot, alt, caption)


# How good it is


def likelihood(measured: Measurements | None) -> Markup:
    """Log-likelihood, its reliability, and the ELBO by site."""
    if measured is None:
        return without_data()
    return join([*_scores(measured), element("h3", "ELBO by site"), *_terms(measured)])


def _scores(measured: Measurements) -> Iterator[Markup]:
    scores = measured.scores
    if isinstance(scores, ValueError):
        yield html.note("The log-likelihood could not be measured: ", scores)
        return
    yield paragraphs(
        f"Every row's log-likelihood by importance sampling with {measured.num_samples} draws from "
        f"{'the guide' if measured.has_guide else 'the prior'}, in nats, in the units of the data. "
        "It is at least the ELBO; the gap between them is what the guide loses."
    )
    yield table("Means over rows, in nats", ["rows", "count", "log-likelihood", "standard error",
                "ELBO", "gap"], _by_group(measured, scores))  # fmt: skip
    yield element("h3", "How far to trust it")
    yield paragraphs(*trust(scores, measured.num_samples, has_guide=measured.has_guide))
    columns = (("effective draws", "ess", 1), ("k-hat", "k_hat", 2))
    lines = [
        [title, *(decimal(_quantile(scores[name], share), digits) for share in SHARES.values())]
        for title, name, digits in columns
    ]
    heads = ["quantiles over rows", *SHARES]
    yield table(f"Reliability, of {measured.num_samples} draws a row", heads, lines)
    if scores["k_hat"].notna().any():
        alt = "k-hat of every row in rising order. " + " ".join(
            trust(scores, measured.num_samples, has_guide=measured.has_guide)
        )
        caption = (
            "k-hat is the shape of the tail of a row's importance weights: below 0.5 good, above "
            "0.7 a few draws decide the estimate."
        )
        yield figure(lambda ax: reliability(scores, ax=ax), alt, caption)


def _by_group(measured: Measurements, scores: pd.DataFrame) -> Iterator[list[object]]:
    values, elbo = scores["log_prob"].to_numpy(), scores["elbo"].to_numpy()
    for title, index in measured.groups().items():
        with np.errstate(invalid="ignore"):  # a row that cannot be has -inf
            gap = (values[index] - elbo[index]).mean()
        found, error = mean(values[index])
        numbers = map(decimal, (found, error, elbo[index].mean(), gap))
        yield [title, number(len(index)), *numbers]


def _quantile(values: pd.Series, share: float) -> float:
    """The value of a row, that -inf is never averaged with its neighbour."""
    known = values.dropna()
    return float(known.quantile(share, interpolation="nearest")) if len(known) else np.nan


def _terms(measured: Measurements) -> Iterator[Markup]:
    terms = measured.terms
    if isinstance(terms, ValueError):
        yield html.note("The ELBO could not be taken apart: ", terms)
        return
    draws, outside = min(measured.num_samples, FEW_DRAWS), terms.attrs["global"]
    yield paragraphs(
        f"Means of {draws} draws a row. A likelihood's part is its expected log-probability; a "
        "latent's is minus its KL divergence: what it costs to tell the row's latent."
    )
    lines: list[list[object]] = [
        [str(name), *map(decimal, mean(terms[name].to_numpy()))] for name in terms
    ]
    lines += [
        [f"{name}, outside the row plate", decimal(total / len(terms)), decimal(np.nan)]
        for name, total in outside.items()
    ]
    shared = sum(outside.values()) / len(terms)
    together = ["together", *map(decimal, mean(terms.to_numpy().sum(1) + shared))]
    heads = ["site", "mean", "standard error"]
    yield table("ELBO by site, means over rows in nats", heads, lines, foot=together)
    every = [*lines, together]
    alt = "Bars of the ELBO by site: " + ", ".join(f"{line[0]} {line[1]}" for line in every) + "."
    yield figure(lambda ax: elbo_bars(terms, ax=ax), alt, size=(6.4, 1.4 + 0.55 * len(every)))


# With what code


def code(fitted: FitFacts) -> Markup:
    """The text of the model and the guide."""
    parts: list[Markup] = []
    for source in fitted.sources:
        parts += [
            element("h3", capital(source.title)),
            paragraphs(f"{capital(source.note)}."),
        ]
        if source.text:
            parts.append(html.code(source.text))
    return join(parts or [paragraphs("No code of the pair is known.")])


def versions(
    fitted: FitFacts, measured: Measurements | None, seed: int | None, replicates: int
) -> Markup:
    """What it takes to do the same again."""
    told: list[Fact] = []
    info = fitted.info
    if info:
        told.append(("fit begun", _date(str(info["created"]))))
    if "seed" in info:
        told.append(("fit's seed", str(info["seed"])))
        told.append(("fit's threads", str(info["threads"])))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    told.append(("report written", _date(now)))
    if measured is not None:
        told.append(("report's seed", str(seed)))
        told.append(("report's draws", f"{measured.num_samples} a row for the log-likelihood"))
        told.append(("replicates", f"{replicates} data sets for each predictive check"))
    then, here = fitted.versions()
    columns = ["package", *(["of the fit"] if then else []), "of this report"]
    lines = [[name, *([then.get(name, html.DASH)] if then else []), here[name]] for name in here]
    return join([html.facts(told), table("Versions", columns, lines)])


def _date(iso: str) -> str:
    return iso.replace("T", " ").replace("+00:00", " UTC")
