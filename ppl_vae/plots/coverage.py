"""Do predictive intervals hold what they promise?

    central interval of level p holds the observed value where |u - 1/2| <= p / 2, u its PIT
    of n calibrated cells, Binomial(n, p) are held

Source: Gneiting, Balabdaoui & Raftery (2007), Probabilistic forecasts, calibration and sharpness,
Journal of the Royal Statistical Society B 69(2), section 3.3 (coverage).
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.pit import ORANGE, as_pit, binomial, central

LOOKS = (("#0b5394", "o"), ("#117733", "s"), ("#882255", "D"), ("0.3", "v"), ("#aa4499", "^"))


def interval_coverage(
    pit: Any,
    *,
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    names: Sequence[Any] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw how many observed values lie in predictive intervals of each level.

    On the diagonal an interval holds what it promises; below it, predictions are too narrow or
    off; above it, too wide. Grey bars hold 95 % of calibrated features, at each level by itself:
    of many features, some lie outside by chance.

    Args:
        pit: (rows,) or (rows, features), numbers from 0 to 1; NaN are left out, and features that
            have nothing else.
        levels: Probabilities of central intervals.
        names: Names of the features; a frame's columns, or numbers, by default.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes. The feature furthest from the diagonal, in standard errors, is drawn last.

    Raises:
        ValueError: Where ``pit`` has no numbers from 0 to 1, a level is not between 0 and 1, or
            there is not a name for each feature.

    Example:
        >>> ax = interval_coverage([[0.5, 0.01], [0.4, 0.99], [0.2, 0.5]], names=["a", "b"])
        >>> ax.lines[-1].get_label()
        'worst: b (95 % interval: 33 %)'
    """
    values = as_pit(pit, 2)
    labels = _as_names(getattr(pit, "columns", None) if names is None else names, values)
    nominal = np.unique(as_array(levels, "levels"))
    if not len(nominal) or not (nominal[0] > 0 and nominal[-1] < 1):
        raise ValueError(f"levels: expected probabilities between 0 and 1, got {levels}")
    rows = (~np.isnan(values)).sum(0)
    values, labels, rows = values[:, rows > 0], labels[rows > 0], rows[rows > 0]
    inside = np.abs(values - 0.5)[..., None] <= nominal / 2 + 1e-12  # (rows, features, levels)
    held = inside.sum(0) / rows[:, None]
    ax = ax or plt.subplots(figsize=(6.4, 4.8), layout="constrained")[1]
    _draw_chance(ax, nominal, rows)
    _draw_features(ax, nominal, held, rows, labels)
    _scale(ax, nominal)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.6g} %"))
    ax.set_title("Coverage of predictive intervals" if title is None else title)
    ax.set_xlabel("level of the central interval")
    ax.set_ylabel("observed values inside")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left")
    return ax


def _as_names(names: Any, values: np.ndarray) -> np.ndarray:
    """(features,) of text."""
    many = values.shape[1] > 1
    given = [f"feature {i}" if many else "observed" for i in range(values.shape[1])]
    given = given if names is None else names
    labels = np.array([str(name) for name in given])
    if len(labels) != values.shape[1]:
        raise ValueError(f"names: expected {values.shape[1]}, one a feature, got {len(labels)}")
    return labels


def _draw_chance(ax: Axes, levels: np.ndarray, rows: np.ndarray) -> None:
    """The diagonal, and a bar at each level: 95 % of the shares of so many rows."""
    start, fewest = levels[0] - 0.1 * (1 - levels[0]), int(rows.min())
    ax.plot([start, 1], [start, 1], color="0.3", linewidth=1, linestyle="--", zorder=1)
    ax.set_xlim(start, 1 + 0.04 * (1 - start))
    bounds = np.array([central(*binomial(fewest, level), 0.025) for level in levels]) / fewest
    count = f"{fewest} rows{' or more' if rows.max() > fewest else ''}"
    ax.vlines(
        levels, bounds[:, 0], bounds[:, 1], color="0.82", linewidth=9, zorder=0,
        label=f"95 % of calibrated features ({count})",
    )  # fmt: skip


def _draw_features(
    ax: Axes, levels: np.ndarray, held: np.ndarray, rows: np.ndarray, names: np.ndarray
) -> None:
    """(features, levels) shares: a line each, the worst last and thick."""
    off = np.abs(held - levels) / (levels * (1 - levels) / rows[:, None]) ** 0.5
    worst, where = np.unravel_index(off.argmax(), off.shape)
    order = [i for i in range(len(held)) if i != worst]
    for place, i in enumerate(order):
        look: dict[str, Any] = {"color": "0.6", "linewidth": 0.7, "alpha": 0.7}
        if len(order) <= len(LOOKS):
            colour, marker = LOOKS[place]
            look = {"color": colour, "marker": marker, "label": _short(names[i])}
        ax.plot(levels, held[i], **look)
    share = f"{100 * levels[where]:g} % interval: {100 * held[worst, where]:.0f} %"
    label = f"{'worst: ' * (len(held) > 1)}{_short(str(names[worst]))} ({share})"
    ax.plot(levels, held[worst], "X-", color=ORANGE, linewidth=2.4, markersize=8, label=label)


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _scale(ax: Axes, levels: np.ndarray) -> None:
    """Names of levels and shares, and room for the legend above."""
    ax.set_xticks(_apart(levels))
    low, high = ax.dataLim.y0, 1.0
    legend = 0.02 + 0.062 * len(ax.get_legend_handles_labels()[1])  # of the height of the axes
    ax.set_ylim(low - 0.06 * (high - low), high + 1.06 * (high - low) * legend / (1 - legend))
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    ax.set_yticks([tick for tick in ticks if low - 1e-9 <= tick <= high + 1e-9])


def _apart(levels: np.ndarray) -> list[float]:
    """The levels that have room for their names, the highest first."""
    kept: list[float] = []
    for level in levels[::-1]:
        if not kept or kept[-1] - level >= 0.07 * (1 - levels[0]):
            kept.append(float(level))
    return kept[::-1]
