"""The section of a report on what the model misses: its predictive checks."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ppl_vae.checks.observed_and_replicated import ACROSS, OWN
from ppl_vae.checks.predictive_checks import GROUP_NOTE, PredictiveCheck
from ppl_vae.checks.site_pairs import GROUP_MEAN
from ppl_vae.checks.tables import LEVEL, features_in
from ppl_vae.plots import density_overlay, interval_coverage, pit_histogram, statistic_histogram
from ppl_vae.plots.verdict import half_widths
from ppl_vae.report import numbers
from ppl_vae.report.figures import Figure, strip
from ppl_vae.report.html import Table, render
from ppl_vae.report.images import ImageField
from ppl_vae.report.measurements import Measurements
from ppl_vae.report.numbers import SPACE, decimal, number, shortened, with_common_precision
from ppl_vae.report.pixel_map import pixel_map

POSITION = re.compile(r"\d+(,\d+)*")  # names a feature by its position, for want of a name
MOST_PICTURES = 6  # flagged statistics with figures of their own
NO_SITES = {OWN, ACROSS}  # in the place of a site: statistics that no single site has
CALIBRATION_HEIGHT = 3.8  # inches


def check_section(measured: Measurements | None) -> Markup:
    """Return the section with both checks: with the guide, and from the model alone."""
    if measured is None:
        return render("check.html", posterior=None, prior=None, latents=True)
    drawn: set[tuple[Any, str]] = set()
    posterior, image = measured.posterior_check, measured.image
    return render(
        "check.html",
        posterior=None if posterior is None else _part(posterior, drawn, image, intervals=True),
        prior=_part(measured.prior_check, drawn, image, intervals=False),
        latents=not measured.draws_nothing,
    )


def _part(
    check: PredictiveCheck | ValueError,
    drawn: set[tuple[Any, str]],
    image: ImageField | None,
    *,
    intervals: bool,
) -> dict[str, object]:
    """Return one check as the page shows it, or the error that it raised.

    Args:
        check: The check, or the error that it raised.
        drawn: What has a figure already, and gets no other: features by site, and statistics of
            features by site and name. The figures of this check are added.
        image: The field that holds images; ``None`` for none.
        intervals: Whether to show the calibration for single cells.

    Returns:
        Values by the names that the template uses:

        - ``error``: why the check could not be made, empty where it was made; with an error there
          are no further values;
        - ``num_samples``, ``rows``: number of replicated data sets, and of rows;
        - ``verdict``: how many statistics are flagged, in a sentence;
        - ``table``: the statistics, flagged ones first;
        - ``pictures``: figures of flagged statistics;
        - ``not_pictured``: number of flagged statistics without figures;
        - ``intervals``: calibration for single cells, one for each observed site.
    """
    if isinstance(check, ValueError):
        return {"error": str(check)}
    new = [
        (key, line) for key, line in _lines(_flagged(check)) if (key, line["feature"]) not in drawn
    ]
    return {
        "error": "", "num_samples": check.num_samples, "rows": check.rows,
        "verdict": _verdict(check), "table": _table(check),
        "pictures": list(_pictures(check, new[:MOST_PICTURES], drawn, image)),
        "not_pictured": max(len(new) - MOST_PICTURES, 0),
        "intervals": list(_intervals(check)) if intervals else (),
    }  # fmt: skip


def statistic_name(key: Any, feature: str) -> str:
    """Return the name of a statistic and of its feature; features without names by position.

    Args:
        key: The site, and the statistic.
        feature: The feature, ``"a & b"`` for a pair.

    Example:
        >>> statistic_name(("x", "correlation"), "2 & 58")
        'correlation of features 2 & 58'
        >>> statistic_name(("label", "rate"), "label = 0")
        'rate of label = 0'
        >>> statistic_name(("(across sites)", "group mean"), "age where label = 0")
        'group mean of age where label = 0'
    """
    site, statistic = key
    if site == OWN:
        return f"{statistic}, value {feature}" if feature else str(statistic)
    return f"{statistic} of {_feature_name(site, feature)}"


def _feature_name(site: str, feature: str) -> str:
    """Return the name of a feature, or of a pair of features."""
    parts = feature.split(" & ")
    if site != OWN and all(POSITION.fullmatch(part) for part in parts):
        return f"feature{'s' if len(parts) > 1 else ''} {feature}"
    return feature


def flagged_names(check: PredictiveCheck) -> list[str]:
    """Return the names of the flagged statistics, the one that lies farthest out first."""
    return [statistic_name(key, line["feature"]) for key, line in _lines(_flagged(check))]


def _flagged(check: PredictiveCheck) -> pd.DataFrame:
    return check.frame[check.frame["flagged"]]


def _lines(frame: pd.DataFrame) -> Iterator[tuple[Any, pd.Series]]:
    """Yield the label of each line, such as the site and the statistic, and the line."""
    yield from frame.iterrows()


def _verdict(check: PredictiveCheck) -> str:
    """Return how many statistics are flagged, and how often that happens by chance."""
    flagged, count = len(_flagged(check)), len(check.frame)
    at_most = "" if check.prior else " or less"
    notes = "".join(f" {numbers.capitalized(note)}." for note in check.caveats)
    if check.points:
        return f"{flagged} of {count} statistics are flagged.{notes}"
    return (
        f"{flagged} of {count} statistics are flagged; if the model were right, the chance that "
        f"any statistic is flagged would be {100 * LEVEL:.0f} %{at_most}.{notes}"
    )


# The table


def _table(check: PredictiveCheck) -> Table:
    """Return the statistics of a check as a table, flagged ones first."""
    columns = ["verdict", "statistic", "where it lies", "observed", "lower", "upper", "adjusted p"]
    several = len(set(check.frame.index.unique("site")) - NO_SITES) > 1
    places = half_widths(check.lines)
    cells = [
        _cells(key, line, place, several=several)
        for (key, line), place in zip(_lines(check.lines), places, strict=True)
    ]
    more = "; of the steps of a chain, the worst" if len(cells) < len(check.frame) else ""
    if GROUP_MEAN in check.frame.index.unique("statistic"):
        more += f". {GROUP_NOTE.removesuffix('.')}"
    return Table(
        "Statistics of the observed data, flagged first: each mark stands where the data lie, "
        f"beside the central 90{SPACE}% of the replicates, the bar, from lower to upper{more}",
        columns,
        [[line[name] for name in columns] for line in cells],
        marked=check.lines["flagged"].tolist(),
    )


def _cells(key: Any, line: pd.Series, place: float, *, several: bool) -> dict[str, object]:
    """Return the cells of one statistic, by the names of their columns.

    Args:
        key: The site, and the statistic.
        line: The line of the check's frame.
        place: Where the observed value lies, in half widths from the middle of the replicates.
        several: Whether there are several sites, so that each is named.
    """
    site = f"{key[0]}: " if several and key[0] not in NO_SITES else ""
    observed, lower, upper = _numbers(line, "observed", "lower", "upper")
    flagged = bool(line["flagged"])
    return {
        "verdict": "flagged" if flagged else "",
        "statistic": site + statistic_name(key, line["feature"]),
        "where it lies": strip(place, flagged=flagged), "observed": observed,
        "lower": lower, "upper": upper, "adjusted p": decimal(line["p_adjusted"]),
    }  # fmt: skip


def _numbers(line: pd.Series, *names: str) -> list[numbers.Number]:
    """Return numbers of a line, written as precisely as the replicates' interval is wide."""
    return with_common_precision([line[name] for name in names], line["upper"] - line["lower"])


