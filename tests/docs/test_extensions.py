"""The parts that the site is made of: equations, docstrings, examples, tables of benchmarks."""

import doctest
import importlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs Sphinx: pip install -e '.[dev]'")
DOCS = Path(__file__).parents[2] / "docs"
NAMES = [path.stem for path in (DOCS / "extensions").glob("[!_]*.py")]


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "extensions"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_docstrings_are_true(name):
    assert doctest.testmod(importlib.import_module(f"extensions.{name}")).failed == 0


def test_every_equation_of_the_zoo_can_be_drawn():
    equations = importlib.import_module("extensions.equations")
    from ppl_vae.zoo.catalog import zoo

    for entry in [*zoo("models").values(), *zoo("guides").values()]:
        for line in entry.equations.splitlines():
            left, _ = equations.columns(line)
            if left and not equations.is_code(left):
                assert equations.mathml(equations.to_tex(left), "inline").startswith("<math")


def test_a_table_has_the_mean_of_the_lines_that_it_asks_for(monkeypatch, tmp_path):
    page = importlib.import_module("extensions.benchmark_page")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    lines = ['{"row": "a", "way": "ours", "x": 1}', '{"row": "a", "way": "ours", "x": 2}']
    lines += ['{"row": "a", "way": "other", "x": 30}', '{"row": "b", "way": "ours", "x": 9}']
    (tmp_path / "it.jsonl").write_text("\n".join(lines))
    table = {
        "title": "It", "text": "Words.", "file": "it.jsonl", "command": "python it.py",
        "where": {"row": "a"}, "by": "way", "values": {"x": "value"},
        "published": {"other": 29}, "source": "A paper",
    }  # fmt: skip
    text = page.markdown(table)
    assert "| ours | 1.500 (1.000 to 2.000, 2 runs) |  |" in text
    assert "| other | 30.00 | 29 |" in text
    assert "Published: A paper." in text


def test_the_title_and_the_commands_of_an_example_become_a_page(tmp_path):
    gallery = importlib.import_module("extensions.gallery")
    for file in gallery.EXAMPLES.glob("*.py"):
        page = gallery.with_title(file.read_text())
        title, line = page.splitlines()[1:3]
        assert line == "=" * len(title)
        assert page.endswith(file.read_text().split('"""')[-1][-40:])


def test_every_example_has_a_test_that_executes_it():
    tests = "\n".join(p.read_text() for p in (DOCS.parent / "tests/examples").glob("*.py"))
    for file in (DOCS.parent / "examples").glob("*.py"):
        named = f'"{file.stem}"' in tests or f"{file.stem}.py" in tests
        assert named, f"tests/examples: no test executes {file.name}"


def test_guides_that_fit_are_those_that_lint_accepts():
    pages = importlib.import_module("extensions.zoo_pages")
    assert pages.partners("hmm") == ["none"]
    assert pages.partners("topics") == ["dirichlet", "logistic_normal"]
    fitting = pages.partners("bernoulli")
    assert fitting[0] == "normal"
    assert "flow" in fitting
    assert not {"none", "dirichlet", "smoothing"} & set(fitting)
