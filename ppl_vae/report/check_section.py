"""The chapter of a report on what the model misses: its predictive checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.checks.comparison import OWN
from ppl_vae.checks.predictive_checks import LEVEL, PredictiveCheck
from ppl_vae.plots import density_overlay, interval_coverage, pit_histogram, statistic_histogram
from ppl_vae.plots.verdict import MOST, check_summary
from ppl_vae.report import html
from ppl_vae.report.fit_sections import without_data
from ppl_vae.report.html import (
    Markup,
    Number,
    alike,
    brief,
    capital,
    decimal,
    element,
    figure,
    join,
    number,
    paragraphs,
    table,
)
from ppl_vae.report.measurements import Measurements, value_or_error

UNNAMED = re.compile(r"\d+(,\d+)*")
PICTURED = 6  # flagged statistics with figures of their own
SEEN = (
    "The guide has seen these rows: their latents are drawn given the row itself, so that even a "
    "perfect model's intervals hold more than they promise. A flag is a finding; no flag is no "
    "proof."
)


def check_chapter(measured: Measurements | None) -> Markup:
    """Both checks: given the rows' own latents, and from the model alone."""
    if measured is None:
        return without_data()
    parts: list[Markup] = []
    if measured.check is not None:
        parts += _posterior(measured.check, measured)
    parts.append(element("h3", "From the model alone"))
    return join([*parts, *_prior(measured.prior, measured)])


def name_of(key: Any, feature: str) -> str:
    """A statistic and whose it is: features without a name by their position.

    Example:
        >>> name_of(("x", "correlation"), "2 & 58"), name_of(("label", "rate"), "label = 0")
        ('correlation of features 2 & 58', 'rate of label = 0')
    """
    site, statistic = key
    if site == OWN:
        return f"{statistic}, value {feature}" if feature else str(statistic)
    parts = feature.split(" & ")
    if all(UNNAMED.fullmatch(part) for part in parts):
        parts[0] = f"feature{'s' if len(parts) > 1 else ''} {parts[0]}"
    return f"{statistic} of {' & '.join(parts)}"


def _of(site: str, feature: str) -> str:
    return feature if site == OWN else name_of((site, ""), feature).removeprefix(" of ")


def _posterior(check: PredictiveCheck | ValueError, measured: Measurements) -> Iterator[Markup]:
    if isinstance(check, ValueError):
        yield html.note("The posterior predictive check could not be made: ", check)
        return
    yield paragraphs(
        f"{check.num_samples} data sets were made from the latents of the {check.rows} rows, and "
        "statistics of the data put beside theirs. Each line is the feature or pair of features "
        "that lies farthest out; p is the share of replicates whose worst value lies as far out, "
        "and adjusted p the share any of whose statistics does.",
        _verdict(check) + " " + SEEN,
    )
    yield _table(check)
    yield _summary(check)
    yield from _pictures(check)
    yield element("h3", "Intervals of single cells")
    yield from _intervals(check)


def _prior(check: PredictiveCheck | ValueError, measured: Measurements) -> Iterator[Markup]:
    if isinstance(check, ValueError):
        yield html.note("The prior predictive check could not be made: ", check)
        return
    yield paragraphs(
        f"{check.num_samples} whole data sets of {check.rows} rows from the model, no row seen by "
        "a guide: p-values are exact for rows that the model was not fitted to, and it also shows "
        f"where latents are distributed in another way than the prior says. {_verdict(check)}"
    )
    yield _table(check, short=measured.check is not None)
    if measured.check is None:
        yield _summary(check)
        yield from _pictures(check)


def _verdict(check: PredictiveCheck) -> str:
    flagged, count = int(check.frame["flagged"].sum()), len(check.frame)
    less = "" if check.prior else " or less"
    return (
        f"{flagged} of {count} statistics are flagged; a model that made these data would have "
        f"any flagged with a chance of {100 * LEVEL:.0f} %{less}."
    )


