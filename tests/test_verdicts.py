"""Every class that a public function returns as its answer prints as text, and shows as HTML."""

import inspect
import math
import re
import sys
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_vae
from ppl_vae import (
    AnomalyDetector,
    compare,
    disentanglement,
    fit,
    gradient_estimators,
    guide_calibration,
    impute,
    inference_gap,
    latent_usage,
    lint,
    privacy_check,
    table,
)
from ppl_vae import predictive_check as check_predictions
from ppl_vae.anomaly.decision import Decision
from ppl_vae.data.schema_columns import SchemaColumn
from ppl_vae.guides.categorical import CategoricalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.discrete import DiscreteModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.verdicts import MOST_ROWS, Line, Table, verdict

EVIL = """</td><script>alert(1)</script><img src=x onerror='alert(1)' alt="&amp;"""
NO_VERDICTS = {Decision, SchemaColumn}  # a function of rows, and a line of its schema
TAGS = {"div", "table", "tr", "th", "td", "img"}


class Page(HTMLParser):
    """The elements of a page and the text in it; refuses elements that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def marked(self, tag, colour="217,130,0"):
        return sum(t == tag and colour in a.get("style", "") for t, a in self.elements)


def answers():
    """Every class that a public function, or a method of such a class, is annotated to return."""
    found, waiting = set(), [getattr(ppl_vae, name) for name in ppl_vae.__all__]
    while waiting:
        each = waiting.pop()
        if inspect.isclass(each) and not issubclass(each, nn.Module | dict):
            own = vars(each).items()
            waiting += [getattr(f, "__func__", f) for name, f in own if not name.startswith("_")]
        if inspect.isfunction(each):
            text = each.__annotations__.get("return")
            try:
                cls = eval(text, vars(sys.modules[each.__module__])) if text else None
            except NameError:  # imported for annotations alone
                continue
            ours = inspect.isclass(cls) and cls.__module__.startswith("ppl_vae")
            if ours and not issubclass(cls, nn.Module | dict) and cls not in found:
                found.add(cls)
                waiting.append(cls)
    return found - NO_VERDICTS


@pytest.fixture(scope="module")
def shown():
    """{class: an instance}, with names from a hostile file."""
    torch.manual_seed(0)
    rows = pd.DataFrame(torch.randn(60, 3).numpy(), columns=[EVIL, "b", "c"])
    rows[EVIL] = rows[EVIL] ** 3
    pair, other = (GaussianModel(3, 2), NormalGuide(3, 2)), (GaussianModel(3, 2), NormalGuide(3, 2))
    history = fit(*pair, rows, epochs=3, validation=0.2, compile=False)
    bits = (torch.rand(40, 6) > 0.5).float()
    drawn, summed = CategoricalGuide(6, 2, 3), CategoricalGuide(6, 2, 3, enumerated=True)
    estimators = {EVIL: drawn, "summed": summed}
    detector = AnomalyDetector(*pair, rows, num_samples=5)
    everything = [
        history,
        lint(evil_model, None, torch.randn(20)),
        check_predictions(*pair, rows, num_samples=60),
        compare({EVIL: pair, "other": other}, rows, num_samples=10),
        gradient_estimators(DiscreteModel(6, 2, 3), estimators, bits, num_draws=5),
        disentanglement(*pair, rows, {EVIL: rows[EVIL], "c": rows["c"]}, num_bins=3),
        detector,
        detector.drift(rows + 9),
        guide_calibration(evil_codes, None, torch.zeros(9, 2), num_rows=300, recalibrate=True),
        inference_gap(evil_codes, evil_codes, torch.randn(9, 2), steps=2, num_samples=30),
        impute(evil_holes, None, rows.mask(rows > 1), num_samples=50),
        table(rows.assign(b=["?", *"ab" * 29, EVIL])).schema,
        privacy_check(rows.assign(c=EVIL), rows.assign(c=EVIL)),
        latent_usage(evil_latent, evil_latent, torch.randn(20)),
    ]
    return {type(each): each for each in everything}


@pytest.fixture(scope="module")
def pages(shown):
    """{class: the HTML of its instance}, made while one figure of the user's is open."""
    plt.figure()
    made = {cls: each._repr_html_() for cls, each in shown.items()}
    assert len(plt.get_fignums()) == 1, "a figure of the HTML is left open"
    return made


def evil_model(x):
    with pyro.plate("data", len(x)):
        pyro.sample(EVIL, dist.Normal(0.0, 1.0), obs=x)
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=x)


