"""The section of a report on strange rows: their scores, and what makes them strange."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ppl_vae.anomaly.conformal import rate_interval
from ppl_vae.anomaly.decision import RATE
from ppl_vae.anomaly.detector import AnomalyDetector
from ppl_vae.plots import attribution_bars, score_histogram
from ppl_vae.plots.anomalies import ATTRIBUTION
from ppl_vae.report.figures import Figure
from ppl_vae.report.html import KeyNumber, Table, render
from ppl_vae.report.images import Strip, strips
from ppl_vae.report.measurements import Measurements
from ppl_vae.report.numbers import MINUS, SPACE, decimal, number, percent, shortened
from ppl_vae.report.strange_rows import Images, StrangeRows

NAMED = 3  # columns that the table names for each row
BARS = 8  # columns that a figure of one row draws
PICTURES = 2  # rows with a figure of their own
IMAGES = 6  # rows that are drawn as images
NAME = 24  # characters of a name in the table
INFINITY = "\N{INFINITY}"


def strange_section(measured: Measurements | None) -> Markup:
    """Return the section with the scores of all rows and the strangest rows one by one."""
    if measured is None:
        return render("strange.html", measured=False)
    strange = measured.strange
    if isinstance(strange, ValueError):
        return render("strange.html", measured=True, error=strange)
    return render(
        "strange.html", measured=True, error=None, score=strange.score.replace("_", " "),
        detector=list(_detector(strange.detector, measured)), histogram=_histogram(strange),
        table=_table(strange) if len(strange.first) else None, pictures=list(_pictures(strange)),
        images=_images(strange), compared=strange.compared,
        unexplained=strange.explained if isinstance(strange.explained, ValueError) else None,
    )  # fmt: skip


def flagged_rows(measured: Measurements) -> Iterator[KeyNumber]:
    """Yield how many rows the detector flags; nothing without a detector."""
    strange = measured.strange
    if isinstance(strange, ValueError) or strange.detector is None:
        return
    below = f"{strange.flagged} of {len(strange.scored)}, at a false-alarm rate of {_rate(RATE)}"
    yield KeyNumber("Rows flagged", percent(strange.flagged, len(strange.scored)), below)


def _rate(share: float, places: int = 0) -> str:
    """Return ``"5 %"``."""
    return f"{decimal(100 * share, places)}{SPACE}%"


def _detector(detector: AnomalyDetector | None, measured: Measurements) -> Iterator[str]:
    """Yield what the detector promises and where its rate does not hold, a sentence each."""
    if detector is None:
        return
    rows, limit = len(detector.scores), detector.threshold()
    low, high = rate_interval(rows, RATE)
    yield (
        f"A detector judges each row by {rows} clean rows, on which it was calibrated "
        f"({detector.scoring}). The p-value of a row is the share of clean rows that are at least "
        f"as strange. Rows above {number(limit)} nats are flagged, at a false-alarm rate of "
        f"{_rate(RATE)} of clean rows. Other calibration rows would give another threshold: with a "
        f"probability of 90{SPACE}%, this one flags {_rate(low, 1)} to {_rate(high, 1)}."
    )
    if np.isposinf(limit):
        yield "Calibration rows with infinite scores put the threshold so high that none is above."
    fitted = "Some of these are rows" if "fitted" in measured.split else "It does not hold for rows"
    rest = ", for which it does not hold" if "fitted" in measured.split else ""
    yield (
        f"The rate is one of new rows. {fitted} that the pair was fitted to{rest}: the pair finds "
        "them less strange than new ones. Nor does it hold for the calibration rows themselves."
    )
    yield "Where a score is not reliable, few draws decide it; the p-value holds all the same."


def _histogram(strange: StrangeRows) -> Figure:
    """Draw the scores of all rows, with the threshold where there is a detector."""
    scores = strange.scored["score"]
    limit = None if strange.detector is None else strange.detector.threshold()
    name = strange.score.replace("_", " ")
    finite = scores[np.isfinite(scores)]
    middle = f", half of them above {number(scores.median())}" if len(finite) else ""
    above = "" if limit is None else (
        f" {strange.flagged} rows are above the threshold of {number(limit)} nats."
    )  # fmt: skip
    alt = f"Histogram of the {name} of {len(scores)} rows, in nats{middle}.{above}"
    return Figure.drawn(
        lambda ax: score_histogram(scores, limit, name=name, ax=ax, title=""), alt,
        above.strip(),
    )  # fmt: skip


# The strangest rows


def _table(strange: StrangeRows) -> Table:
    """Return the strangest rows, with their scores and largest attributions."""
    with_detector, shares = strange.detector is not None, strange.explained
    columns = {
        "verdict": with_detector, "row": True, "score": True, "p": with_detector, "k-hat": True,
        "reliable": True, "largest attributions": isinstance(shares, pd.DataFrame),
    }  # fmt: skip
    shown = [name for name, wanted in columns.items() if wanted]
    lines = []
    for place, (label, row) in enumerate(strange.scored.iloc[strange.first].iterrows()):
        cells = {
            "row": shortened(str(label), NAME), "score": decimal(row["score"], 2),
            "p": number(row.get("p_value", np.nan), 3),
            "verdict": "flagged" if row.get("flagged", False) else "",
            "k-hat": decimal(row["k_hat"], 2), "reliable": "yes" if row["reliable"] else "no",
            "largest attributions": _largest(shares.iloc[place])
            if isinstance(shares, pd.DataFrame) else "",
        }  # fmt: skip
        lines.append([cells[name] for name in shown])
    units = (
        "scores and attributions in nats" if columns["largest attributions"] else "scores in nats"
    )
    flagged = strange.scored["flagged"] if with_detector else pd.Series(False, strange.scored.index)
    return Table(
        f"The {len(lines)} strangest of {len(strange.scored)} rows; {units}",
        shown, lines, marked=flagged.iloc[strange.first].tolist(),
    )  # fmt: skip


def _largest(row: pd.Series) -> str:
    """Return the columns with the largest attributions: ``"age +8.21, height +0.50"``."""
    largest = row.sort_values(ascending=False, kind="stable")[:NAMED]
    return ", ".join(f"{_column(name)} {_signed(value)}" for name, value in largest.items())


def _column(name: Any) -> str:
    return shortened(str(name).removeprefix(ATTRIBUTION), NAME)


def _signed(value: float) -> str:
    return f"{value:+z.2f}".replace("-", MINUS).replace("inf", INFINITY)


def _pictures(strange: StrangeRows) -> Iterator[Figure]:
    """Yield a figure of each of the strangest rows whose attributions are finite."""
    if not isinstance(strange.explained, pd.DataFrame):
        return
    finite = np.isfinite(strange.explained).all(axis=1)
    for _, row in strange.explained[finite].iloc[:PICTURES].iterrows():
        yield _bars(row, f"row {shortened(str(row.name), NAME)}")


def _bars(row: pd.Series, name: str) -> Figure:
    """Draw the attributions of the columns of one row."""
    alt = f"Bars of the attributions of columns of {name}: {_largest(row)} nats."
    return Figure.drawn(
        lambda ax: attribution_bars(row, BARS, ax=ax), alt, f"What makes {name} strange."
    )


def _images(strange: StrangeRows) -> list[Strip]:
    """Return the strangest images and their reconstructions; empty where rows are no images."""
    found = strange.explained
    if not isinstance(found, Images):
        return []
    labels = strange.scored.index[strange.first[:IMAGES]]
    lines = {"strangest images": found.rows, "their reconstructions": found.reconstructions}
    below = {"strangest images": [shortened(str(label), 12) for label in labels]}
    return strips({name: images[:IMAGES] for name, images in lines.items()}, below)
