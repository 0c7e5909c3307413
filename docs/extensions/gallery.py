"""The gallery: every file of examples/ is executed, and its page shows text, code and figures.

Sphinx-Gallery executes the files. Three things are added. A file's docstring becomes valid
reStructuredText: its first line is the title, and indented lines are code. ``QUICK=1`` in the
environment runs each file with the short settings of ``quick_examples.toml``. Figures are the PNG
files that an example has written.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOT_EXECUTED = {"ray_scores"}
"""Ray is no dependency of the documentation."""


def copy_examples(folder: Path, quick: bool) -> None:
    """Write all examples to a folder, with docstrings as Sphinx-Gallery wants them.

    Sphinx-Gallery executes a file again if its text has changed. Quick copies end in a setting
    of Sphinx-Gallery's that changes nothing, so that their pages are not taken for whole ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(EXAMPLES.glob("*.py")):
        text, copy = with_title(file.read_text(encoding="utf-8")), folder / file.name
        text += "\n# sphinx_gallery_line_numbers = False\n" if quick else ""
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")
    for copy in folder.glob("*.py"):
        if not (EXAMPLES / copy.name).exists():
            copy.unlink()
    title = "Gallery\n=======\n\nEvery file of ``examples/``, with what it prints and draws.\n"
    (folder / "GALLERY_HEADER.rst").write_text(title, encoding="utf-8")


def with_title(source: str) -> str:
    r'''Return a Python file with its docstring as a page: title, text, commands as code.

    Example:
        >>> print(with_title('"""Is it so?\n\n    python x.py\n\nIt is.\n"""\nx = 1\n'))
        """
        Is it so?
        =========
        <BLANKLINE>
        .. code-block:: sh
        <BLANKLINE>
            python x.py
        <BLANKLINE>
        It is.
        """
        x = 1
        <BLANKLINE>
    '''
    docstring = ast.parse(source).body[0]
    words = ast.literal_eval(docstring.value)  # type: ignore[attr-defined]
    title, *parts = words.strip("\n").split("\n\n")
    title = " ".join(title.split())
    page = [f"{title}\n{'=' * len(title)}"]
    for part in parts:
        if part.startswith("    "):
            kind = "sh" if re.match(r"\s+(python|ppl-vae|pip|make|torchrun)\b", part) else "text"
            page.append(f".. code-block:: {kind}\n\n{part.rstrip()}")
        else:
            text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", part.strip())
            page.append(text.replace("*", "\\*").replace("|", "\\|"))
    rest = "\n".join(source.splitlines()[docstring.end_lineno :])
    return '"""\n' + "\n\n".join(page) + '\n"""\n' + rest + "\n"


class QuickArguments:
    """Command line of each example: nothing, or the short setting of ``quick_examples.toml``."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.settings = tomllib.loads((ROOT / "docs" / "quick_examples.toml").read_text())

    def __call__(self, _configuration: dict[str, Any], script: dict[str, Any]) -> list[str]:
        """Return the words after the name of an example."""
        name = Path(script["src_file"]).stem
        return shlex.split(self.settings.get(name, "--epochs 1")) if self.quick else []

    def __repr__(self) -> str:
        """Return the same text in every build, so that Sphinx sees no change."""
        return f"QuickArguments({self.quick})"


class WrittenFigures:
    """The PNG files that an example has written since the last look, as figures of its page."""

    def __init__(self) -> None:
        self.seen: dict[Path, float] = {}

    def __call__(
        self, _block: tuple[str, str, int], variables: dict[str, Any], configuration: dict[str, Any]
    ) -> str:
        """Copy new figures beside the page; returns their reStructuredText."""
        folder = Path(variables["src_file"]).parent
        shown = []
        for file in sorted(folder.rglob("*.png"), key=lambda path: path.stat().st_mtime):
            if self.seen.get(file) != file.stat().st_mtime:
                self.seen[file] = file.stat().st_mtime
                target = Path(next(variables["image_path_iterator"]))
                shutil.copyfile(file, target)
                shown.append(str(target))
        title = Path(variables["src_file"]).stem.replace("_", " ")
        alt = f"Figure that the example {title} draws"
        return str(figure_rst(shown, configuration["src_dir"], alt)) if shown else ""

    def __repr__(self) -> str:
        """Return the same text in every build, so that Sphinx sees no change."""
        return "WrittenFigures()"
