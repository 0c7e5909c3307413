"""Make the notebooks of examples/notebooks/ from examples, so that nothing is written twice.

    python scripts/notebooks.py            write the notebooks
    python scripts/notebooks.py --check    end with an error where one is not what would be written

The docstring of an example becomes the first cell. Options of its command line become a cell of
settings, tagged "parameters", with their defaults. Functions get a cell each. The body of ``main``
is cut at its blank lines; comment lines at the head of a part become text.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = ("correlated_posterior", "digits", "strange_rows")

FIGURES = """# Figures appear below their cell; its titles are its text for screen readers.
%matplotlib inline
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure


def described(figure):
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    alt = "Figure: " + "; ".join(title for title in dict.fromkeys(titles) if title)
    return print_figure(figure, base64=True), {"alt": alt}


get_ipython().display_formatter.formatters["image/png"].for_type(Figure, described);"""


def main() -> None:
    """Write the notebooks, or check them."""
    parser = argparse.ArgumentParser(description="Make notebooks from examples.")
    parser.add_argument("--check", action="store_true", help="Only compare with what is there.")
    check = parser.parse_args().check
    stale = []
    for name in NAMES:
        path, text = EXAMPLES / "notebooks" / f"{name}.ipynb", notebook_text(name)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"run scripts/notebooks.py, which would change {', '.join(stale)}")


def notebook_text(name: str) -> str:
    """Return the notebook of an example as the text of its file."""
    return nbformat.writes(notebook((EXAMPLES / f"{name}.py").read_text(), name)) + "\n"


def notebook(source: str, name: str) -> NotebookNode:
    """Return the notebook of an example.

    Args:
        source: The text of the example.
        name: Its name, ``digits`` for ``examples/digits.py``.
    """
    tree, lines = ast.parse(source), source.splitlines()
    body = [node for node in tree.body if not isinstance(node, ast.If)]  # without the last call
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    (start,) = (node for node in functions if node.name == "main")
    head = body[1 : body.index(functions[0])]
    settings, parts = settings_and_parts(start, lines)
    cells = [new_markdown_cell(title(ast.get_docstring(tree) or "", name))]
    cells += [new_code_cell(head_text(head, lines)), new_code_cell(FIGURES)]
    cells[-1].metadata = {"jupyter": {"source_hidden": True}}
    if others := [node for node in functions if node is not start]:
        cells.append(new_markdown_cell("## Functions that are used below"))
        cells += [new_code_cell(text_of(node, lines)) for node in others]
    cells += [new_markdown_cell("## Settings"), new_code_cell(settings)]
    cells[-1].metadata = {"tags": ["parameters"]}
    cells.append(new_markdown_cell("## The work"))
    for part in parts:
        words = re.match(r"(?:# .*\n)*", part)[0]  # type: ignore[index]
        if words:
            cells.append(new_markdown_cell(re.sub(r"^# ", "", words.strip(), flags=re.M)))
        cells.append(new_code_cell(part[len(words) :]))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


def title(docstring: str, name: str) -> str:
    """Return the first cell: the question of the example, its text, and where it comes from."""
    question, _, text = docstring.partition("\n")
    text = "\n\n".join(
        part for part in text.strip("\n").split("\n\n") if not part.startswith("    ")
    )
    origin = f"*Made from `examples/{name}.py` by `scripts/notebooks.py`: change that file.*"
    return f"# {question}\n\n{text}\n\n{origin}"


def head_text(head: list[ast.stmt], lines: list[str]) -> str:
    """Return imports and constants, without those that only the command line needs."""
    first, last = head[0].lineno - 1, head[-1].end_lineno
    text = "\n".join(lines[first:last])
    text = text.replace("import argparse\n", "").replace("import matplotlib as mpl\n", "")
    return text.replace("from pathlib import Path\n", NAMESPACE, 1)


NAMESPACE = "from pathlib import Path\nfrom types import SimpleNamespace\n"


def settings_and_parts(start: ast.FunctionDef, lines: list[str]) -> tuple[str, list[str]]:
    """Return the options of a command line as code, and the rest of ``main`` in parts."""
    options, rest = [], []
    for node in start.body[1:]:
        text = ast.unparse(node)
        if added := re.match(r"parser\.add_argument\('--(\w+)'", text):
            words = {word.arg: word.value for word in node.value.keywords}  # type: ignore[attr-defined]
            options.append(f"    {added[1]}={ast.unparse(words['default'])},")
        elif not re.match(r"parser = |arguments = |mpl\.use", text):
            rest.append(node)
    after, end = rest[0].lineno - 1, start.end_lineno
    while lines[after - 1].strip().startswith("#"):
        after -= 1
    text = "\n".join(line.removeprefix("    ") for line in lines[after:end])
    settings = "\n".join(["arguments = SimpleNamespace(", *options, ")"]).replace("'", '"')
    return settings, [part.strip("\n") for part in re.split(r"\n\n+", text)]


def text_of(node: ast.stmt, lines: list[str]) -> str:
    """Return the lines of a statement."""
    return "\n".join(lines[node.lineno - 1 : node.end_lineno])


if __name__ == "__main__":
    main()
