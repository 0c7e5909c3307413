"""Which statistics of the data does the model miss: all of a check on one picture."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

BLUE, ORANGE = "#0b5394", "#d55e00"
FARTHEST = 6.0  # half widths of an interval; what lies beyond is drawn at the edge
MOST = 30  # statistics on one picture


def check_summary(frame: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw where each observed statistic lies beside its replicates.

    Each line is one statistic, of its worst feature; the grey bar is the central 90 % of the
    replicates, all brought to one width, and the point is the data. A value more than six half
    widths away stands at the edge, as an arrow.

    Args:
        frame: The frame of a ``PredictiveCheck``; its first 30 lines are drawn.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes, the first line of the frame on top.

    Raises:
        ValueError: Where the frame has not the columns of a check.

    Example:
        >>> line = {"feature": "a", "observed": 9, "mean": 1, "lower": 0, "upper": 2}
        >>> index = pd.MultiIndex.from_tuples([("x", "mean")], names=["site", "statistic"])
        >>> frame = pd.DataFrame([{**line, "p_value": 0.01, "flagged": True}], index=index)
        >>> check_summary(frame).get_yticklabels()[0].get_text()
        'mean of a'
    """
    missing = {"feature", "observed", "lower", "upper", "flagged"} - set(frame.columns)
    if missing or not len(frame):
        raise ValueError(f"frame: expected a check's, got one without {sorted(missing) or 'rows'}")
    shown = frame.iloc[:MOST]
    if ax is None:
        size = (5.4 + 0.085 * max(map(len, _names(shown))), 1.9 + 0.3 * len(shown))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    place, flagged = _places(shown), shown["flagged"].to_numpy(dtype=bool)
    lines = np.arange(len(shown))
    ax.barh(lines, 2, left=-1, height=0.55, color="0.85", label="central 90 % of the replicates")
    for chosen, marker, colour, label in (
        (flagged, "D", ORANGE, "data, flagged"),
        (~flagged, "o", BLUE, "data"),
    ):
        _points(ax, place[chosen], lines[chosen], marker, colour, label)
    ax.set_yticks(lines, labels=_names(shown))
    ax.set_ylim(len(shown) - 0.4, -0.6)
    far = min(FARTHEST, max(2.0, float(np.nanmax(np.abs(place), initial=0.0)))) + 0.5
    ax.set_xlim(-far, far)
    ax.set_xlabel(
        "half widths of the 90 % interval from its middle; each line is of its\n"
        "worst feature, and the worst of many may lie outside by chance",
        fontsize=9,
    )
    ax.set_title(
        "Statistics of the data beside the replicates'" if title is None else title, pad=30
    )
    ax.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
    return ax


def _places(shown: pd.DataFrame) -> np.ndarray:
    """Distance of the data from the middle of the replicates' interval, in half widths of it."""
    low, high, seen = (shown[name].to_numpy(dtype=float) for name in ("lower", "upper", "observed"))
    shift, half = seen - (low + high) / 2, (high - low) / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # replicates that are all alike
        return np.asarray(np.where(shift == 0, 0.0, shift / half))


def _points(
    ax: Axes, place: np.ndarray, lines: np.ndarray, marker: str, colour: str, label: str
) -> None:
    """Data in sight as points, beyond the edge as arrows."""
    inside = np.abs(place) <= FARTHEST
    style: dict[str, Any] = {"color": colour, "linestyle": "none", "markersize": 7, "zorder": 3}
    if inside.any() or not len(place):
        ax.plot(place[inside], lines[inside], marker, label=label if len(place) else None, **style)
        label = "_" + label
    for side, arrow in ((-1, "<"), (1, ">")):
        beyond = side * place > FARTHEST
        if beyond.any():
            ax.plot(np.full(beyond.sum(), side * FARTHEST), lines[beyond], arrow,
                    label=f"{label}, farther out", **{**style, "markersize": 9})  # fmt: skip


def _names(shown: pd.DataFrame) -> list[str]:
    """Statistic and worst feature; the site too, where there are several."""
    sites = shown.index.get_level_values(0)
    several = len(set(sites)) > 1
    return [
        (f"{site}: " if several else "") + statistic + (f" of {feature}" if feature else "")
        for (site, statistic), feature in zip(shown.index, shown["feature"], strict=True)
    ]
