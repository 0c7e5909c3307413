"""Figures of matplotlib as SVG inside a page, in the colours of the page.

A figure is drawn 4.8 inches wide, which is the width of a telephone: 346 points, so that its
letters of 9 or 10 points are as many pixels high there. The colours of ``ppl_vae.plots`` become
variables of the page's style, which has other values for a dark screen. Text stays text, in the
font of the page. A figure of very many points is a PNG image instead, on a white card.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ppl_vae.plots import style
from ppl_vae.report.html import render
from ppl_vae.report.numbers import DASH, Drawing, Number
from ppl_vae.safe_text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.8  # inches of a figure, of 100 CSS pixels each
DOTS_PER_INCH = 200  # of a PNG image, which is shown at 100 CSS pixels per inch
MOST_BYTES = 300_000  # of a figure in SVG; one that has more is a PNG image
LETTERS = 54  # in one line of an axis's name or of a legend
FARTHEST = 3.5  # half widths of an interval; a value beyond is an arrow
SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar sign in a column's name starts no formula
    "svg.fonttype": "none",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
COLOURS = {
    "black": "currentColor", "white": "var(--paper)", style.INK: "var(--fig-ink)",
    style.BLUE: "var(--fig-blue)", style.PALE_BLUE: "var(--fig-pale-blue)",
    style.ORANGE: "var(--fig-orange)", style.GREY: "var(--fig-grey)",
    style.PALE_GREY: "var(--fig-pale-grey)", style.BAND: "var(--fig-band)",
    **{colour: f"var(--fig-series-{i})" for i, (colour, _) in enumerate(style.SERIES) if i},
}  # fmt: skip
"""What stands in the page for each colour of ``ppl_vae.plots``; report.css has the variables."""


class Figure(NamedTuple):
    """A figure inside the page, or the reason why it could not be drawn.

    Attributes:
        svg: The figure as SVG; empty where it is an image.
        image: The figure as a PNG image, a ``data:`` address; empty where it is SVG.
        alt: What there is to see, in words.
        caption: Text below the figure; empty for none.
        width: Width in CSS pixels.
        height: Height in CSS pixels.
        error: Why the figure could not be drawn; empty where it was drawn.
    """

    svg: Markup
    image: str
    alt: str
    caption: str
    width: int
    height: int
    error: str = ""

    @classmethod
    def drawn(
        cls, draw: Callable[[Axes], Any], alt: str, caption: str = "", *, height: float = 3.2
    ) -> Figure:
        """Draw a figure.

        Args:
            draw: Draws on the axes that it receives; a title that it sets is left out, because the
                page has headings. A ``ValueError``, such as for values that are not finite, is
                shown in place of the figure.
            alt: What there is to see, in words.
            caption: Text below the figure.
            height: Height in inches, of 100 CSS pixels each.
        """
        size = round(100 * WIDTH), round(100 * height)
        try:
            svg, image = _rendered(draw, height, alt)
        except ValueError as error:
            return cls(Markup(), "", alt, caption, *size, str(error))
        return cls(svg, image, alt, caption, *size)


def strip(distance: float, *, flagged: bool) -> Number:
    """Draw where an observed value lies beside the central interval of its replicates.

    Args:
        distance: From the middle of the interval, in half widths; more than 3.5 is an arrow.
        flagged: Whether the value is flagged, which has another colour and shape.

    Example:
        >>> "flagged" in strip(2.0, flagged=True).text
        True
    """
    if math.isnan(distance):
        return Number(distance, DASH)
    place = round(60 + 15 * min(max(distance, -4.0), 4.0), 1)
    beyond = abs(distance) > FARTHEST
    return Drawing(distance, render("strip.html", x=place, flagged=flagged, beyond=beyond))


def bars(values: Sequence[float]) -> list[Drawing]:
    """Draw numbers as bars from a common zero, of which a small one is seen beside a large one.

    The length of a bar is the square root of the number's size. A number that is not finite has no
    bar.

    Example:
        >>> [bar.value for bar in bars([-1.0, -100.0])]
        [-1.0, -100.0]
    """
    lengths = [math.copysign(math.sqrt(abs(v)), v) if math.isfinite(v) else 0.0 for v in values]
    low, high = min(0.0, *lengths), max(0.0, *lengths)
    scale = 158 / ((high - low) or 1.0)
    zero = 1 - low * scale
    ends = [round(zero + length * scale, 1) for length in lengths]
    drawn = [render("bar.html", zero=round(zero, 1), end=end) for end in ends]
    return [Drawing(value, text) for value, text in zip(values, drawn, strict=True)]


def _rendered(draw: Callable[[Axes], Any], height: float, alt: str) -> tuple[Markup, str]:
    """Return a figure as SVG, or as a PNG image; the other of the two is empty.

    The style is matplotlib's default, whatever the user has set. A name may hold characters that
    matplotlib's font lacks, of which it warns with a plain ``UserWarning`` while it renders; the
    browser shows them in its own fonts, so warnings of the rendering alone are ignored.
    """
    import matplotlib as mpl  # noqa: PLC0415  loads slowly
    from matplotlib import style as styles  # noqa: PLC0415
    from matplotlib.figure import Figure as MatplotlibFigure  # noqa: PLC0415

    content = io.BytesIO()
    # Names of parts of a figure are made from the salt: two figures of a page share none.
    with styles.context("default"), mpl.rc_context({**SETTINGS, "svg.hashsalt": alt}):
        figure = MatplotlibFigure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        _fit_to_width(axes)
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
            if content.tell() <= MOST_BYTES:
                return _inline(content.getvalue().decode(), alt), ""
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return Markup(), "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _fit_to_width(axes: Axes) -> None:
    """Take the title away, which the page has as a heading, and wrap the other texts."""
    axes.set_title("")
    for axis in (axes.xaxis, axes.yaxis):
        lines = axis.get_label_text().splitlines()
        axis.set_label_text("\n".join(textwrap.fill(line, LETTERS) for line in lines))
    for text in legend.get_texts() if (legend := axes.get_legend()) else ():
        text.set_text(textwrap.fill(text.get_text(), LETTERS))


def _inline(svg: str, alt: str) -> Markup:
    """Return matplotlib's SVG file as an element of a page, in the colours and font of the page."""
    from matplotlib.colors import to_hex  # noqa: PLC0415  loads slowly

    body = svg[svg.index("<svg") :]
    (view,) = re.findall(r'viewBox="([^"]*)"', body[: body.index(">")])
    body = body[body.index("</defs>") + len("</defs>") :]  # after the metadata and the style
    names = {to_hex(colour): name for colour, name in COLOURS.items()}
    body = re.sub(
        r'style="([^"]*)"', lambda found: f'style="{_in_page_style(found[1], names)}"', body
    )
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r">\s+<", "><", body)
    width, height = (round(float(side) / 0.72) for side in view.split()[2:])
    return Markup(
        f'<svg viewBox="{view}" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(printable(alt))}">{printable(body)}'
    )


def _in_page_style(declarations: str, names: dict[str, str]) -> str:
    """Return the style of one element, with the page's colours and without a font's name."""
    kept = re.sub(r"font-family:[^;]*;? ?", "", declarations)
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: names.get(found[0], found[0]), kept)
