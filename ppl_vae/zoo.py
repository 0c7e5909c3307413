"""Models and guides by name: a zoo file, or a class in a file of the user's.

    bernoulli                  the public class of ppl_vae/models/bernoulli.py
    path/to/mine.py:Mine       the class Mine of that file, executed as a module of its own

Reading the zoo parses its files without importing them.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


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
            + _close(spec, entries)
        )
    module = importlib.import_module(f"ppl_vae.{kind}.{spec}")
    found: type[Any] = getattr(module, entries[spec].class_name)
    return found


def class_in_file(path: Path, name: str, content: bytes | None = None) -> type[Any]:
    """Execute a Python file as a module of its own and return one of its classes.

    The text itself is compiled: no bytecode is read or written. ``content`` is the file's, where
    it has been read already.
    """
    found: type[Any] = _named(path, name, content, lambda value: isinstance(value, type), "class")
    return found


def function_in_file(spec: str) -> Callable[..., Any]:
    """The function that ``file.py:name`` stands for; the file is executed.

    Raises:
        ValueError: For an unknown file or function, or a file that does not import.
    """
    path, colon, name = spec.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ValueError(f'expected "file.py:name", got "{spec}"')
    found: Callable[..., Any] = _named(Path(path), name, None, callable, "function")
    return found


def _named(
    path: Path, name: str, content: bytes | None, suits: Callable[[Any], bool], kind: str
) -> Any:
    """Something of a kind in the module that a file is."""
    module = _executed(path, content)
    found = getattr(module, name, None)
    if not suits(found):
        others = [key for key, value in vars(module).items() if suits(value)]
        raise ValueError(f'{path}: no {kind} "{name}" in it' + _close(name, others))
    return found


def _executed(path: Path, content: bytes | None) -> ModuleType:
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ValueError(f"{path}: no such file" + _close(str(path), near))
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"_ppl_vae_{path.stem}_{key}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: expected a Python file, got another kind")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where inspect looks for a class's source
    try:
        text = path.read_bytes() if content is None else content
        exec(compile(text, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[spec.name]
        line = getattr(error, "lineno", None) or _last_line(error, path)
        where = f", line {line}" if line else ""
        raise ValueError(f"{path}{where}: {type(error).__name__}: {error}") from error
    return module


def _entry(path: Path) -> Entry:
    tree = ast.parse(path.read_text())
    public = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
    title, _, rest = (ast.get_docstring(tree, clean=False) or "").partition("\n")
    lines = [line for line in rest.splitlines() if line.startswith("    ")]
    return Entry(path.stem, path, public[0], title, textwrap.dedent("\n".join(lines)))


def _close(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _last_line(error: Exception, path: Path) -> int | None:
    """Line of the file in which an exception was raised."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if Path(frame.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
