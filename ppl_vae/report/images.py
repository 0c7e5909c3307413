"""Rows that are images: which field they are in, and images for a page."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from ppl_vae.arguments import shown
from ppl_vae.data.rows import Rows, as_tuple
from ppl_vae.data.steps import step_fields

IN_COLOUR = 3  # channels of an image in colour; one with another number is drawn in grey


@dataclass(frozen=True)
class ImageField:
    """The field of the data whose rows are images.

    Attributes:
        position: Position of the field.
        shape: Channels, height and width.
    """

    position: int
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, rows: Rows, image_shape: tuple[int, ...] | None = None) -> Self | None:
        """Find the first field whose rows are images; ``None`` for none.

        Args:
            rows: The data. Rows of a shape (channels, height, width) are images, and those of
                (height, width) unless they are sequences.
            image_shape: (height, width) or (channels, height, width) of rows that are vectors.

        Raises:
            ValueError: If no field has rows of so many numbers.
        """
        shapes = [tuple(field.array.shape[1:]) for field in rows.fields]
        if image_shape is not None:
            wanted = tuple(image_shape)
            for position, shape in enumerate(shapes):
                if math.prod(shape) == math.prod(wanted):
                    return cls(position, _with_channels(wanted))
            raise ValueError(
                f"image_shape: expected the shape of an image in the data, whose rows have the "
                f"shapes {', '.join(map(str, shapes))}; got {wanted}"
            )
        steps = step_fields(rows)
        for position, (name, shape) in enumerate(zip(rows.names, shapes, strict=True)):
            if len(shape) in (2, 3) and name not in steps and 0 not in shape:
                return cls(position, _with_channels(shape))
        return None

    def images(self, rows: Rows) -> np.ndarray:
        """Return the images of all rows, (rows, channels, height, width)."""
        values = as_tuple(rows.take(torch.arange(len(rows))))[self.position]
        return values.detach().cpu().double().numpy().reshape(-1, *self.shape)


def check_image_shape(image_shape: object) -> None:
    """Raise ``ValueError`` unless an argument is ``None`` or the shape of an image."""
    if image_shape is None:
        return
    sizes = image_shape if isinstance(image_shape, tuple | list) else ()
    if len(sizes) not in (2, 3) or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(
            "image_shape: expected (height, width) or (channels, height, width), got "
            f"{shown(image_shape)}"
        )


def _with_channels(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = shape if len(shape) == len("chw") else (1, *shape)
    return int(channels), int(height), int(width)


class Cell(NamedTuple):
    """One image of a page.

    Attributes:
        image: The image, a ``data:`` address.
        text: Text below it; empty for none.
    """

    image: str
    text: str = ""


class Strip(NamedTuple):
    """Images side by side.

    Attributes:
        title: What they are.
        cells: The images.
    """

    title: str
    cells: list[Cell]


def strips(lines: dict[str, np.ndarray], texts: dict[str, list[str]] | None = None) -> list[Strip]:
    """Return images for a page, all of them with the same white and the same black.

    Args:
        lines: Images side by side, by their title, (images, channels, height, width) each. The
            lowest value is white, the highest black; in colour, the lowest is dark. NaN is blue.
        texts: Text below each image, by the title.
    """
    values = np.concatenate([line.ravel() for line in lines.values()])
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    found = []
    for title, line in lines.items():
        below = (texts or {}).get(title, [""] * len(line))
        cells = [Cell(_png(each, low, high), text) for each, text in zip(line, below, strict=True)]
        found.append(Strip(title, cells))
    return found


def _png(image: np.ndarray, low: float, high: float) -> str:
    """Return one image, (channels, height, width), as the ``data:`` address of a PNG image."""
    import matplotlib as mpl  # noqa: PLC0415  loads slowly
    from matplotlib.image import imsave  # noqa: PLC0415

    content = io.BytesIO()
    options: dict[str, Any] = {"format": "png", "metadata": {"Software": None}}
    if len(image) == IN_COLOUR:
        level = np.nan_to_num((image - low) / ((high - low) or 1.0), posinf=1.0, neginf=0.0)
        imsave(content, level.clip(0, 1).transpose(1, 2, 0), **options)
    else:
        grey = mpl.colormaps["Greys"].with_extremes(bad="#8db9e2")
        high = high if high > low else low + 1.0
        imsave(content, image.mean(0), vmin=low, vmax=high, cmap=grey, **options)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
