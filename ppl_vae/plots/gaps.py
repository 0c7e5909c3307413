"""How far a guide is from the posterior: each row's gap, as a bar of its two parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import BLUE, INK, ORANGE, axes_or_new, label_axes, legend_above

MOST_BARS = 200
"""Bars that are still apart on a page; more rows are shown as so many quantiles."""


def gap_bars(
    approximation: Any,
    amortization: Any,
    *,
    title: str = "Inference gap",
    ax: Axes | None = None,
) -> Axes:
    """Draw the gap of each row, from the largest to the smallest, in its two parts.

    What the guide's family loses stands below, what its network loses on top of it. Of more than
    200 rows, evenly spaced ones in the order of their gaps are drawn.

    Args:
        approximation: What the family loses, (rows,), in nats.
        amortization: What the network loses, (rows,), in nats.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: If there are not as many numbers of both kinds, or none that is finite.

    Example:
        >>> ax = gap_bars([0.5, 1.5], [0.25, 0.0])
        >>> ax.get_ylabel()
        'nats'
    """
    family = as_array(approximation, "approximation").astype(float)
    network = as_array(amortization, "amortization").astype(float)
    if family.shape != network.shape or family.ndim != 1:
        raise ValueError(
            "amortization: expected one number for each of approximation, (rows,), got shapes "
            f"{family.shape} and {network.shape}"
        )
    known = np.isfinite(family) & np.isfinite(network)
    if not known.any():
        raise ValueError("approximation: expected finite numbers, got none")
    family, network = family[known], network[known]
    means = [float(part.mean()) for part in (family, network)]
    order = np.argsort(-(family + network), kind="stable")
    if len(order) > MOST_BARS:
        order = order[np.linspace(0, len(order) - 1, MOST_BARS).round().astype(int)]
    family, network = family[order], network[order]
    ax = axes_or_new(ax, 6.4, 3.2)
    places = np.arange(len(order))
    ax.bar(places, family, width=1.0, color=BLUE, label=f"family: mean {means[0]:.3g}")
    base = np.where(network >= 0, np.maximum(family, 0), 0)
    ax.bar(
        places, network, bottom=base, width=1.0, color=ORANGE,
        label=f"network: mean {means[1]:.3g}",
    )  # fmt: skip
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xticks([])
    ax.set_xlim(-0.5, len(order) - 0.5)
    label_axes(ax, title=title, x=f"{known.sum():,} rows, by their gap", y="nats")
    legend_above(ax)
    return ax
