"""Names on a picture, written close to their points and not over each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes

MAX_ROUNDS = 200
GAP = 8.0  # points between two names, so that 7 beside 1 does not read 71


def write_apart(ax: Axes, places: Mapping[str, Any]) -> None:
    """Write each name at its place, and move names apart that would hide each other.

    A thin line joins a name that had to move with its place. The limits of the axes are fixed at
    what they are now, because places of names are computed in pixels.

    Args:
        ax: Where to write.
        places: ``{name: (x, y)}``, in the data's units.
    """
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())
    size = 15 if max(map(len, places)) <= 2 else 11 if len(places) <= 20 else 8
    texts = [
        ax.text(
            place[0], place[1], name, fontsize=size, fontweight="bold", ha="center", va="center"
        )
        for name, place in places.items()
    ]
    for text in texts:
        text.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])
    ax.figure.canvas.figure.draw_without_rendering()  # to know the sizes of texts
    boxes = [text.get_window_extent() for text in texts]
    sizes = np.array([(box.width, box.height) for box in boxes]) + GAP * ax.figure.dpi / 72
    start = ax.transData.transform(np.array(list(places.values()), dtype=float))
    inside = ax.get_window_extent()
    moved = _without_overlap(start, sizes, np.array([inside.p0, inside.p1]))
    for text, old, new, box in zip(texts, start, moved, sizes, strict=True):
        x, y = ax.transData.inverted().transform([old, new]).T
        text.set_position((x[1], y[1]))
        if np.abs(new - old).max() > box[1] / 2:
            ax.plot(x, y, color="0.2", linewidth=0.8, zorder=text.get_zorder() - 0.5)


def _without_overlap(centers: np.ndarray, sizes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the centers of boxes after the boxes were moved until none overlaps another.

    Each round pushes every two boxes that overlap apart, half of the overlap each, along the axis
    where the overlap is smaller, and then moves all boxes back inside the limits.

    Args:
        centers: (names, 2) in pixels.
        sizes: (names, 2) widths and heights, in pixels.
        limits: (2, 2), the lower left and the upper right corner of the axes, in pixels.

    Returns:
        (names, 2) in pixels. Where the boxes have no room, some still overlap.
    """
    centers = centers.copy()
    for _ in range(MAX_ROUNDS):
        settled = True
        for i in range(len(centers)):
            for j in range(i):
                offset = centers[i] - centers[j]
                overlap = (sizes[i] + sizes[j]) / 2 - np.abs(offset)
                if (overlap > 1e-3).all():
                    axis = int(overlap.argmin())
                    push = overlap[axis] / 2 * (1.0 if offset[axis] >= 0 else -1.0)
                    centers[i, axis] += push
                    centers[j, axis] -= push
                    settled = False
        centers = np.clip(centers, limits[0] + sizes / 2, limits[1] - sizes / 2)
        if settled:
            break
    return centers
