"""The common look of all figures: colours, marks, axes, legends, and short texts.

Every figure has the observed data in dark blue, what is flagged in orange, and what the model
makes in grey. Groups differ in shape as well as in colour, so that a figure reads in grey. The
legend stands between the title and the axes: it never hides data, and no function has to make room
for its legend inside the axes.
"""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

BLUE, PALE_BLUE, ORANGE = "#0b5394", "#8db9e2", "#d55e00"
INK = "0.25"  # edges of bars and lines of reference
GREY, PALE_GREY, BAND = "0.6", "0.75", "0.9"

SERIES = (("#0b5394", "o"), ("#117733", "s"), ("#882255", "D"), ("0.3", "v"), ("#aa4499", "^"))
"""Colour and marker of each line in a figure of a few named lines."""

GROUP_COLOURS = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933",
    "#ddcc77", "#cc6677", "#882255", "#aa4499", "#777777",
)  # fmt: skip
GROUP_MARKERS = "os^DvPX<>*"

LEGEND_SIZE = 9  # points
_LEGEND_LINE = 15.5  # points from one line of a legend to the next


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the given axes, or the axes of a new figure.

    Args:
        ax: Axes of the caller; ``None`` makes a figure.
        width: Width of a new figure, in inches.
        height: Height of a new figure, in inches.
    """
    return ax or plt.subplots(figsize=(width, height), layout="constrained")[1]


def label_axes(
    ax: Axes, title: str, x: str, y: str = "", *, grid: bool = False, left: bool = True
) -> None:
    """Write the title and the names of both axes, and take away the frame on top and at the right.

    Args:
        ax: The axes.
        title: Title of the picture.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        grid: Whether to draw pale lines at the ticks.
        left: Whether the vertical axis has a line and tick marks; without, its labels are names.
    """
    ax.set_title(title)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(alpha=0.25)
    if not left:
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)


def legend_above(ax: Axes, *, marker_scale: float = 1.0) -> None:
    """Put the legend between the title and the axes.

    All entries stand side by side where they have room, otherwise in as many columns as the
    longest entry allows. Widths are estimated from the number of characters. Call this function
    after ``label_axes``, because the title moves up by the height of the legend.

    Args:
        ax: The axes, whose drawn marks have labels.
        marker_scale: Size of the legend's markers, as a multiple of the drawn ones.
    """
    labels = ax.get_legend_handles_labels()[1]
    room = 72 * ax.get_window_extent().width / ax.figure.dpi  # points
    widths = [LEGEND_SIZE * (4.6 + 0.5 * len(label)) for label in labels]
    columns = max(1, len(labels))
    if sum(widths) > room:
        columns = max(1, int(room / max(widths)))
    ax.legend(
        frameon=False, fontsize=LEGEND_SIZE, ncols=columns, markerscale=marker_scale,
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=1.8,
    )  # fmt: skip
    lines = -(-len(labels) // columns)
    ax.set_title(ax.get_title(), pad=8 + _LEGEND_LINE * lines)


def whole_ticks(axis: Axis, most: int = 10) -> None:
    """Put ticks at whole numbers only.

    Args:
        axis: ``ax.xaxis`` or ``ax.yaxis``.
        most: Number of intervals between ticks, at most.
    """
    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def shorten(name: object, length: int) -> str:
    """Return the text of a name, cut to ``length`` characters with an ellipsis at the end.

    Example:
        >>> shorten("alcohol", 24), shorten("proanthocyanins", 8)
        ('alcohol', 'proanth…')
    """
    text = str(name)
    return text if len(text) <= length else text[: length - 1] + "…"


def percent(share: float, digits: int = 0) -> str:
    """Return a share as text in percent, and never a rare thing as 0 %.

    Args:
        share: From 0 to 1.
        digits: Digits after the decimal point.

    Example:
        >>> percent(0.254), percent(0.0004), percent(0.002, 1), percent(0.0)
        ('25 %', 'under 1 %', '0.2 %', '0 %')
    """
    least = 10.0**-digits  # percent
    if 0 < 100 * share < least / 2 or (digits == 0 and 0 < 100 * share < 1):
        return f"under {least:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"
