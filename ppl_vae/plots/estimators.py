"""Which gradient estimator: the noise of each against its time, and its bias.

Source of the lines, variance x time: Glynn & Whitt (1992), The asymptotic efficiency of simulation
estimators, doi:10.1287/opre.40.3.505.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, NullFormatter

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import (
    BLUE,
    INK,
    LEGEND_SIZE,
    ORANGE,
    PALE_GREY,
    axes_or_new,
    label_axes,
    legend_above,
    percent,
    shorten,
)


def estimator_plane(
    milliseconds: Any,
    variance: Any,
    bias: Any,
    *,
    names: Sequence[object],
    title: str = "Noise, time and bias of gradient estimators",
    ax: Axes | None = None,
) -> Axes:
    """Draw each estimator at its time and its variance, both on logarithmic scales.

    Estimators on one grey line have the same variance at equal time; below it is better. A variance
    of 0 stands at the lower edge. A biased estimator is an orange triangle with its bias, one whose
    bias is not known is hollow.

    Args:
        milliseconds: Time of one gradient, (estimators,).
        variance: Variance of one gradient, (estimators,).
        bias: Bias as a share of the gradient's norm, (estimators,); 0 for none, NaN where it is not
            known.
        names: Names of the estimators.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: If there is not one number of each kind for each name.

    Example:
        >>> ax = estimator_plane([2, 1], [0.1, 5], [0, 0.12], names=["drawn", "relaxed"])
        >>> [text.get_text() for text in ax.texts]
        ['drawn', 'relaxed, bias 12 %']
    """
    columns = {"milliseconds": milliseconds, "variance": variance, "bias": bias}
    arrays = {name: as_array(values, name) for name, values in columns.items()}
    for name, values in arrays.items():
        if values.shape != (len(names),) or not len(names):
            raise ValueError(
                f"{name}: expected a number for each of the {len(names)} estimators, got shape "
                f"{values.shape}"
            )
    times, variances, shares = arrays.values()
    ax = axes_or_new(ax, 7.2, 4.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    heights, low, high = _heights(variances)
    left, right = times.min() / 1.6, times.max() * 2.2
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for axis in (ax.xaxis, ax.yaxis):  # no formulas, which a figure for a page does not read
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(LogFormatter())
    for level in np.geomspace(low * left, high * right, 13):
        ax.plot([left, right], [level / left, level / right], color=PALE_GREY, lw=0.6, zorder=0)
    for label, members, look in _groups(shares):
        ax.plot(times[members], heights[members], label=label, linestyle="", **look)
    if (variances == 0).any():
        ax.text(
            0.99, heights.min() * 1.9, "variance 0 below", fontsize=LEGEND_SIZE, color=INK,
            ha="right", transform=ax.get_yaxis_transform(),
        )  # fmt: skip
        ax.axhline(heights.min() * 1.7, color=INK, lw=0.8, linestyle=":")
    label_axes(
        ax,
        title,
        "milliseconds for one gradient\n(grey lines: equal variance x time)",
        "variance of one gradient",
    )
    legend_above(ax)
    texts = [
        shorten(name, 24) + (f", bias {percent(share)}" if share > 0 else "")
        for name, share in zip(names, shares, strict=True)
    ]
    _write_names(ax, texts, np.stack([times, heights], 1))
    return ax


def _heights(variances: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return where to draw each variance, and the lower and upper ends of the axis.

    Args:
        variances: (estimators,), none below 0.
    """
    positive = variances[variances > 0]
    least, most = (positive.min(), positive.max()) if len(positive) else (1.0, 1.0)
    floor = least / 8  # where a variance of 0 stands
    heights = np.where(variances > 0, variances, floor)
    low = floor / 1.7 if len(positive) < len(variances) else least / 4
    return heights, float(low), float(most * 5)


def _groups(shares: np.ndarray) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return label, members and look of the estimators without a bias, biased, and unknown.

    Args:
        shares: Bias as a share of the gradient's norm, (estimators,); NaN where it is not known.
    """
    dark = {"color": BLUE, "markersize": 8}
    groups = [
        ("no bias", shares <= 0, {"marker": "o", **dark}),
        ("bias", shares > 0, {"marker": "^", "color": ORANGE, "markersize": 9}),
        ("bias not known", np.isnan(shares), {"marker": "D", "fillstyle": "none", **dark}),
    ]
    return [(label, members, look) for label, members, look in groups if members.any()]


def _write_names(ax: Axes, texts: list[str], points: np.ndarray) -> None:
    """Write a name to the right of each point, raised where it would stand on another name.

    Args:
        ax: The axes, with their final limits.
        texts: The names.
        points: (names, 2), in the data's units.
    """
    ax.figure.canvas.figure.draw_without_rendering()  # to know where the points lie
    places = ax.transData.transform(points) * 72 / ax.figure.dpi  # in points of print
    height = 1.3 * LEGEND_SIZE
    placed: list[np.ndarray] = []  # left, right and lower end of each name
    for which in np.argsort(places[:, 1], kind="stable"):
        left, low = places[which] + (7, -3)
        right = left + 0.6 * LEGEND_SIZE * len(texts[which])
        for other in sorted(placed, key=lambda box: float(box[2])):
            beside = other[1] < left or other[0] > right
            if not beside and abs(low - other[2]) < height:
                low = other[2] + height
        placed.append(np.array([left, right, low]))
        ax.annotate(
            texts[which], points[which], xytext=(7, low - places[which][1]),
            textcoords="offset points", fontsize=LEGEND_SIZE, color=INK,
        )  # fmt: skip
