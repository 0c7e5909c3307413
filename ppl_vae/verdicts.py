"""``verdict``: how a result prints, and how a notebook shows it.

A result class says once what there is to read, as lines and tables, in a method ``_content``. The
decorator makes of it

    str, repr      the text: lines, tables, lines
    _repr_html_    the same in HTML: what is flagged in colour, and below it the figure of ``plot``

A notebook calls ``_repr_html_`` by itself for the last value of a cell. Every text is escaped, so
that a column named ``<script>`` is shown as such a name. Text has the notebook's own colour, and a
flag is a pale mark behind it, so that both are readable on a dark page and on a white one; the
figure brings its own white ground. Styles stand in the tags, because many pages that show saved
notebooks drop style sheets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import pandas as pd
from markupsafe import Markup

from ppl_vae.safe_text import printable

MOST_ROWS = 30
"""Rows of a table that a notebook shows."""

GAP = 4  # columns of text between the longest label and what it stands for

Tone = Literal["plain", "title", "note", "good", "warning", "bad"]

_STYLES: dict[Tone, str] = {
    "plain": "",
    "title": "font-weight:600",
    "note": "opacity:.75",
    "good": "border-left:4px solid #2e9d4a;background:rgba(46,157,74,.16);padding:2px 8px",
    "warning": "border-left:4px solid #d98200;background:rgba(217,130,0,.20);padding:2px 8px",
    "bad": "border-left:4px solid #d93a3a;background:rgba(217,58,58,.20);padding:2px 8px",
}

_BLOCK = "margin:0 0 8px 0"
_CELL = "padding:2px 8px;vertical-align:top;white-space:pre-wrap;text-align:"
_CLEAR = "background:transparent"  # no stripes, which notebooks give to tables
_TABLE = "border-collapse:collapse;margin:0;font-size:inherit"


class Line(NamedTuple):
    """A line of text.

    Attributes:
        text: The text.
        tone: What kind of line it is; a notebook shows it by a colour, by the weight or the size.
        label: What the text stands for; the labels of neighbouring lines have one width.
    """

    text: str
    tone: Tone = "plain"
    label: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a result.

    Attributes:
        frame: Its numbers and texts.
        formats: How the floats are written, such as ``".3g"``; of all columns, or by column.
        caption: What it shows; empty for none.
        marked: Which rows are flagged, from the first one on.
        index: Whether the index is shown.
        missing: What stands for NaN.
    """

    frame: pd.DataFrame
    formats: str | Mapping[str, str] = ".3g"
    caption: str = ""
    marked: Sequence[bool] = ()
    index: bool = True
    missing: str = "NaN"

    def cells(self) -> pd.DataFrame:
        """Return the frame with every cell as the text that is shown."""
        columns = {
            place: [self._written(name, value) for value in self.frame.iloc[:, place]]
            for place, name in enumerate(self.frame.columns)
        }
        return pd.DataFrame(columns, index=self.frame.index).set_axis(self.frame.columns, axis=1)

    def _written(self, column: Any, value: Any) -> str:
        """Return the text of one cell."""
        if not isinstance(value, float):  # NumPy's float64 is one
            return str(value)
        if pd.isna(value):
            return self.missing
        formats = self.formats if isinstance(self.formats, str) else self.formats.get(column, ".4g")
        return format(value, formats)


Block = Table | list[Line]
"""A part of a result; blank lines stand between two parts."""


class Shown(Protocol):
    """A class of results that says what there is to read."""

    def _content(self) -> list[Block]: ...


T = TypeVar("T", bound=Shown)


def verdict(cls: type[T]) -> type[T]:
    """Give a class of results its text and its HTML, both made of ``_content``; a decorator.

    The figure in the HTML is that of the class's ``plot``, where it has one. A ``__repr__`` of the
    class's own remains. The decorator stands below ``@dataclass``, which keeps what it finds.

    Example:
        >>> @verdict
        ... class Count:
        ...     def _content(self) -> list[Block]:
        ...         return [[Line("2 of 3 rows < 0", "warning")]]
        >>> Count()
        2 of 3 rows < 0
        >>> "2 of 3 rows &lt; 0" in Count()._repr_html_()
        True
    """
    methods: dict[str, Any] = {"__str__": _text, "__repr__": _text, "_repr_html_": _html}
    for name, method in methods.items():
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls


def _text(self: Shown) -> str:
    """Return the result as text."""
    return printable("\n\n".join(map(_block_text, self._content())))


