"""Pages of HTML that need nothing else: words, tables that sort, figures inside the page.

Whatever is not ``Markup`` is somebody's text and is escaped. The page loads nothing: style and
script stand in it, figures are PNG images in it, and its policy forbids everything else.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import io
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VOID = ("img", "link", "meta")
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
SHARPNESS = 200  # dots an inch of figure; one is shown 100 CSS pixels wide
MINUS, DASH, TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
SPACE, THIN = "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}"
RAISED = str.maketrans(
    "-0123456789",
    "\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ZERO}\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}"
    "\N{SUPERSCRIPT THREE}\N{SUPERSCRIPT FOUR}\N{SUPERSCRIPT FIVE}\N{SUPERSCRIPT SIX}"
    "\N{SUPERSCRIPT SEVEN}\N{SUPERSCRIPT EIGHT}\N{SUPERSCRIPT NINE}",
)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True)
class Number:
    """A number as people read it, and as tables sort it.

    Attributes:
        value: The number.
        text: What is shown.
    """

    value: float
    text: str

    def __str__(self) -> str:
        return self.text


def number(value: float, digits: int = 4) -> Number:
    """A number of so many significant digits.

    Example:
        >>> number(0.0123456).text, number(12.0).value
        ('0.01235', 12.0)
    """
    value = float(value)
    text = f"{value:.{digits}g}"
    if math.isfinite(value) and 1e4 <= abs(value) < 1e7:
        text = f"{value:,.0f}".replace(",", THIN)
    return Number(value, _typeset(value, text))


def decimal(value: float, places: int = 3) -> Number:
    """A number of so many decimal places."""
    grouped = "," if abs(value) >= 1e4 else ""
    text = f"{float(value):z{grouped}.{places}f}".replace(",", THIN)
    return Number(float(value), _typeset(float(value), text))


def alike(values: Sequence[float], spread: float) -> list[Number]:
    """Numbers of one quantity, with the decimals that tell three digits of their spread.

    Example:
        >>> [shown.text for shown in alike([1.86, 2.1861], 0.29)]
        ['1.860', '2.186']
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if not 1e-5 < spread < math.inf or largest >= 1e7:
        return [number(value) for value in values]
    places = min(max(2 - math.floor(math.log10(spread)), 0), 7)
    return [decimal(value, places) for value in values]


def percent(count: int, of: int) -> str:
    """A share in whole percent, never 0 % of some."""
    share = 100 * count / of
    if 0 < share < 1:
        return f"under 1{SPACE}%"
    return f"{share if count == of else min(share, 99):.0f}{SPACE}%"


def brief(text: str, length: int = 40) -> str:
    """A text cut to a length, its beginning and end kept.

    Example:
        >>> brief("from the beginning to the end", 15).startswith("from the")
        True
    """
    if len(text) <= length:
        return text
    tail = length // 3
    return f"{text[: length - tail - 1]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element of HTML; ``class_`` and ``aria_label`` stand for class and aria-label.

    Args:
        tag: Its name.
        children: Markup, or anything else, whose text is escaped; ``None`` is left out.
        attributes: Values are escaped; those of ``None`` are left out, ``True`` stands alone.

    Example:
        >>> element("p", "a < b ", element("b", "c"), class_="note")
        '<p class="note">a &lt; b <b>c</b></p>'
    """
    shown = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Markup(f"<{tag}{shown}>")
    inside = "".join(escaped(child) for child in children if child is not None)
    return Markup(f"<{tag}{shown}>{inside}</{tag}>")


def escaped(value: object) -> Markup:
    """The text of a value, harmless; markup as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Iterable[object]) -> Markup:
    """Parts one after the other."""
    return Markup("\n".join(escaped(part) for part in parts))


def paragraphs(*texts: str) -> Markup:
    """Each text as a paragraph."""
    return join(element("p", text) for text in texts)


