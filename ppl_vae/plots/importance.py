"""Which latent stands for which factor: importances in a table of squares.

Source of the picture, squares whose areas are the numbers: Hinton & Shallice (1991), Lesioning an
attractor network, Psychological Review 98(1).
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import BLUE, LEGEND_SIZE, PALE_BLUE, axes_or_new, label_axes, shorten


def importance_map(
    importance: Any, *, title: str = "Which latent stands for which factor", ax: Axes | None = None
) -> Axes:
    """Draw the importance of every latent for every factor as the area of a square.

    The square of the most important latent of a factor is dark, and has its number beside it.

    Args:
        importance: Latents x factors, none below 0, as a frame with names or an array; for example
            ``disentanglement(...).importance``. A square of an importance of 1 fills its cell.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes, the first latent on top.

    Raises:
        ValueError: If the importances are no table of numbers from 0.

    Example:
        >>> names = {"index": ["z[0]", "z[1]"], "columns": ["size", "place"]}
        >>> ax = importance_map(pd.DataFrame([[0.9, 0.1], [0.0, 0.5]], **names))
        >>> [tick.get_text() for tick in ax.get_xticklabels()]
        ['size', 'place']
    """
    values = as_array(importance, "importance")
    if values.ndim != 2 or 0 in values.shape or not (values >= 0).all():
        raise ValueError(
            "importance: expected a table of latents x factors, with numbers from 0, got shape "
            f"{values.shape}; pass disentanglement(...).importance"
        )
    frame = importance if isinstance(importance, pd.DataFrame) else pd.DataFrame(values)
    latents, factors = values.shape
    ax = axes_or_new(ax, max(4.4, 2.2 + 0.8 * factors), 2.0 + 0.42 * latents)
    largest = values.argmax(0)
    for j, k in zip(*np.nonzero(values), strict=True):
        side = min(values[j, k], 1.0) ** 0.5 * 0.9
        colour = BLUE if j == largest[k] else PALE_BLUE
        ax.add_patch(Rectangle((k - side / 2, j - side / 2), side, side, color=colour, linewidth=0))
        if j == largest[k]:
            colour = "white" if side > 0.5 else "black"
            place = 0.0 if side > 0.5 else side / 2 + 0.2
            ax.text(
                k + place, j, f"{values[j, k]:.2f}", color=colour, ha="center", va="center",
                fontsize=LEGEND_SIZE,
            )  # fmt: skip
    ax.set_xlim(-0.5, factors - 0.5)
    ax.set_ylim(latents - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xticks(range(factors), labels=[shorten(name, 14) for name in frame.columns])
    ax.set_yticks(range(latents), labels=[shorten(name, 14) for name in frame.index])
    ax.tick_params(length=0)
    label_axes(ax, title, "factor\n(area: share of its variance that the latent adds)", "latent")
    return ax
