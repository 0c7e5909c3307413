"""Docstrings of the library as reStructuredText.

In the library's docstrings an indented paragraph is a formula or a table in plain text, and a star
is a star. In reStructuredText they would be a quotation and the beginning of emphasis.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx


def literal_blocks(lines: list[str]) -> list[str]:
    """Return the lines of a docstring with ``::`` before each indented paragraph.

    Sections of napoleon's (a word and a colon, then indented lines) are left as they are.

    Example:
        >>> literal_blocks(["The sum:", "", "    a + b", "", "Args:", "    a: One."])
        ['The sum:', '', '::', '', '    a + b', '', 'Args:', '    a: One.']
    """
    written: list[str] = []
    for place, line in enumerate(lines):
        starts = re.match(r"( *)\S", line)
        after_blank = place > 0 and not lines[place - 1].strip()
        if starts and after_blank:
            before = [kept for kept in written if kept.strip()]
            outer = len(before[-1]) - len(before[-1].lstrip()) if before else 0
            deeper = len(starts[1]) >= outer + 4
            if deeper and before and not before[-1].rstrip().endswith("::"):
                indent = " " * outer
                written += [f"{indent}::", ""]
        written.append(line)
    return written


def plain_stars(lines: list[str]) -> list[str]:
    r"""Return the lines of a docstring with a backslash before stars outside of code.

    Example:
        >>> plain_stars(["(*, rows)", "``*args``", "    >>> 2 * 3"])
        ['(\\*, rows)', '``*args``', '    >>> 2 * 3']
    """

    def escaped(line: str) -> str:
        if line.lstrip().startswith((">>>", "...")):
            return line
        parts = re.split(r"(``.*?``)", line)
        return "".join(
            part if part.startswith("``") else part.replace("*", r"\*") for part in parts
        )

    return [escaped(line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Let autodoc see docstrings as reStructuredText."""

    def process(
        _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
    ) -> None:
        lines[:] = plain_stars(literal_blocks(lines))

    def signature(
        _app: Sphinx, what: str, _name: str, value: Any, *_: Any
    ) -> tuple[str, None] | None:
        """Leave out the constructor of a result, which nobody calls."""
        return ("", None) if what == "class" and hasattr(value, "_repr_html_") else None

    app.connect("autodoc-process-docstring", process, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
