"""The catalog of models and guides: classes by their names on the command line.

    bernoulli               the public class of models/bernoulli.py
    path/to/mine.py:Mine    the class Mine of the user's file, which is executed

The catalog parses the files of the zoo and does not import them, so that a list of all names
loads neither torch nor Pyro.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl_vae.zoo.source_files import class_in_file, close_names


@dataclass(frozen=True)
class Entry:
    """A file of models/ or guides/, as its text describes it.

    Attributes:
        name: Name on the command line: the file's name without ``.py``.
        path: Path of the file.
        class_name: Name of its public class.
        title: First line of its docstring.
        equations: The indented lines of its docstring.
    """

    name: str
    path: Path
    class_name: str
    title: str
    equations: str


def zoo(kind: str) -> dict[str, Entry]:
    """Return all files of models/ or of guides/, by name and in alphabetical order.

    Args:
        kind: ``"models"`` or ``"guides"``.

    Example:
        >>> zoo("models")["bernoulli"].class_name
        'BernoulliModel'
    """
    spec = importlib.util.find_spec(f"ppl_vae.{kind}")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
    return {path.stem: _entry(path) for path in files}


def find_class(spec: str, kind: str) -> type[Any]:
    """Return the class that a name stands for.

    Args:
        spec: A name of the zoo, or ``file.py:Class``; that file is executed.
        kind: ``"models"`` or ``"guides"``: where to look up a name of the zoo.

    Raises:
        ValueError: If the name, the file or the class is unknown (close names are listed), or if
            the file raises an error.

    Example:
        >>> find_class("normal", "guides").__name__
        'NormalGuide'
    """
    if ":" in spec:
        path, _, name = spec.rpartition(":")
        return class_in_file(Path(path), name)
    entries = zoo(kind)
    if spec not in entries:
        raise ValueError(
            f'{kind}: expected one of {sorted(entries)} or "file.py:Class", got "{spec}"'
            + close_names(spec, entries)
        )
    module = importlib.import_module(f"ppl_vae.{kind}.{spec}")
    cls: type[Any] = getattr(module, entries[spec].class_name)
    return cls


def _entry(path: Path) -> Entry:
    """Parse a file of the zoo."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
    title, _, rest = (ast.get_docstring(tree, clean=False) or "").partition("\n")
    equations = [line for line in rest.splitlines() if line.startswith("    ")]
    return Entry(path.stem, path, public[0], title, textwrap.dedent("\n".join(equations)))
