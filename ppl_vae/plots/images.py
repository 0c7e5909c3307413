"""What do the rows look like: images in a grid."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes


def image_grid(
    images: Mapping[str, Any] | Any,
    *,
    columns: int = 10,
    shape: tuple[int, int] | None = None,
    low: float | None = None,
    high: float | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw images side by side, ink dark on white.

    Args:
        images: (n, height, width), or (n, features) with ``shape``; laid out row by row. A
            mapping ``{label: images}`` gives each label one row of the grid.
        columns: Images in a row of the grid (with a mapping: as many as its longest entry).
        shape: Height and width of one image, for rows that are vectors.
        low: Value drawn white; the smallest by default.
        high: Value drawn black; the largest by default.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: Where the values are no images of the given shape.
    """
    if isinstance(images, Mapping):
        strips = {label: _as_images(values, shape) for label, values in images.items()}
        columns = max(len(strip) for strip in strips.values())
        labels = list(strips)
    else:
        stack = _as_images(images, shape)
        starts = range(0, len(stack), columns)
        columns = min(columns, len(stack))
        strips = {str(start): stack[start : start + columns] for start in starts}
        labels = []
    height, width = next(iter(strips.values())).shape[1:]
    pad = max(1, height // 8)
    canvas = np.full((len(strips) * (height + pad) + pad, columns * (width + pad) + pad), np.nan)
    for i, strip in enumerate(strips.values()):
        for j, image in enumerate(strip):
            top, left = pad + i * (height + pad), pad + j * (width + pad)
            canvas[top : top + height, left : left + width] = image
    if ax is None:
        size = (0.62 * columns + (1.6 if labels else 0.3), 0.62 * len(strips) + 0.5)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    colours = plt.get_cmap("Greys").with_extremes(bad="#dbe4ee")
    ax.imshow(canvas, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    ax.set_xticks([])
    centers = [pad + i * (height + pad) + height / 2 for i in range(len(labels))]
    ax.set_yticks(centers, labels=labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    return ax


def _as_images(values: Any, shape: tuple[int, int] | None) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if shape is not None and array.ndim == 2 and array.shape[1] == shape[0] * shape[1]:
        array = array.reshape(-1, *shape)
    if array.ndim != 3 or len(array) == 0:
        raise ValueError(
            f"images: expected (n, height, width), or (n, features) with shape=, got "
            f"{array.shape} with shape={shape}"
        )
    return array
