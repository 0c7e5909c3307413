"""Text from files is shown with its control characters escaped, and written as no formula."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ppl_vae.data.text import printable, spreadsheet_text, text_of_spreadsheet

ANY = st.text(st.characters(exclude_categories=[]))


@given(ANY)
@example("\x1b]0;title\x07")
@example("\u202eexe.txt")
@example("\udc80")
def test_no_control_character_or_mark_of_direction_is_left(text):
    shown = printable(text, allowed="")
    assert {unicodedata.category(c) for c in shown}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert all(unicodedata.bidirectional(c) not in BIDI for c in shown)
    shown.encode()


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("text", ["", "malic acid", "Größe", "身長", "a\tb\nc", "\u00a0\u202f"])
def test_other_text_is_shown_as_it_is(text):
    assert printable(text) == text


@given(ANY | st.text("'=+-@\t\r\n ax1"))
@example("'=1")
@example("''")
def test_a_text_written_for_spreadsheets_is_found_again_and_is_no_formula(text):
    safe = spreadsheet_text(text)
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert text_of_spreadsheet(safe) == text
