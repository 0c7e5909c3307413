"""Do predictive intervals hold what they promise?

The central interval of level p holds an observed value with PIT u where |u - 1/2| <= p / 2. Of n
cells of a calibrated model, Binomial(n, p) lie in their intervals.

Source: Gneiting, Balabdaoui & Raftery (2007), Probabilistic forecasts, calibration and sharpness,
Journal of the Royal Statistical Society B 69(2), section 3.3 (coverage).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ppl_vae.plots import style
from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.pit import as_pit
from ppl_vae.uniform_counts import binomial_mass, central_counts

NAME_LENGTH = 24  # characters of a feature's name in the legend


def interval_coverage(
    pit: Any,
    *,
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    names: Sequence[Any] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw how many observed values lie in predictive intervals of each level.

    On the diagonal, intervals hold the share of values that they promise. Below the diagonal,
    predictions are too narrow or off; above the diagonal, too wide. The grey bars hold 95 % of
    calibrated features, at each level by itself: of many features, some lie outside by chance.

    Args:
        pit: (rows,) or (rows, features), numbers from 0 to 1 (``PredictiveCheck.pit``). NaN are
            left out, and so are features that have nothing but NaN.
        levels: Probabilities of central intervals.
        names: Names of the features; a frame's columns, or numbers, by default.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes. The feature furthest from the diagonal, in standard errors, is drawn last.

    Raises:
        ValueError: If ``pit`` has no numbers from 0 to 1, a level is not between 0 and 1, or
            the number of names is not the number of features.

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
    coverage = inside.sum(0) / rows[:, None]
    ax = style.axes_or_new(ax, 6.4, 4.8)
    _draw_chance(ax, nominal, rows)
    _draw_features(ax, nominal, coverage, rows, labels)
    _set_ticks(ax, nominal)
    title = "Coverage of predictive intervals" if title is None else title
    x, y = "level of the central interval", "observed values inside"
    style.label_axes(ax, title, x, y, grid=True)
    style.legend_above(ax)
    return ax


def _as_names(names: Any, values: np.ndarray) -> np.ndarray:
    """Return the names of the features, (features,) of text."""
    count = values.shape[1]
    if names is None:
        names = [f"feature {i}" for i in range(count)] if count > 1 else ["observed"]
    labels = np.array([str(name) for name in names])
    if len(labels) != count:
        raise ValueError(f"names: expected {count}, one for each feature, got {len(labels)}")
    return labels


def _draw_chance(ax: Axes, levels: np.ndarray, rows: np.ndarray) -> None:
    """Draw the diagonal, and at each level a bar that holds 95 % of calibrated features.

    Args:
        ax: The axes.
        levels: (levels,) rising.
        rows: (features,) rows with a PIT. The bar is made for the fewest rows, where chance is
            widest.
    """
    start, fewest = levels[0] - 0.1 * (1 - levels[0]), int(rows.min())
    ax.plot([start, 1], [start, 1], color=style.INK, linewidth=1, linestyle="--", zorder=1)
    ax.set_xlim(start, 1 + 0.04 * (1 - start))
    counts = [central_counts(*binomial_mass(fewest, level), 0.025) for level in levels]
    bounds = np.array(counts) / fewest
    count = f"{fewest} rows{' or more' if rows.max() > fewest else ''}"
    ax.vlines(
        levels, bounds[:, 0], bounds[:, 1], color=style.PALE_GREY, linewidth=9, zorder=0,
        label=f"95 % of calibrated features ({count})",
    )  # fmt: skip


def _draw_features(
    ax: Axes, levels: np.ndarray, coverage: np.ndarray, rows: np.ndarray, names: np.ndarray
) -> None:
    """Draw a line for each feature, the worst one last and thick.

    Args:
        ax: The axes.
        levels: (levels,) rising.
        coverage: (features, levels) shares of observed values inside.
        rows: (features,) rows with a PIT.
        names: (features,) of text.
    """
    errors = (levels * (1 - levels) / rows[:, None]) ** 0.5
    distance = np.abs(coverage - levels) / errors
    worst, level = np.unravel_index(distance.argmax(), distance.shape)
    short_names = [style.shorten(name, NAME_LENGTH) for name in names]
    others = [i for i in range(len(coverage)) if i != worst]
    for position, i in enumerate(others):
        look: dict[str, Any] = {"color": style.GREY, "linewidth": 0.7, "alpha": 0.7}
        if len(others) <= len(style.SERIES):
            colour, marker = style.SERIES[position]
            look = {"color": colour, "marker": marker, "label": short_names[i]}
        ax.plot(levels, coverage[i], **look)
    share = f"{100 * levels[level]:g} % interval: {100 * coverage[worst, level]:.0f} %"
    label = f"{'worst: ' * bool(others)}{short_names[worst]} ({share})"
    look = {"color": style.ORANGE, "linewidth": 2.4, "markersize": 8, "label": label}
    ax.plot(levels, coverage[worst], "X-", **look)


def _set_ticks(ax: Axes, levels: np.ndarray) -> None:
    """Name the levels and the shares in percent."""
    ax.set_xticks(_levels_with_room(levels))
    low, high = ax.dataLim.y0, 1.0
    ax.set_ylim(low - 0.06 * (high - low), high + 0.04 * (high - low))
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    ax.set_yticks([tick for tick in ticks if low - 1e-9 <= tick <= high + 1e-9])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.6g} %"))


def _levels_with_room(levels: np.ndarray) -> list[float]:
    """Return the levels whose names do not overlap, the highest level always among them."""
    named: list[float] = []
    for level in levels[::-1]:
        if not named or named[-1] - level >= 0.07 * (1 - levels[0]):
            named.append(float(level))
    return named[::-1]