def note(*children: object) -> Markup:
    """Something that could not be done, and why."""
    return element("p", *children, class_="note")


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Names and what they are."""
    lines = [element("dt", name) + element("dd", value) for name, value in pairs]
    return element("dl", Markup("".join(lines)), class_="facts")


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    marked: Iterable[bool] = (),
    foot: Sequence[object] = (),
) -> Markup:
    """A table whose headings sort it.

    Args:
        caption: What it shows.
        columns: Headings.
        rows: Cells: ``Number``, ``Markup`` or text.
        marked: Which rows to mark, from the first on.
        foot: A last row that stays last, of all of them together.
    """
    lines = [list(row) for row in rows]
    numeric = [any(isinstance(row[i], Number) for row in lines) for i in range(len(columns))]
    kinds = ["num" if is_number else None for is_number in numeric]
    heads = [
        element("th", name, scope="col", class_=kind)
        for name, kind in zip(columns, kinds, strict=True)
    ]
    marks = [*marked] + [False] * len(lines)
    body = [
        element("tr", *map(_cell, row, kinds), class_="marked" if mark else None)
        for row, mark in zip(lines, marks, strict=False)
    ]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", join(body)),
        element("tfoot", element("tr", *map(_cell, foot, kinds))) if foot else None,
        class_="sortable" if len(lines) > 1 else None,
    )
    return element("div", made, class_="scroll", tabindex=0, role="region", aria_label=caption)


def figure(
    draw: Callable[[Axes], Any],
    alt: str,
    caption: object = None,
    *,
    size: tuple[float, float] = (6.4, 4.1),
) -> Markup:
    """A figure as an image in the page.

    Args:
        draw: Draws on the axes that it is given.
        alt: What there is to see, in words.
        caption: What stands below.
        size: Width and height in inches, of 100 CSS pixels each.
    """
    image = element(
        "img",
        src="data:image/png;base64," + base64.b64encode(_png(draw, size)).decode(),
        alt=alt,
        width=round(100 * size[0]),
        height=round(100 * size[1]),
    )
    below = None if caption is None else element("figcaption", caption)
    return element("figure", element("div", image, class_="card"), below)


def code(text: str) -> Markup:
    """A program's text."""
    return element("pre", element("code", text), tabindex=0)


def section(identity: str, title: str, *parts: object) -> Markup:
    """A part of the page that its contents link to."""
    heading = element("h2", title, id=f"{identity}-title")
    inside = join([heading, *(part for part in parts if part is not None)])
    return element("section", inside, id=identity, aria_labelledby=f"{identity}-title")


def page(title: str, header: Markup, sections: Sequence[tuple[str, str, Markup]]) -> str:
    """A whole page.

    Args:
        title: The window's title.
        header: What stands on top, with the one ``h1``.
        sections: Identity, title and contents of each section.
    """
    links = [element("li", element("a", name, href=f"#{key}")) for key, name, _ in sections]
    contents = element("nav", element("ul", *links), aria_label="Contents")
    parts = [section(key, name, body) for key, name, body in sections]
    main = element("main", header, *parts)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(_asset("report.css"))),
    )
    script = element("script", Markup(_asset("report.js")))
    body = element("body", element("div", contents, main, class_="page"), script)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _typeset(value: float, text: str) -> str:
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}\N{INFINITY}"
    mantissa, exponent, power = text.partition("e")
    mantissa = mantissa.replace("-", MINUS)
    raised = str(int(power)).translate(RAISED) if exponent else ""
    return f"{mantissa}{THIN}{TIMES}{THIN}10{raised}" if exponent else mantissa


def _attribute(name: str, value: object) -> str:
    if value is None:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def _cell(value: object, kind: str | None) -> Markup:
    sorted_by = repr(value.value) if isinstance(value, Number) else None
    return element("td", value, class_=kind, data_value=sorted_by)


def _png(draw: Callable[[Axes], Any], size: tuple[float, float]) -> bytes:
    """A figure in matplotlib's own style, whatever the program has set; names are no formulas."""
    import matplotlib as mpl  # noqa: PLC0415  loads slowly
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    content = io.BytesIO()
    with style.context("default"), mpl.rc_context({"text.parse_math": False}):
        made = Figure(figsize=size, layout="constrained")
        draw(made.subplots())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            made.savefig(content, format="png", dpi=SHARPNESS, metadata={"Software": None})
    return content.getvalue()


def _asset(name: str) -> str:
    return (importlib.resources.files("ppl_vae.report") / name).read_text(encoding="utf-8")


def capital(text: str) -> str:
    """With a capital at its beginning, and the rest as it is."""
    return text[:1].upper() + text[1:]