def evil_codes(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample(EVIL, dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=x)


def evil_latent(x):
    with pyro.plate("data", len(x)):
        pyro.sample(EVIL, dist.Normal(0 * x, 1.0))


def evil_holes(x):
    with pyro.plate("data", len(x)):
        fn = dist.Normal(0.0, 1.0).expand(x.shape).mask(~x.isnan())
        pyro.sample(EVIL, fn.to_event(1), obs=x.nan_to_num())


def test_every_public_result_has_its_text_and_its_html(shown):
    assert answers() == set(shown), "add the new result to ``shown``"
    for cls in shown:
        assert {"_repr_html_", "__str__", "__repr__"} <= set(vars(cls)), cls


def test_the_repr_of_a_result_is_its_readable_text(shown):
    for cls, each in shown.items():
        assert all(words in str(each) for words in repr(each).split("; "))
        assert f"{cls.__name__}(" not in repr(each)
        assert "=array(" not in repr(each)
        assert "object at 0x" not in repr(each)


def test_the_html_says_what_the_text_says(shown, pages):
    for cls, each in shown.items():
        text = Page(pages[cls]).text
        for block in each._content():
            for line in block if isinstance(block, list) else []:
                assert line.text in text
            if isinstance(block, Table):
                assert all(cell in text for cell in block.cells().to_numpy().ravel())
                assert all(str(name) in text for name in block.frame.columns)


def test_no_name_breaks_out_of_the_html(pages):
    evil = 0
    for page in map(Page, pages.values()):
        assert {tag for tag, _ in page.elements} <= TAGS
        assert {key for _, given in page.elements for key in given} <= {
            "style", "src", "alt", "width"
        }  # fmt: skip
        images = [given["src"] for tag, given in page.elements if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in images)
        evil += EVIL in page.text
    assert evil >= 5  # of check, comparison, estimators, disentanglement, lint


def test_the_figure_of_a_result_is_in_its_html(pages):
    for cls, page in pages.items():
        assert ("<img" in page) == hasattr(cls, "plot")


def test_text_has_the_colour_of_the_page_so_that_dark_pages_can_be_read(pages):
    for page in pages.values():
        assert not re.search(r"(?<![-\w])color:", page)


def test_flagged_rows_and_sentences_are_in_colour(shown, pages):
    of = {cls.__name__: (each, Page(pages[cls])) for cls, each in shown.items()}
    check, page = of["PredictiveCheck"]
    assert page.marked("tr") == check.frame["flagged"].sum() > 0
    assert page.marked("div") == 1
    found, page = of["Lint"]
    assert page.marked("div", "217,58,58") == len(found.errors)
    assert page.marked("div") == len(found.warnings)
    assert page.marked("div", "46,157,74") == (not found.findings)
    drift, page = of["Drift"]
    assert not drift.holds
    assert page.marked("div", "217,58,58") == 1
    found, page = of["Comparison"]
    assert page.marked("div", "46,157,74") == (found.best is not None)


def shown_class(*blocks):
    @verdict
    class Result:
        def _content(self):
            return list(blocks)

    return Result()


def test_a_long_table_is_cut_and_says_how_much_is_missing():
    frame = pd.DataFrame({"a": range(MOST_ROWS + 5)})
    marked = [False] * (MOST_ROWS + 3) + [True] * 2
    each = shown_class(Table(frame, marked=marked))
    page = Page(each._repr_html_())
    assert "and 5 more rows, 2 of them marked: print the result" in page.text
    assert sum(tag == "tr" for tag, _ in page.elements) == MOST_ROWS + 1
    assert len(str(each).splitlines()) == MOST_ROWS + 6


def test_text_of_a_table_is_written_as_asked():
    frame = pd.DataFrame({"x": [1.23456, math.nan], "n": [1, 2]}, index=["a", "b"])
    assert str(shown_class(Table(frame, ".2f", "words", missing=""))).splitlines() == [
        "words", "      x  n", "a  1.23  1", "b        2",
    ]  # fmt: skip
    assert "1.235" in str(shown_class(Table(frame, {"x": ".3f"})))
    twice = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    assert "1  2" in str(shown_class(Table(twice)))


def test_labels_of_neighbouring_lines_have_one_width():
    text = str(shown_class([Line("title"), Line("x", label="a"), Line("y", label="long")]))
    assert text == "title\na       x\nlong    y"


def test_control_characters_are_escapes_in_text_and_html():
    each = shown_class([Line("a\x1b[2Jb")])
    assert "a\\x1b[2Jb" in str(each)
    assert "a\\x1b[2Jb" in each._repr_html_()


def test_numbers_that_cannot_be_drawn_leave_the_rest_of_the_html(shown, monkeypatch):
    monkeypatch.setattr(ppl_vae.PredictiveCheck, "plot", lambda *_: np.linspace(0, 1, -1))
    page = Page(shown[ppl_vae.PredictiveCheck]._repr_html_())
    assert "no figure: " in page.text
    assert "statistics flagged" in page.text
