"""Models and guides by name: a zoo file, or a class in a file of the user's.

    bernoulli                  the public class of ppl_vae/models/bernoulli.py
    path/to/mine.py:Mine       the class Mine of that file, executed as a module of its own

Reading the zoo parses its files without importing them.
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
    """One file of the zoo.

    Attributes:
        name: What it is called by, the file's stem.
        path: The file.
        class_name: Its public class.
        title: First line of its docstring.
        equations: The indented lines of its docstring.
    """

    name: str
    path: Path
    class_name: str
    title: str
    equations: str


def zoo(kind: str) -> dict[str, Entry]:
    """All files of one kind by name.

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
    """The class that a name stands for.

    Args:
        spec: A zoo name, or ``file.py:Class``.
        kind: ``"models"`` or ``"guides"``: where zoo names are looked up.

    Raises:
        ValueError: For an unknown name, file or class (close ones are listed), or a file that
            does not import.
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
    found: type[Any] = getattr(module, entries[spec].class_name)
    return found


def _entry(path: Path) -> Entry:
    tree = ast.parse(path.read_text())
    public = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
    title, _, rest = (ast.get_docstring(tree, clean=False) or "").partition("\n")
    lines = [line for line in rest.splitlines() if line.startswith("    ")]
    return Entry(path.stem, path, public[0], title, textwrap.dedent("\n".join(lines)))
