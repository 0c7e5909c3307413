"""Text from files is shown with its control characters escaped, and written as no formula."""

import unicodedata

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ppl_vae import build, lint, predictive_check
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.safe_text import printable, spreadsheet_text, text_of_spreadsheet

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


def test_what_a_check_and_lint_print_has_no_control_characters():
    names = ["a\x1b[2Jb", "c\u202ed", "plain"]
    data = pd.DataFrame(torch.randn(40, 3).numpy(), columns=names)
    model, guide = build(GaussianModel, data, latents=1), build(NormalGuide, data, latents=1)
    check = predictive_check(model, guide, data, num_samples=5)
    data.iloc[0, 0] = np.inf
    assert "\\x1b[2J" in str(check)
    for text in (str(check), str(lint(model, guide, data))):
        assert "\x1b" not in text
        assert "\u202e" not in text