def _table(check: PredictiveCheck, *, short: bool = False) -> Markup:
    """The check's frame, or its most telling columns."""
    several = len(check.frame.index.unique("site")) > 1
    columns = [
        *(["site"] if several else []), "statistic", "of", "observed",
        *([] if short else ["mean"]), "lower", "upper",
        *([] if short else ["p"]), "adjusted p", "verdict",
    ]  # fmt: skip
    theirs = "" if short else "mean and "
    caption = f"Statistics of the data beside the {theirs}central 90 % of replicates; flagged first"
    rows = [_line(key, line, several, short) for key, line in _lines(check.frame)]
    return table(caption, columns, rows, marked=check.frame["flagged"].tolist())


def _line(key: Any, line: pd.Series, several: bool, short: bool) -> list[object]:
    seen, mean, low, high = _alike(line, "observed", "mean", "lower", "upper")
    middle = [] if short else [mean]
    alone = [] if short else [decimal(line["p_value"])]
    flag = element("span", "flagged", class_="flag") if line["flagged"] else ""
    return [
        *([_site(key[0])] if several else []), key[1], _of(key[0], line["feature"]), seen,
        *middle, low, high, *alone,
        decimal(line["p_adjusted"]), flag,
    ]  # fmt: skip


def _alike(line: pd.Series, *names: str) -> list[Number]:
    """Some numbers of a line, as precise as the replicates' interval is wide."""
    return alike([line[name] for name in names], line["upper"] - line["lower"])


def _site(name: str) -> str:
    return "all" if name == OWN else name


def _summary(check: PredictiveCheck) -> Markup:
    shown = min(len(check.frame), MOST)
    named = flagged_names(check)
    alt = f"Where {shown} statistics of the data lie among the replicates' central 90 %. " + (
        f"Outside: {', '.join(named)}." if named else "None is flagged."
    )
    names = [_of(key[0], line["feature"]) for key, line in _lines(check.frame)]
    frame = check.frame.assign(feature=[brief(name, 30) for name in names])
    return figure(lambda ax: check_summary(frame, ax=ax), alt, size=(8.6, 1.7 + 0.3 * shown))


def flagged_names(check: PredictiveCheck) -> list[str]:
    """What is flagged, the farthest out first."""
    return [name_of(key, line["feature"]) for key, line in _lines(_flagged(check))]


def _flagged(check: PredictiveCheck) -> pd.DataFrame:
    return check.frame[check.frame["flagged"]]


def _lines(frame: pd.DataFrame) -> Iterator[tuple[Any, pd.Series]]:
    """Site and statistic, and the line."""
    yield from frame.iterrows()


# Figures of what is flagged


def _pictures(check: PredictiveCheck) -> Iterator[Markup]:
    flagged, drawn = _flagged(check), set()
    for key, line in _lines(flagged.iloc[:PICTURED]):
        yield element("h3", capital(name_of(key, line["feature"])))
        figures = [_histogram(check, key, line)]
        place = _place(check, key[0], line["feature"])
        if place is not None and (key[0], place) not in drawn:
            drawn.add((key[0], place))
            figures.append(_overlay(check, key[0], place))
        yield element("div", *figures, class_="pair")
    if len(flagged) > PICTURED:
        yield paragraphs(f"The other {len(flagged) - PICTURED} flagged ones stand in the table.")


def _histogram(check: PredictiveCheck, key: Any, line: pd.Series) -> Markup:
    """The statistic of its worst feature: of the data, and of each replicate."""
    name = name_of(key, line["feature"])
    low, high, seen = _alike(line, "lower", "upper", "observed")
    alt = (
        f"Histogram of the {name} in the replicates, 90 % of them from {low} to {high}; it is "
        f"{seen} in the data."
    )
    caption = (
        f"The {name} is {seen} in the data; adjusted p{html.SPACE}{decimal(line['p_adjusted'])}."
    )

    def draw(ax: Any) -> None:
        made = check.replicated[key]
        statistic_histogram(line["observed"], made, name=brief(name, 60), ax=ax, title="")

    return _figure(draw, alt, caption)


