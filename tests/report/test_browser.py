"""The report in a browser: rendering, sorting of tables, and width on a phone."""

import re

import pytest
from parts.browser import FRAME, LEAVE, browser, result, with_script

from ppl_vae.report.html import Section, Table, page, render
from ppl_vae.report.numbers import DASH, number


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    return browser(tmp_path_factory.mktemp)


@pytest.mark.parametrize("which", ["file", "hostile_file"])
def test_the_page_renders_without_console_messages(which, browse, request):
    dom, console = browse(request.getfixturevalue(which))
    assert console == []
    for title in ("What was fitted", "Learning curves", "Predictive check", "Versions and seeds"):
        assert f">{title}</h2>" in dom


def test_the_fixture_reports_console_errors(file, browse, tmp_path):
    copy = with_script(file, "throw new Error('here');", tmp_path / "copy.html")
    assert any("here" in line for line in browse(copy)[1])


def test_the_content_security_policy_blocks_loading(file, browse, tmp_path):
    image = "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))"
    _, console = browse(with_script(file, image, tmp_path / "copy.html"))
    assert any("Content Security Policy" in line for line in console)


SORTING = """
const table = [...document.querySelectorAll("table.sortable")].find(
  (table) => table.caption.textContent.startsWith("Statistics of the observed data"));
const headings = Array.from(table.tHead.rows[0].cells);
const order = (column) => Array.from(table.tBodies[0].rows, (row) =>
  row.cells[column].dataset.value ?? row.cells[column].textContent);
const found = {};
headings.forEach((heading, column) => {
  const button = heading.querySelector("button");
  const entry = { before: heading.getAttribute("aria-sort"), tab: button.tabIndex };
  for (const step of ["first", "second", "third"]) {
    button.click();
    entry[step] = [heading.getAttribute("aria-sort"), order(column)];
  }
  entry.sorted = headings.filter((other) => other.getAttribute("aria-sort") !== "none").length;
  found[heading.textContent] = entry;
});
leave(found);
"""


def test_headings_sort_tables_in_both_directions(file, browse, tmp_path):
    dom, console = browse(with_script(file, LEAVE + SORTING, tmp_path / "copy.html"))
    assert console == []
    found = result(dom)
    numbers = ["where it lies", "observed", "lower", "upper", "adjusted p"]
    assert list(found) == ["verdict", "statistic", *numbers]
    for name, entry in found.items():
        assert (entry["before"], entry["tab"], entry["sorted"]) == ("none", 0, 1)
        (up, rising), (down, falling), (again, third) = (
            entry[step] for step in ("first", "second", "third")
        )
        assert (up, down, again) == ("ascending", "descending", "ascending")
        assert third == rising
        if name in numbers:
            values = [float(value) for value in rising]
            assert values == sorted(values)
            assert [float(value) for value in falling] == values[::-1]
        else:
            assert sorted(rising) == sorted(falling)
            known = [value for value in rising if value]
            assert [value for value in falling if value] == known[::-1] or name == "verdict"
            assert known == sorted(known, key=_natural)


def _natural(text):
    """Return a sorting key in which digits inside a text count as numbers."""
    return [int(p) if p.isdigit() else p.lower() for p in re.split(r"(\d+)", text.replace("_", ""))]


def test_infinite_missing_and_empty_cells_are_sorted(browse, tmp_path):
    values = [3.0, float("nan"), float("-inf"), 20.0, float("inf"), -1.0]
    names = ["f10", "f2", "", "f1", "g", "e"]
    rows = [[name, number(value)] for name, value in zip(names, values, strict=True)]
    table = Table("odd", ["name", "value"], rows, foot=["all", number(0.0)])
    file = tmp_path / "page.html"
    body = render("versions.html", facts=[], table=table)
    file.write_text(page("odd", [Section("a", "A", body)], kind="", findings=[], keys=[]))
    script = (
        LEAVE
        + """
    const table = document.querySelector("table"), found = [];
    for (const column of [0, 1]) for (const time of [1, 2]) {
      table.querySelectorAll("button")[column].click();
      found.push(Array.from(table.tBodies[0].rows, (row) => row.cells[column].textContent));
    }
    leave([found, table.tFoot.rows[0].cells[0].textContent]);
    """
    )
    dom, console = browse(with_script(file, script, tmp_path / "copy.html"))
    assert console == []
    (named, named_back, rising, falling), foot = result(dom)
    assert named == ["e", "f1", "f2", "f10", "g", ""]
    assert named_back == ["g", "f10", "f2", "f1", "e", ""]
    texts = [number(v).text for v in (float("-inf"), -1.0, 3.0, 20.0, float("inf"))]
    assert rising == [*texts, DASH]
    assert falling == [*texts[::-1], DASH]
    assert foot == "all"


MEASURE = """
window.addEventListener("load", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  const page = document.documentElement;
  parent.postMessage({ inner: innerWidth, page: page.scrollWidth, broken: Array.from(
    document.images).filter((image) => !image.complete || !image.naturalWidth).length,
    wide: Array.from(document.querySelectorAll("img, figure svg")).filter(
      (image) => image.getBoundingClientRect().right > innerWidth).length,
    hidden: Array.from(document.querySelectorAll("pre")).filter((code) =>
      code.scrollWidth > code.clientWidth || code.scrollHeight > code.clientHeight).length,
    small: Array.from(document.querySelectorAll("figure svg text")).filter((text) => {
      const svg = text.ownerSVGElement;
      const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
      return parseFloat(getComputedStyle(text).fontSize) * scale < 9;
    }).map((text) => text.textContent) }, "*");
});
"""


@pytest.mark.parametrize(
    ("which", "width"),
    [
        ("file", 390), ("file", 1000), ("hostile_file", 390),
        pytest.param("hostile_file", 1000, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_nothing_is_wider_than_the_screen_or_too_small_to_read(
    which, width, browse, tmp_path, request
):
    with_script(request.getfixturevalue(which), MEASURE, tmp_path / "copy.html")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(source="copy.html", width=width, leave=LEAVE))
    dom, _ = browse(frame)
    fits = {"inner": width, "page": width, "broken": 0, "wide": 0, "hidden": 0, "small": []}
    assert result(dom) == fits
