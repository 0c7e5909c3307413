"""The site is built from the files of the repository without a warning, and works in a browser."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from parts.browser import FRAME, LEAVE, browser, result, with_script

import ppl_vae

pytest.importorskip("sphinx", reason="needs Sphinx: pip install -e '.[dev]'")
ROOT = Path(__file__).parents[2]
PAGES = ["index.html", "zoo/models/gaussian.html", "gallery/index.html"]


def build(docs, out, executed="", drawn=""):
    """Build the site as ``make docs QUICK=1`` does; returns the process.

    Args:
        docs: Folder of the sources.
        out: Folder for the pages.
        executed: Pattern of the examples that are executed; all by default.
        drawn: Pattern of the files of the zoo that have a figure; all by default.
    """
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-D", f"sphinx_gallery_conf.filename_pattern={executed}"] if executed else []
    command += ["-D", f"zoo_drawn={drawn}"]
    return subprocess.run(
        [*command, "-d", out.with_name("doctrees"), docs, out],
        env={**os.environ, "QUICK": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("/(digits|svi_script)", "^(gaussian|flow)$"), id="some"),
        # tests/examples runs all examples every time; the other figures are drawn here alone
        pytest.param(("", ""), id="all", marks=pytest.mark.slow),
    ],
)
def site(tmp_path_factory, request):
    out = tmp_path_factory.mktemp("site") / "html"
    done = build(ROOT / "docs", out, *request.param)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """``browse(file)``: the page and its console, without what the theme says of light and dark."""
    rendered = browser(tmp_path_factory.mktemp)

    def browse(file):
        dom, console = rendered(file)
        return dom, [line for line in console if '"[PST]: ' not in line]

    return browse


MEASURE = """
window.addEventListener("load", () => parent.postMessage({
  inner: innerWidth, page: document.documentElement.scrollWidth,
  broken: Array.from(document.images).filter((image) => !image.complete || !image.naturalWidth)
    .map((image) => image.src),
  nameless: Array.from(document.images).filter((image) => image.getAttribute("alt") === null)
    .map((image) => image.src),
}, "*"));
"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_the_screen_and_shows_its_figures(page, width, site, browse):
    copy = with_script(site / page, MEASURE, (site / page).with_name(f"copy-{width}.html"))
    frame = copy.with_name(f"frame-{width}.html")
    frame.write_text(FRAME.format(source=copy.name, width=width, leave=LEAVE))
    dom, console = browse(frame)
    assert console == []
    found = result(dom)
    assert found["inner"] == width
    assert found["page"] <= width
    assert found["broken"] == []
    assert found["nameless"] == []


def test_search_finds_a_function(site, browse):
    dom, console = browse((site / "search.html").as_uri() + "?q=predictive_check")
    assert console == []
    assert "reference/ppl_vae.predictive_check.html" in dom


def test_every_public_name_and_every_file_of_the_zoo_and_the_gallery_has_a_page(site):
    assert all((site / "reference" / f"ppl_vae.{name}.html").exists() for name in ppl_vae.__all__)
    for kind in ("models", "guides"):
        for file in (ROOT / kind).glob("[!_]*.py"):
            assert (site / "zoo" / kind / f"{file.stem}.html").exists()
    for example in (ROOT / "examples").glob("*.py"):
        assert (site / "gallery" / f"{example.stem}.html").exists()


def test_links_inside_the_site_lead_somewhere(site):
    missing = set()
    for page in set(site.rglob("*.html")) - set((site / "_static").rglob("*.html")):
        for link in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text()):
            inside = "://" not in link and not link.startswith(("mailto:", "data:"))
            if inside and not (page.parent / unquote(link)).exists():
                missing.add(f"{page.relative_to(site)}: {link}")
    assert not missing
