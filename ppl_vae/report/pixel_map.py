"""A map of the pixels at which a statistic of images lies outside its replicates."""

import math
from typing import Any

import numpy as np

from ppl_vae.checks.predictive_checks import PredictiveCheck
from ppl_vae.plots.verdict import half_widths
from ppl_vae.report.figures import Figure
from ppl_vae.report.images import ImageField

FARTHEST = 3.0  # half widths of an interval; pixels beyond have the same colour


def pixel_map(check: PredictiveCheck, key: Any, image: ImageField | None) -> Figure | None:
    """Draw where in the image a statistic of single pixels lies outside its replicates.

    Args:
        check: The check.
        key: Site and name of the statistic.
        image: The field that holds images; ``None`` for none.

    Returns:
        The map, of each pixel's channel that lies farthest out; ``None`` where the site has no
        images of that shape, or the statistic is of pairs of pixels.
    """
    site, statistic = key
    names = check.features_of.get(site, [])
    if image is None or math.prod(image.shape) != len(names):
        return None
    lines = check.features.loc[(site, statistic)]
    if not set(names) <= set(lines.index):
        return None
    places = half_widths(lines.loc[names]).reshape(image.shape)
    farthest = np.abs(places).argmax(axis=0)[None]
    flat = np.take_along_axis(places, farthest, axis=0)[0]
    outside = int((np.abs(flat) > 1).sum())
    caption = (
        f"Where the {statistic} of a pixel lies outside the central 90 % of its replicates "
        f"({outside} of {flat.size} pixels): higher in the data in orange, lower in blue. Single "
        "pixels lie outside by chance; shapes do not."
    )
    height = min(max(3.4 * flat.shape[0] / flat.shape[1], 1.5), 4.5)
    return Figure.drawn(lambda ax: _draw(ax, flat), caption, caption, height=height)


def _draw(ax: Any, places: np.ndarray) -> None:
    """Draw the distance of each pixel, (height, width), in half widths of the interval."""
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415  loads slowly

    inside = np.where(np.abs(places) <= 1, np.nan, places)
    colours = ["#0b5394", "#8db9e2", "#f3d9c5", "#d55e00"]
    scale = LinearSegmentedColormap.from_list("outside", colours).with_extremes(bad="#e6e6e6")
    drawn = ax.imshow(inside, cmap=scale, vmin=-FARTHEST, vmax=FARTHEST, interpolation="nearest")
    bar = ax.figure.colorbar(drawn, ax=ax, ticks=[-3, -1, 0, 1, 3], shrink=0.9)
    bar.ax.set_yticklabels(["\N{MINUS SIGN}3 or less", "\N{MINUS SIGN}1", "0", "1", "3 or more"])
    bar.outline.set_visible(False)
    ax.set_xlabel("half widths of the interval from its middle")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