def _place(check: PredictiveCheck, site: str, feature: str) -> int | None:
    """Which feature of a site; ``None`` for a pair, and for statistics of one's own."""
    names = check.features_of.get(site, [])
    place = [i for i, name in enumerate(names) if name == feature]
    place = place or [i for i, name in enumerate(names) if feature.startswith(f"{name} = ")
                      and " & " not in feature.removeprefix(name)]  # fmt: skip
    return place[0] if place else None


def _overlay(check: PredictiveCheck, site: str, place: int) -> Markup:
    """The feature's values in the data and in the replicates."""
    observed, replicated = check.sample[site]
    seen, made = observed[:, place], replicated[:, :, place]
    name = _of(site, check.features_of[site][place])

    def draw(ax: Any) -> None:
        discrete = site in check.discrete
        density_overlay(seen, made, discrete=discrete, name=brief(name, 60), ax=ax, title="")

    alt = f"Distribution of {name} in the data over that in {len(made)} replicates."
    caption = f"Values of {name}: the data, and {len(made)} of the replicates."
    return _figure(draw, alt, caption)


def _figure(
    draw: Callable[[Any], Any], alt: str, caption: str, size: tuple[float, float] = (5.6, 3.8)
) -> Markup:
    """A figure, or why it cannot be drawn (values that are not finite)."""
    made = value_or_error(figure, draw, alt, caption, size=size)
    return made if isinstance(made, Markup) else html.note("No figure: ", made)


# Intervals of single cells


def _intervals(check: PredictiveCheck) -> Iterator[Markup]:
    yield paragraphs(
        "Each observed cell beside its own replicates: how often central intervals hold it, and "
        "where it lies among them (PIT, a share from 0 to 1; uniform for predictions that are as "
        "wide as they should be). The guide has seen these rows, so PITs lean to the middle and "
        "intervals hold too much, even of a perfect model."
    )
    for site, pit in check.pit.items():
        title = f" of {site}" if len(check.features_of) > 1 else ""
        names = [_of(site, name) for name in check.features_of[site]]
        yield element("div", *_calibration(pit, names, title), class_="pair")
        cells = check.coverage.loc[[site]]
        lines = [
            [name, number(line.iloc[0]), *(decimal(100 * v, 1) for v in line.iloc[1:])]
            for name, (_, line) in zip(names, _lines(cells), strict=True)
        ]
        columns = ["feature", "cells", "in 50 %", "in 90 %"]
        held = table(
            f"Share of cells in their central intervals, in percent{title}", columns, lines
        )
        word = f"All {len(lines)} features" if len(lines) > 1 else "In numbers"
        yield element("details", element("summary", f"{word}{title}"), held)


def _calibration(pit: np.ndarray, names: list[str], title: str) -> Iterator[Markup]:
    """Coverage of all features, and the PIT of the one that is farthest from uniform."""
    worst = _least_uniform(pit)
    feature = f" of {names[worst]}"
    yield _figure(
        lambda ax: interval_coverage(pit, names=[brief(name) for name in names], ax=ax, title=""),
        f"Share of observed cells{title} in central intervals of their replicates, by level.",
        f"Coverage{title}: on the line, intervals hold what they promise.",
        (6.4, 4.5),
    )
    yield _figure(
        lambda ax: pit_histogram(pit[:, worst], features=pit.shape[1], ax=ax, title=""),
        f"Histogram of the PIT{feature}, the feature that is farthest from uniform.",
        f"PIT{feature}, the feature that is farthest from uniform.",
        (6.4, 4.5),
    )


def _least_uniform(pit: np.ndarray, bins: int = 20) -> int:
    """The feature whose PITs differ most from uniform ones, by chi-square for its cells."""
    far = []
    for column in pit.T:
        known = column[~np.isnan(column)]
        counts, expected = np.histogram(known, bins, (0, 1))[0], max(len(known), 1) / bins
        far.append(((counts - expected) ** 2 / expected).sum() if len(known) else -1.0)
    return int(np.argmax(far))