# Figures


def _pictures(
    check: PredictiveCheck,
    lines: list[tuple[Any, pd.Series]],
    drawn: set[tuple[Any, str]],
    image: ImageField | None,
) -> Iterator[dict[str, object]]:
    """Yield the figures of flagged statistics: a histogram, a map of pixels or a feature's values.

    Args:
        check: The check.
        lines: The statistics to draw: site and statistic, and the line of the check's frame.
        drawn: What has a figure already; the new figures are added.
        image: The field that holds images; ``None`` for none.

    Yields:
        ``{"title": heading, "figures": one or two figures}`` of a flagged statistic.
    """
    for key, line in lines:
        drawn.add((key, line["feature"]))
        figures = [_histogram(check, key, line)]
        features = features_in(line["feature"], check.features_of.get(key[0], []))
        if (where := pixel_map(check, key, image)) is not None:
            figures.append(where)
        elif len(features) == 1 and (key[0], features[0]) not in drawn:
            drawn.add((key[0], features[0]))
            figures.append(_overlay(check, key[0], features[0]))
        title = numbers.capitalized(statistic_name(key, line["feature"]))
        yield {"title": title, "figures": figures}


def _histogram(check: PredictiveCheck, key: Any, line: pd.Series) -> Figure:
    """Draw a statistic of the feature that lies farthest out: observed, and in each replicate."""
    name = statistic_name(key, line["feature"])
    lower, upper, observed = _numbers(line, "lower", "upper", "observed")
    alt = (
        f"Histogram of the {name} in the replicates, 90 % of them from {lower} to {upper}; the "
        f"observed value is {observed}."
    )

    def draw(ax: Any) -> None:
        replicated, title = check.replicated[key], shortened(name, 60)
        statistic_histogram(line["observed"], replicated, name=title, ax=ax, title="")

    return Figure.drawn(draw, alt)


