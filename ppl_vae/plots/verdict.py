"""Which statistics of the data does the model miss: all statistics of a check in one figure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ppl_vae.plots import style

FARTHEST = 6.0  # half widths of an interval; values beyond are drawn at the edge
MOST = 30  # statistics in one figure


def check_summary(frame: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw where each observed statistic lies beside its replicates.

    Each line of the figure is one statistic of its worst feature. The grey bar is the central
    90 % of the replicates, scaled to the same width in every line; the point is the data. A value
    more than six half widths away from the middle of its bar is an arrow at the edge.

    Args:
        frame: The frame of a ``PredictiveCheck``; its first 30 lines are drawn.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes, the first line of the frame on top.

    Raises:
        ValueError: If the frame does not have the columns of a check.

    Example:
        >>> line = {"feature": "a", "observed": 9, "mean": 1, "lower": 0, "upper": 2}
        >>> index = pd.MultiIndex.from_tuples([("x", "mean")], names=["site", "statistic"])
        >>> frame = pd.DataFrame([{**line, "p_value": 0.01, "flagged": True}], index=index)
        >>> check_summary(frame).get_yticklabels()[0].get_text()
        'mean of a'
    """
    missing = {"feature", "observed", "lower", "upper", "flagged"} - set(frame.columns)
    if missing or not len(frame):
        raise ValueError(
            f"frame: expected the frame of a predictive check, got one without "
            f"{sorted(missing) or 'rows'}; pass predictive_check(...).frame"
        )
    shown = frame.iloc[:MOST]
    names = _names(shown)
    ax = style.axes_or_new(ax, 5.4 + 0.085 * max(map(len, names)), 1.9 + 0.3 * len(shown))
    distance, flagged = half_widths(shown), shown["flagged"].to_numpy(dtype=bool)
    lines = np.arange(len(shown))
    ax.barh(
        lines, 2, left=-1, height=0.55, color=style.PALE_GREY, alpha=0.7,
        label="central 90 % of the replicates",
    )  # fmt: skip
    _draw_points(ax, distance[flagged], lines[flagged], "D", style.ORANGE, "data, flagged")
    _draw_points(ax, distance[~flagged], lines[~flagged], "o", style.BLUE, "data")
    ax.set_yticks(lines, labels=names)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    far = min(FARTHEST, max(2.0, float(np.nanmax(np.abs(distance), initial=0.0)))) + 0.5
    ax.set_xlim(-far, far)
    ax.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
    title = "Statistics of the data beside those of the replicates" if title is None else title
    note = (
        "distance from the middle of the 90 % interval, in half widths of the interval;\n"
        "each line is of its worst feature, and the worst of many may lie outside by chance"
    )
    style.label_axes(ax, title, note, left=False)
    ax.xaxis.label.set_fontsize(style.LEGEND_SIZE)
    style.legend_above(ax)
    return ax


def half_widths(shown: pd.DataFrame) -> np.ndarray:
    """Return how far the data are from the middle of the replicates' interval, in half widths.

    Args:
        shown: Lines of a check's frame.

    Returns:
        (lines,); infinite where the replicates are all equal and the data differ; 0 where the data
        are equal to the middle.
    """
    low, high, observed = shown[["lower", "upper", "observed"]].to_numpy(dtype=float).T
    shift, half_width = observed - (low + high) / 2, (high - low) / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # half_width is 0
        return np.asarray(np.where(shift == 0, 0.0, shift / half_width))


def _draw_points(
    ax: Axes, distance: np.ndarray, lines: np.ndarray, marker: str, colour: str, label: str
) -> None:
    """Draw the data of some statistics: points in sight, arrows at the edge for values beyond.

    Args:
        ax: The axes.
        distance: (statistics,) in half widths.
        lines: (statistics,) heights of the lines.
        marker: Marker of the points.
        colour: Colour of points and arrows.
        label: Name in the legend.
    """
    inside = np.abs(distance) <= FARTHEST
    look: dict[str, Any] = {"color": colour, "linestyle": "none", "markersize": 7, "zorder": 3}
    if inside.any():
        ax.plot(distance[inside], lines[inside], marker, label=label, **look)
        label = "_" + label
    for side, arrow in ((-1, "<"), (1, ">")):
        beyond = side * distance > FARTHEST
        if beyond.any():
            ax.plot(
                np.full(beyond.sum(), side * FARTHEST), lines[beyond], arrow,
                label=f"{label}, farther out", **{**look, "markersize": 9},
            )  # fmt: skip
            label = "_" + label  # once in the legend


def _names(shown: pd.DataFrame) -> list[str]:
    """Return the statistic and its worst feature of each line, and the site among several sites."""
    sites = shown.index.get_level_values(0)
    several = len(set(sites)) > 1
    return [
        (f"{site}: " if several else "") + statistic + (f" of {feature}" if feature else "")
        for (site, statistic), feature in zip(shown.index, shown["feature"], strict=True)
    ]
