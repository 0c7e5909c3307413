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
    means, low, high = _numbers(len(names), difference=difference, lower=lower, upper=upper)
    unsure = np.zeros(len(names), bool)
    if doubtful is not None:
        unsure = _numbers(len(names), doubtful=doubtful)[0] != 0
    ax = axes_or_new(ax, 6.4, 1.6 + 0.45 * len(names))
    ax.axvline(0.0, color=INK, lw=0.8, linestyle=":")
    others = np.arange(len(names)) > 0
    looks: tuple[tuple[str, Any, str, str], ...] = (
        ("largest mean", ~others, INK, "s"),
        (f"below it ({100 * level:.4g} % interval)", ~unsure & others, BLUE, "o"),
        ("no verdict", unsure & others, ORANGE, "^"),
    )
    for label, members, colour, marker in looks:
        (drawn,) = (members & np.isfinite(means)).nonzero()
        if len(drawn):
            ends = [np.where(np.isnan(end), means, end)[drawn] for end in (low, high)]
            ax.hlines(drawn, *ends, color=colour, lw=2)
            look: dict[str, Any] = {"marker": marker, "color": colour, "markersize": 8}
            ax.plot(means[drawn], drawn, linestyle="", label=label, **look)
    _write_numbers(ax, means)
    ax.set_yticks(range(len(names)), [shorten(name, 24) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    label_axes(ax, title, "difference, nats a row", left=False)
    legend_above(ax)
    return ax


def _numbers(count: int, **columns: Any) -> list[np.ndarray]:
    """Return columns of numbers as arrays, (count,) each.

    Raises:
        ValueError: If a column has another number of values.
    """
    arrays = {name: as_array(values, name) for name, values in columns.items()}
    for name, values in arrays.items():
        if values.shape != (count,) or not count:
            raise ValueError(
                f"{name}: expected a number for each of the {count} pairs, got shape {values.shape}"
            )
    return list(arrays.values())


def _write_numbers(ax: Axes, means: np.ndarray) -> None:
    """Write each difference above its mark, and where one is infinite, that it is."""
    for height, mean in list(enumerate(means))[1:]:
        text: dict[str, Any] = {"fontsize": LEGEND_SIZE, "color": INK}
        if np.isfinite(mean):
            above: Any = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
            ax.annotate(f"{mean:.3g}", (mean, height), **above, **text)
        else:
            left = ax.get_yaxis_transform()
            ax.text(0.01, height, "not finite", va="center", transform=left, **text)
