"""Names written on a picture where they can be read: close to their points, not on each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes

ROUNDS = 200
GAP = 8.0  # points between two names: 7 beside 1 must not read 71


def write_apart(ax: Axes, places: Mapping[str, Any]) -> None:
    """Write each name at its place, and move those apart that would hide each other.

    A name that had to move is tied to its place by a thin line. The limits of the axes stay as
    they are now.

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
    ax.figure.canvas.figure.draw_without_rendering()  # only now are the sizes known
    boxes = [text.get_window_extent() for text in texts]
    sizes = np.array([(box.width, box.height) for box in boxes]) + GAP * ax.figure.dpi / 72
    start = ax.transData.transform(np.array(list(places.values()), dtype=float))
    inside = ax.get_window_extent()
    moved = _apart(start, sizes, np.array([inside.p0, inside.p1]))
    for text, old, new, box in zip(texts, start, moved, sizes, strict=True):
        x, y = ax.transData.inverted().transform([old, new]).T
        text.set_position((x[1], y[1]))
        if np.abs(new - old).max() > box[1] / 2:
            ax.plot(x, y, color="0.2", linewidth=0.8, zorder=text.get_zorder() - 0.5)


def _apart(centers: np.ndarray, sizes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Centers of boxes that no longer overlap, moved as little as it takes: (names, 2)."""
    centers = centers.copy()
    for _ in range(ROUNDS):
        still = True
        for i in range(len(centers)):
            for j in range(i):
                apart = centers[i] - centers[j]
                overlap = (sizes[i] + sizes[j]) / 2 - np.abs(apart)
                if (overlap > 1e-3).all():  # push them apart where it takes the least
                    axis = int(overlap.argmin())
                    push = overlap[axis] / 2 * (1.0 if apart[axis] >= 0 else -1.0)
                    centers[i, axis] += push
                    centers[j, axis] -= push
                    still = False
        centers = np.clip(centers, limits[0] + sizes / 2, limits[1] - sizes / 2)
        if still:
            break
    return centers
