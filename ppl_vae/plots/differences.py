"""Which of several pairs is best: the difference of each from the first one, with its interval."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import (
    BLUE,
    INK,
    LEGEND_SIZE,
    ORANGE,
    axes_or_new,
    label_axes,
    legend_above,
    shorten,
)


def difference_intervals(
    difference: Any,
    lower: Any,
    upper: Any,
    *,
    names: Sequence[object],
    doubtful: Any = None,
    level: float = 0.95,
    title: str = "Difference from the largest log-likelihood",
    ax: Axes | None = None,
) -> Axes:
    """Draw differences from the first pair with their intervals, the first pair on top.

    A difference from which nothing follows is an orange triangle. One that is infinite has no place
    on the axis: its line says so.

    Args:
        difference: Difference of each pair from the first one, (pairs,), in nats a row; 0 for the
            first one, whose log-likelihood is the largest.
        lower: Lower ends of their intervals, (pairs,); NaN where there is none.
        upper: Upper ends, (pairs,), likewise.
        names: Names of the pairs.
        doubtful: Which differences are no verdict, (pairs,) of bool; none by default.
        level: Probability of the intervals.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: If there is not one number of each kind for each name.

    Example:
        >>> low, high = [float("nan"), -12.9], [float("nan"), -6.9]
        >>> ax = difference_intervals([0, -9.9], low, high, names=["nb", "poisson"])
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['nb', 'poisson']
    """
    columns = {"difference": difference, "lower": lower, "upper": upper}
    arrays = {name: as_array(values, name) for name, values in columns.items()}
    for name, values in arrays.items():
        if values.shape != (len(names),) or not len(names):
            raise ValueError(
                f"{name}: expected a number for each of the {len(names)} pairs, got shape "
                f"{values.shape}"
            )
    means, low, high = arrays.values()
    unsure = np.zeros(len(names), bool) if doubtful is None else np.asarray(doubtful, bool)
    first = np.arange(len(names)) == 0
    ax = axes_or_new(ax, 6.4, 1.6 + 0.45 * len(names))
    ax.axvline(0.0, color=INK, lw=0.8, linestyle=":")
    heights, finite = np.arange(len(names)), np.isfinite(means)
    looks = (
        ("largest mean", first, INK, "s"),
        (f"below it ({100 * level:.4g} % interval)", ~unsure & ~first, BLUE, "o"),
        ("no verdict", unsure & ~first, ORANGE, "^"),
    )
    for label, members, colour, marker in looks:
        drawn = members & finite
        if drawn.any():
            ends = [np.where(np.isnan(end[drawn]), means[drawn], end[drawn]) for end in (low, high)]
            ax.hlines(heights[drawn], *ends, color=colour, lw=2)
            ax.plot(
                means[drawn], heights[drawn], linestyle="", marker=marker, color=colour,
                markersize=8, label=label,
            )  # fmt: skip
    for height in heights[~finite]:
        ax.text(
            0.01, height, "not finite", transform=ax.get_yaxis_transform(), va="center",
            fontsize=LEGEND_SIZE, color=INK,
        )  # fmt: skip
    ax.set_yticks(heights, [shorten(name, 24) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    label_axes(ax, title, "difference, nats a row", left=False)
    legend_above(ax)
    return ax
