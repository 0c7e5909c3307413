"""Shares of rows that have a value, as bars: the discrete form of an overlay."""

import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ppl_vae.plots.ranges import even_edges, in_sight

CELLS = 40  # bars; more values share bars
BLUE, PALE_BLUE = "#0b5394", "#8db9e2"


class _Cells(NamedTuple):
    """The bounds between bars, their places, width and names, and what the axis says of them."""

    inner: np.ndarray
    place: np.ndarray
    width: float
    names: list[str] | None = None
    note: str = ""
    whole: bool = False


def draw_bars(ax: Axes, seen: np.ndarray, made: np.ndarray, names: list[str] | None) -> str:
    """The bars; returns what the axis has to say about them."""
    cells = _cells(seen, made, names)
    observed = _shares(seen, cells.inner)
    replicated = np.stack([_shares(row, cells.inner) for row in made])
    low, middle, high = np.quantile(replicated, [0.05, 0.5, 0.95], axis=0)
    ax.bar(
        cells.place, observed, width=cells.width, color=PALE_BLUE, edgecolor=BLUE, linewidth=0.8,
        label="observed",
    )  # fmt: skip
    made_there = (observed > 0) | replicated.any(0)
    ax.errorbar(
        cells.place[made_there], middle[made_there],
        yerr=np.stack([middle - low, high - middle])[:, made_there], fmt="o", color="black",
        markersize=float(np.clip(120 / len(cells.place), 2.5, 5)), linewidth=1.5, capsize=0,
        label="replicated: median, central 90 %",
    )  # fmt: skip
    ax.set_xlim(cells.place[0] - cells.width, cells.place[-1] + cells.width)
    if cells.whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if cells.names is not None:
        _name_places(ax, cells.names)
    return cells.note


def _cells(seen: np.ndarray, made: np.ndarray, names: list[str] | None) -> _Cells:
    if names is not None:
        return _Cells(np.arange(len(names) - 1) + 0.5, np.arange(len(names)), 0.8, names)
    pool = np.concatenate([seen, made[~np.isnan(made)]])
    found = np.sort(pd.unique(pool))
    whole = bool((found == np.round(found)).all())
    if whole and found[-1] - found[0] < CELLS:
        place = np.arange(found[0], found[-1] + 1)
        return _Cells(place[:-1] + 0.5, place, 0.8, whole=True)
    if len(found) <= CELLS:
        places = np.arange(len(found))
        return _Cells((found[:-1] + found[1:]) / 2, places, 0.8, [f"{v:g}" for v in found])
    low, high = in_sight(seen, made[~np.isnan(made)])
    edges = even_edges(low, high, CELLS, whole)
    width = edges[1] - edges[0]
    note = f"bins of {width:g} values each" if whole and width > 1 else ""
    if found[0] < edges[0] or found[-1] > edges[-1]:
        note += f"{', ' if note else ''}the end bins hold what lies beyond"
    return _Cells(edges[1:-1], (edges[1:] + edges[:-1]) / 2, 0.9 * width, None, note)


def _shares(values: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """(cells,) shares of the values between the bounds."""
    values = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(inner, values, side="right"), minlength=len(inner) + 1)
    return np.asarray(counts / len(values))


def _name_places(ax: Axes, names: list[str]) -> None:
    """Names below the bars, upright where there is no room; of very many every second, ..."""
    step = -(-len(names) // CELLS)
    names = [name if len(name) <= 30 else name[:29] + "…" for name in names[::step]]
    room = max(70 // len(names), 1)
    lines = [textwrap.wrap(name, room, break_long_words=False) or [""] for name in names]
    if all(len(line) <= room for wrapped in lines for line in wrapped):
        names, rotation = ["\n".join(wrapped) for wrapped in lines], 0
    else:
        rotation = 90
    ax.set_xticks(range(0, step * len(names), step), labels=names, rotation=rotation)
    ax.tick_params(axis="x", length=0, labelsize=7 if len(names) > 25 else 9)
