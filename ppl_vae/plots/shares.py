"""Shares of rows that have each value, as bars: ``density_overlay`` of discrete values.

Values that are few have a bar each. Values that are many share bins of equal width.
"""

import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ppl_vae.plots.ranges import even_edges, range_in_sight
from ppl_vae.plots.style import BLUE, PALE_BLUE, shorten, whole_ticks

MAX_BARS = 40


class _Bars(NamedTuple):
    """Where the bars stand.

    Attributes:
        bounds: (bars - 1,) values that separate a bar from the next one.
        places: (bars,) middles of the bars on the horizontal axis.
        width: Width of a bar.
        names: Names below the bars; ``None`` where the axis has numbers.
        note: What the label of the axis has to say about the bars.
        whole: Whether the axis has whole numbers only.
    """

    bounds: np.ndarray
    places: np.ndarray
    width: float
    names: list[str] | None = None
    note: str = ""
    whole: bool = False


def draw_shares(
    ax: Axes, observed: np.ndarray, replicated: np.ndarray, names: list[str] | None
) -> str:
    """Draw the observed shares as bars, and the replicated ones as points with intervals.

    Args:
        ax: Where to draw.
        observed: (rows,) values.
        replicated: (samples, rows) values, NaN where there is none.
        names: Names of the categories 0, 1, ...; ``None`` where values are numbers.

    Returns:
        What the label of the horizontal axis has to say about the bars; empty where nothing.
    """
    bars = _bars(observed, replicated, names)
    shares = _shares(observed, bars.bounds)
    of_replicates = np.stack([_shares(row, bars.bounds) for row in replicated])  # (samples, bars)
    low, middle, high = np.quantile(of_replicates, [0.05, 0.5, 0.95], axis=0)
    ax.bar(
        bars.places, shares, width=bars.width, color=PALE_BLUE, edgecolor=BLUE, linewidth=0.8,
        label="observed",
    )  # fmt: skip
    occurs = (shares > 0) | of_replicates.any(0)
    ax.errorbar(
        bars.places[occurs], middle[occurs],
        yerr=np.stack([middle - low, high - middle])[:, occurs], fmt="o", color="black",
        markersize=float(np.clip(120 / len(bars.places), 2.5, 5)), linewidth=1.5, capsize=0,
        label="replicated: median, central 90 %",
    )  # fmt: skip
    ax.set_xlim(bars.places[0] - bars.width, bars.places[-1] + bars.width)
    if bars.whole:
        whole_ticks(ax.xaxis)
    if bars.names is not None:
        _write_names(ax, bars.names)
    return bars.note


def _bars(observed: np.ndarray, replicated: np.ndarray, names: list[str] | None) -> _Bars:
    """Choose the bars: one for each category, for each whole number, for each value, or bins."""
    if names is not None:
        return _Bars(np.arange(len(names) - 1) + 0.5, np.arange(len(names)), 0.8, names)
    known = replicated[~np.isnan(replicated)]
    values = np.sort(pd.unique(np.concatenate([observed, known])))
    whole = bool((values == np.round(values)).all())
    if whole and values[-1] - values[0] < MAX_BARS:
        places = np.arange(values[0], values[-1] + 1)
        return _Bars(places[:-1] + 0.5, places, 0.8, whole=True)
    if len(values) <= MAX_BARS:
        bounds = (values[:-1] + values[1:]) / 2
        return _Bars(bounds, np.arange(len(values)), 0.8, [f"{value:g}" for value in values])
    edges = even_edges(*range_in_sight(observed, known), MAX_BARS, whole)
    width = edges[1] - edges[0]
    notes = [f"bins of {width:g} values each"] if whole and width > 1 else []
    if values[0] < edges[0] or values[-1] > edges[-1]:
        notes.append("the end bins hold what lies beyond")
    return _Bars(edges[1:-1], (edges[1:] + edges[:-1]) / 2, 0.9 * width, None, ", ".join(notes))


def _shares(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the share of the values in each bar, (bars,); NaN among the values are left out."""
    values = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(bounds, values, side="right"), minlength=len(bounds) + 1)
    return np.asarray(counts / len(values))


def _write_names(ax: Axes, names: list[str]) -> None:
    """Write names below the bars, on several lines or upright where there is no room.

    Of more than 40 names, every second, third, ... is written.
    """
    step = -(-len(names) // MAX_BARS)
    names = [shorten(name, 30) for name in names[::step]]
    room = max(70 // len(names), 1)  # characters below a bar
    wrapped = [textwrap.wrap(name, room, break_long_words=False) or [""] for name in names]
    upright = any(len(line) > room for lines in wrapped for line in lines)
    labels = names if upright else ["\n".join(lines) for lines in wrapped]
    ax.set_xticks(range(0, step * len(names), step), labels=labels, rotation=90 * upright)
    ax.tick_params(axis="x", length=0, labelsize=7 if len(names) > 25 else 9)