def _block_text(block: Block) -> str:
    """Return one part as text."""
    if isinstance(block, Table):
        text = block.cells().to_string(index=block.index)
        return f"{block.caption}\n{text}" if block.caption else text
    width = max(len(line.label) for line in block) + GAP
    return "\n".join(line.label.ljust(width) * bool(line.label) + line.text for line in block)


def _html(self: Shown) -> str:
    """Return the result as HTML, which a notebook shows."""
    parts = [_block_html(block) for block in self._content()]
    if hasattr(self, "plot"):
        parts.append(_figure(self.plot))
    return str(_tag("div", "line-height:1.45;max-width:1000px", *parts))


def _block_html(block: Block) -> Markup:
    """Return one part as HTML."""
    if isinstance(block, Table):
        return _table_html(block)
    labels = any(line.label for line in block)
    return _tag("div", _BLOCK, _facts(block) if labels else Markup().join(map(_line_html, block)))


def _line_html(line: Line) -> Markup:
    """Return a line of text as HTML."""
    return _tag("div", f"white-space:pre-wrap;{_STYLES[line.tone]}", line.text)


def _facts(lines: list[Line]) -> Markup:
    """Return lines with labels as HTML: a table of labels and texts."""
    title = [_line_html(line) for line in lines if not line.label]
    rows = [
        _tag(
            "tr", _CLEAR,
            _tag("td", f"{_CELL}left;white-space:nowrap;opacity:.75", line.label),
            _tag("td", f"{_CELL}left;{_STYLES[line.tone]}", line.text),
        )
        for line in lines
        if line.label
    ]  # fmt: skip
    return Markup().join([*title, _tag("table", _TABLE, *rows)])


def _table_html(table: Table) -> Markup:
    """Return a table as HTML: its first rows, and how many more there are."""
    cells, frame = table.cells(), table.frame
    sides = ["right" if kind.kind in "iuf" else "left" for kind in frame.dtypes]
    names = list(map(str, frame.columns))
    lines = list(cells.iloc[:MOST_ROWS].itertuples(index=False, name=None))
    if table.index:
        sides = ["left"] * frame.index.nlevels + sides
        names = ["" if name is None else str(name) for name in frame.index.names] + names
        labels = frame.index.to_frame().iloc[:MOST_ROWS].itertuples(index=False, name=None)
        lines = [(*map(str, own), *line) for own, line in zip(labels, lines, strict=True)]
    head = [
        _tag("th", f"{_CELL}{side};border-bottom:1px solid rgba(128,128,128,.6)", name)
        for side, name in zip(sides, names, strict=True)
    ]
    marked = [*table.marked, *[False] * (len(frame) - len(table.marked))]
    rows = [_row(line, sides, flagged) for line, flagged in zip(lines, marked, strict=False)]
    body = _tag("table", _TABLE, _tag("tr", "", *head), *rows)
    more, flags = len(frame) - len(lines), sum(marked[MOST_ROWS:])
    parts = [_line_html(Line(table.caption, "note"))] if table.caption else []
    parts.append(_tag("div", "overflow-x:auto", body))
    if more > 0:
        flagged = f", {flags} of them marked" if flags else ""
        parts.append(_line_html(Line(f"and {more} more rows{flagged}: print the result", "note")))
    return _tag("div", _BLOCK, *parts)


def _row(line: Sequence[str], sides: Sequence[str], flagged: bool) -> Markup:
    """Return a row of a table as HTML."""
    cells = [_tag("td", _CELL + side, text) for side, text in zip(sides, line, strict=True)]
    colour = _STYLES["warning"].partition(";padding")[0] if flagged else _CLEAR
    return _tag("tr", colour, *cells)


def _figure(plot: Any) -> Markup:
    """Return the figure as an image in the page, or why there is none."""
    from ppl_vae.plots.png import png  # noqa: PLC0415  matplotlib loads slowly

    try:
        image = png(plot)
    except ValueError as error:  # numbers that cannot be drawn, such as NaN
        return _line_html(Line(f"no figure: {error}", "note"))
    style = "max-width:100%;height:auto;background:#fff;border-radius:4px"
    return Markup('<img src="{}" alt="{}" width="{}" style="{}">').format(
        image.address, image.title, image.width, style
    )


def _tag(name: str, style: str, *content: str) -> Markup:
    """Return an HTML element; content that is no ``Markup`` is escaped."""
    shown = [each if isinstance(each, Markup) else printable(each) for each in content]
    return Markup('<{0} style="{1}">{2}</{0}>').format(name, style, Markup().join(shown))
