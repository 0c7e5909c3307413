"""Figures as PNG images, for the HTML of a result in a notebook."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import matplotlib.style

DOTS_PER_INCH = 200  # of a figure, which is shown at 100 CSS pixels per inch: sharp when enlarged


class Image(NamedTuple):
    """A PNG image.

    Attributes:
        content: The file's bytes.
        width: Width in CSS pixels, of 100 per inch.
        height: Height in CSS pixels.
        title: Title of the figure, which says in words what there is to see.
    """

    content: bytes
    width: int
    height: int
    title: str

    @property
    def address(self) -> str:
        """The image as a ``data:`` address, which stands in a page."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode()


def png(draw: Callable[[], Any]) -> Image:
    """Draw a figure in matplotlib's default style, whatever the user has set, and return its image.

    Names of columns come from the user: a dollar sign in a name must not start a formula, and a
    name may hold characters that the font lacks. Matplotlib warns of such characters while it
    renders the figure, with a plain ``UserWarning``; an empty box stands for each, so warnings of
    the rendering alone are ignored.

    Args:
        draw: Draws on new axes and returns these.

    Example:
        >>> image = png(lambda: plt.subplots(figsize=(4, 3))[1])
        >>> image.width, image.height, image.content[1:4]
        (400, 300, b'PNG')
    """
    settings: Any = {"text.parse_math": False, "figure.max_open_warning": 0}
    with matplotlib.style.context("default"), mpl.rc_context(settings), _no_new_figures():
        return _image(draw().figure)


def _image(figure: Any) -> Image:
    """Return the image of a figure."""
    content = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    return Image(content.getvalue(), width, height, figure.axes[0].get_title())


def _no_new_figures() -> AbstractContextManager[Any]:
    """Make a context in which no figure is shown, and after which pyplot knows no new one."""
    before, stack = plt.get_fignums(), ExitStack()
    stack.enter_context(plt.ioff())  # also keeps a notebook from showing the figure a second time

    def close() -> None:
        for number in set(plt.get_fignums()) - set(before):
            plt.close(number)

    stack.callback(close)
    return stack
