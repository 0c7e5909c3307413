"""What do the rows look like: images in a grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ppl_vae.plots.arrays import as_array


def image_grid(
    images: Mapping[str, Any] | Any,
    *,
    columns: int = 10,
    shape: tuple[int, int] | None = None,
    low: float | None = None,
    high: float | None = None,
    column_labels: Sequence[str] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw images side by side, ink dark on white.

    Args:
        images: (n, height, width), (n, 1, height, width), or (n, features) with ``shape``; laid
            out row by row. A mapping ``{label: images}`` gives each label one row of the grid.
        columns: Images in a row of the grid (with a mapping: as many as its longest entry).
        shape: Height and width of one image, for rows that are vectors.
        low: Value drawn white; the smallest by default.
        high: Value drawn black; the largest by default.
        column_labels: What is written below each column of the grid.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: Where the values are no images of the given shape or of one size, or the
            labels are not as many as the columns.

    Example:
        >>> rows = {"original": torch.rand(4, 64), "reconstruction": torch.rand(4, 64)}
        >>> ax = image_grid(rows, shape=(8, 8), column_labels=["3", "1", "4", "1"])
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['original', 'reconstruction']
    """
    if columns < 1:
        raise ValueError(f"columns: expected 1 or more, got {columns}")
    strips = _strips(images, columns, shape)
    width, height = strips[0][1].shape[2], strips[0][1].shape[1]
    columns = max(len(strip) for _, strip in strips)
    if column_labels is not None and len(column_labels) != columns:
        raise ValueError(
            f"column_labels: expected one for each of the {columns} columns, got "
            f"{len(column_labels)}"
        )
    pad = max(1, height // 8)
    named = isinstance(images, Mapping)
    if ax is None:
        size = (0.62 * columns + (1.6 if named else 0.3), 0.62 * len(strips) + 0.5)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    colours = plt.get_cmap("Greys").with_extremes(bad="#dbe4ee")
    canvas = _canvas([strip for _, strip in strips], columns, pad)
    ax.imshow(canvas, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    below = column_labels or []
    ax.set_xticks(_centers(len(below), width, pad), labels=below)
    beside = [label for label, _ in strips] if named else []
    ax.set_yticks(_centers(len(beside), height, pad), labels=beside)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    return ax


def _strips(
    images: Any, columns: int, shape: tuple[int, int] | None
) -> list[tuple[str, np.ndarray]]:
    """The rows of the grid, with their labels: (images, height, width) each, of one size."""
    if not isinstance(images, Mapping):
        stack = _as_images(images, shape, "images")
        starts = range(0, len(stack), columns)
        return [("", stack[start : start + columns]) for start in starts]
    if not images:
        raise ValueError("images: expected a label and its images, got an empty mapping")
    strips = [
        (str(label), _as_images(values, shape, f"images[{label!r}]"))
        for label, values in images.items()
    ]
    sizes = {label: strip.shape[1:] for label, strip in strips}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"images: expected one height and width for all, got {sizes}; draw them apart"
        )
    return strips


def _as_images(values: Any, shape: tuple[int, int] | None, where: str) -> np.ndarray:
    array = as_array(values, where)
    if shape is not None and array.ndim == 2 and array.shape[1] == shape[0] * shape[1]:
        array = array.reshape(-1, *shape)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"{where}: expected (n, height, width), or (n, features) with shape=, got "
            f"{array.shape} with shape={shape}"
        )
    return array


def _canvas(strips: list[np.ndarray], columns: int, pad: int) -> np.ndarray:
    """All images on one picture, NaN between them."""
    height, width = strips[0].shape[1:]
    canvas = np.full((len(strips) * (height + pad) + pad, columns * (width + pad) + pad), np.nan)
    for i, strip in enumerate(strips):
        for j, image in enumerate(strip):
            top, left = pad + i * (height + pad), pad + j * (width + pad)
            canvas[top : top + height, left : left + width] = image
    return canvas


def _centers(count: int, size: int, pad: int) -> list[float]:
    """Where the images lie along one side of the picture, in pixels."""
    return [pad + i * (size + pad) + (size - 1) / 2 for i in range(count)]
