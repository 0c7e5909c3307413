"""Text that came from a user's file, made safe to show on a page and to write into a table.

The names of columns and the labels of rows are anybody's text. Two kinds of text do harm where
they are shown or opened:

    control characters and marks of writing direction    change what a terminal or a page shows
    text that begins with = + - @                        is a formula to a spreadsheet
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction in which the text around them is shown."""

_UNSEEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, halves of a surrogate pair, separators of lines and of paragraphs."""

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""The beginning of a formula, with the apostrophes that may stand before it."""


def printable(text: str, *, allowed: str = "\n\t") -> str:
    r"""Return a text whose control characters are escapes that a reader sees, such as ``\x1b``.

    A terminal obeys control characters: they clear the screen, or colour what follows. Marks of
    writing direction make a page show letters in another order than they have. Half of a surrogate
    pair, which stands for a byte of a file's name that is not UTF-8, cannot be written at all.

    Args:
        text: Any text.
        allowed: Control characters that are returned as they are.

    Example:
        >>> print(printable("a\x1b[2Jb\u202ec"))
        a\x1b[2Jb\u202ec
    """
    if text.isprintable() and text.isascii():
        return text
    return "".join(_escaped(letter) if letter not in allowed else letter for letter in text)


def _escaped(letter: str) -> str:
    """Return a character, or its escape where it would not be seen."""
    unseen = letter in _UNSEEN or unicodedata.category(letter) in _UNSEEN_CATEGORIES
    return letter.encode("unicode_escape").decode() if unseen else letter


def spreadsheet_text(text: str) -> str:
    """Return a text as a CSV file holds it, so that no spreadsheet takes it for a formula.

    A cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or the end of a line is calculated by
    Excel, LibreOffice and others when they open a CSV file, whether it stands in quotation marks
    or not; a formula can run programs and send data away. An apostrophe in front makes the cell
    a text. A text that begins with apostrophes before such a character gets one more, so that
    ``text_of_spreadsheet`` finds every text again.

    Example:
        >>> spreadsheet_text("=1+1"), spreadsheet_text("a=1"), spreadsheet_text("'=1")
        ("'=1+1", 'a=1', "''=1")
    """
    return "'" + text if _FORMULA.match(text) else text


def text_of_spreadsheet(text: str) -> str:
    """Return the text that ``spreadsheet_text`` was given.

    Example:
        >>> text_of_spreadsheet("'=1+1"), text_of_spreadsheet("'90s"), text_of_spreadsheet("-x")
        ('=1+1', "'90s", '-x')
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
