"""What do the rows look like: images side by side in a grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ppl_vae.arguments import check_count
from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import BLUE, axes_or_new


def image_grid(
    images: Mapping[str, Any] | Any,
    *,
    columns: int = 10,
    shape: tuple[int, int] | None = None,
    low: float | None = None,
    high: float | None = None,
    column_labels: Sequence[str] | None = None,
    framed: Mapping[str, int] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw images side by side in a grid: low values are white, high values are black.

    Args:
        images: (n, height, width), (n, 1, height, width), or (n, features) with ``shape``. Images
            fill the grid row by row. A mapping ``{label: images}`` gives each label one row of the
            grid.
        columns: Number of images in a row of the grid; not used for a mapping, whose longest entry
            decides.
        shape: Height and width of one image, for images that come as vectors.
        low: Value drawn white; the smallest by default.
        high: Value drawn black; the largest by default.
        column_labels: Text below each column of the grid.
        framed: Of a mapping, the column of one image that gets a frame, by label.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: If the values are no images of the given shape, the images differ in size, or
            the number of labels is not the number of columns; if ``framed`` names no image.

    Example:
        >>> rows = {"original": torch.rand(4, 64), "reconstruction": torch.rand(4, 64)}
        >>> ax = image_grid(rows, shape=(8, 8), column_labels=["3", "1", "4", "1"])
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['original', 'reconstruction']
    """
    check_count("columns", columns)
    strips = _strips(images, columns, shape)
    height, width = strips[0][1].shape[1:]
    columns = max(len(strip) for _, strip in strips)
    if column_labels is not None and len(column_labels) != columns:
        raise ValueError(
            f"column_labels: expected one for each of the {columns} columns, got "
            f"{len(column_labels)}"
        )
    pad = max(1, height // 8)
    named = isinstance(images, Mapping)
    ax = axes_or_new(ax, 0.62 * columns + (1.6 if named else 0.3), 0.62 * len(strips) + 0.5)
    colours = mpl.colormaps["Greys"].with_extremes(bad="#dbe4ee")
    canvas = _canvas([strip for _, strip in strips], columns, pad)
    ax.imshow(canvas, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    below = column_labels or []
    ax.set_xticks(_centers(len(below), width, pad), labels=below)
    left = [label for label, _ in strips] if named else []
    ax.set_yticks(_centers(len(left), height, pad), labels=left)
    for label, column in (framed or {}).items():
        strip = left.index(label) if label in left else -1
        if strip < 0 or not 0 <= column < len(strips[strip][1]):
            raise ValueError(f'framed: expected the column of an image, got {column} for "{label}"')
        corner = (width + pad) * column + pad / 2 - 0.5, (height + pad) * strip + pad / 2 - 0.5
        ax.add_patch(
            Rectangle(corner, width + pad, height + pad, fill=False, color=BLUE, linewidth=1.6)
        )
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    return ax


def _strips(
    images: Any, columns: int, shape: tuple[int, int] | None
) -> list[tuple[str, np.ndarray]]:
    """Return the label and the images of each row of the grid.

    The images of a row are (images, height, width); height and width are the same in all rows.
    """
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
            f"images: expected one height and width for all, got {sizes}; draw one "
            "figure for each size"
        )
    return strips


def _as_images(values: Any, shape: tuple[int, int] | None, where: str) -> np.ndarray:
    """Return (images, height, width), or raise ``ValueError`` that names the argument."""
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
    """Return one picture of all images, with NaN between the images.

    Args:
        strips: (images, height, width) for each row of the grid.
        columns: Images in the longest row.
        pad: Pixels between two images.
    """
    height, width = strips[0].shape[1:]
    canvas = np.full((len(strips) * (height + pad) + pad, columns * (width + pad) + pad), np.nan)
    for i, strip in enumerate(strips):
        for j, image in enumerate(strip):
            top, left = pad + i * (height + pad), pad + j * (width + pad)
            canvas[top : top + height, left : left + width] = image
    return canvas


def _centers(count: int, size: int, pad: int) -> list[float]:
    """Return the middle of each of ``count`` images along one side of the picture, in pixels."""
    return [pad + i * (size + pad) + (size - 1) / 2 for i in range(count)]