def _overlay(check: PredictiveCheck, site: str, feature: str) -> Figure:
    """Draw the distribution of a feature's values: observed, and in some replicates."""
    observed, replicated = check.values(site, feature)
    name = _feature_name(site, feature)

    def draw(ax: Any) -> None:
        discrete, title = site in check.discrete, shortened(name, 60)
        density_overlay(observed, replicated, discrete=discrete, name=title, ax=ax, title="")

    count, shown = len(replicated), len(observed)
    of_all, unit = check.rows, "rows"
    if site in check.steps:  # those after the end of a sequence are NaN
        of_all, unit, shown = check.steps[site], "steps", min(shown, check.steps[site])
    rows = f"all {of_all} {unit}"
    if shown < of_all:
        rows = f"{shown} of {of_all} {unit}, evenly spaced"
    alt = f"Distribution of the observed {name}, and of {name} in {count} replicates."
    caption = f"Values of {name} in {rows}: observed, and in {count} of the replicates."
    return Figure.drawn(draw, alt, caption)


# Intervals of single cells


def _intervals(check: PredictiveCheck) -> Iterator[dict[str, object]]:
    """Yield, for each observed site, how well central intervals and PITs are calibrated.

    Yields:
        ``{"title": heading of the table, "figures": two figures, "table": table}`` of a site.
    """
    for site, pit in check.pit.items():
        of_site = f" of {site}" if len(check.features_of) > 1 else ""
        names = [_feature_name(site, name) for name in check.features_of[site]]
        lines = [
            [name, number(line.iloc[0]), *(decimal(100 * share, 1) for share in line.iloc[1:])]
            for name, (_, line) in zip(names, _lines(check.coverage.loc[[site]]), strict=True)
        ]
        caption = f"Share of cells inside their central intervals, in percent{of_site}"
        yield {
            "title": (f"All {len(lines)} features" if len(lines) > 1 else "In numbers") + of_site,
            "figures": list(_calibration_figures(pit, names, of_site)),
            "table": Table(caption, ["feature", "cells", "in 50 %", "in 90 %"], lines),
        }


def _calibration_figures(pit: np.ndarray, names: list[str], of_site: str) -> Iterator[Figure]:
    """Draw the coverage of all features, and the PIT of the feature farthest from uniform.

    Args:
        pit: (rows, features), NaN for masked cells.
        names: Names of the features.
        of_site: The site, as text to append; empty where there is only one.
    """
    worst, short_names = _least_uniform(pit), [shortened(name) for name in names]
    which = f"PIT of {names[worst]}, the feature whose PIT is farthest from uniform."
    yield Figure.drawn(
        lambda ax: interval_coverage(pit, names=short_names, ax=ax, title=""),
        f"Share of observed cells{of_site} inside central intervals of their replicates, by level.",
        f"Coverage{of_site}: on the diagonal, intervals contain the share that they state.",
        height=CALIBRATION_HEIGHT,
    )
    yield Figure.drawn(
        lambda ax: pit_histogram(pit[:, worst], features=pit.shape[1], ax=ax, title=""),
        f"Histogram of the {which}", which, height=CALIBRATION_HEIGHT,
    )  # fmt: skip


def _least_uniform(pit: np.ndarray, bins: int = 20) -> int:
    """Return the feature whose PITs differ most from uniform ones, by their chi-square statistic.

    Args:
        pit: (rows, features), NaN for masked cells.
        bins: Bins of equal width from 0 to 1.

    Returns:
        The feature's position.
    """
    distances = []
    for column in pit.T:
        unmasked = column[~np.isnan(column)]
        counts, expected = np.histogram(unmasked, bins, (0, 1))[0], max(len(unmasked), 1) / bins
        chi_square = ((counts - expected) ** 2 / expected).sum()
        distances.append(chi_square if len(unmasked) else -1.0)
    return int(np.argmax(distances))
