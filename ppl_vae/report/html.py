"""The HTML page of a report: Jinja2 templates filled with tables, figures and text.

The skeleton lies in ``templates/``: ``page.html`` is the whole page, each section has a template
of its own, and ``blocks.html`` holds what the sections share (tables, figures, lists of facts,
notes). Python computes the values and writes no HTML. Jinja2 escapes every value
(``autoescape``), so that a column named ``<script>`` is shown as text; only what a template has
made is ``Markup``, which is not escaped again. A name that a template uses and that nobody passes
is an error (``StrictUndefined``), not an empty place in the page.

The page loads nothing: style, script and figures stand in it, and its content security policy
forbids everything else.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ppl_vae.report.numbers import Number, capitalized
from ppl_vae.safe_text import printable


class Table(NamedTuple):
    """A table; a click on a heading sorts the rows.

    Attributes:
        caption: What the table shows.
        columns: Headings.
        rows: Cells: a ``Number``, or anything else, whose text is shown.
        marked: Which rows to highlight, from the first row on.
        foot: A last row, which stays last when the table is sorted.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    marked: Sequence[bool] = ()
    foot: Sequence[object] = ()

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which are aligned to the right."""
        return [
            any(type(row[column]) is Number for row in self.rows)
            for column in range(len(self.columns))
        ]

    def is_marked(self, row: int) -> bool:
        """Return whether a row, counted from 0, is highlighted."""
        return row < len(self.marked) and self.marked[row]


class KeyNumber(NamedTuple):
    """One of the large numbers at the top of the page.

    Attributes:
        title: What the number is.
        value: The number.
        below: A remark in small letters.
        bad: Whether the number is a reason to worry, which colours it.
    """

    title: str
    value: str
    below: str
    bad: bool = False


class Section(NamedTuple):
    """A section of the page, which the list of contents links to.

    Attributes:
        identity: Name of the section in links.
        title: Heading.
        body: The section's HTML, made by ``render``.
    """

    identity: str
    title: str
    body: Markup


def render(template: str, **values: object) -> Markup:
    """Fill a template of ``templates/`` with values, whose text is escaped.

    Args:
        template: Name of the template's file.
        values: Values by the names that the template uses.

    Returns:
        HTML that needs no more escaping.

    Example:
        >>> "&lt;b&gt;" in render("code.html", sources=[{"title": "<b>", "note": "", "text": ""}])
        True
    """
    return Markup(_environment().get_template(template).render(**values))


def page(
    title: str,
    sections: Sequence[Section],
    *,
    kind: str,
    findings: Sequence[NamedTuple],
    keys: Sequence[KeyNumber],
) -> str:
    """Return a whole page.

    Args:
        title: Title of the window, and the main heading.
        sections: The sections, in their order.
        kind: What the report is about, and when it was written.
        findings: The short answer, a line each: ``text``, and ``next``, what to do about it.
        keys: The numbers behind the findings.
    """
    folder = importlib.resources.files("ppl_vae.report") / "templates"
    style, script = (
        Markup((folder / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js")
    )
    return render(
        "page.html", title=title, sections=sections, kind=kind, findings=findings, keys=keys,
        style=style, script=script,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    """Return the Jinja2 environment that loads this folder's templates and escapes every value."""
    templates = Environment(
        loader=PackageLoader("ppl_vae.report", "templates"), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    templates.filters["capitalized"] = capitalized
    templates.tests["number_cell"] = lambda cell: isinstance(cell, Number)
    return templates


def _shown(value: object) -> object:
    """Return a value as a template shows it: the control characters of a text are escapes.

    Jinja2 calls this function for every value of every template. What a template has made is
    ``Markup`` and went through it already.
    """
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
