"""The catalog of models and guides: classes by their names on the command line.

    bernoulli               the public class of models/bernoulli.py
    path/to/mine.py:Mine    the class Mine of the user's file, which is executed

The catalog parses the files of the zoo and does not import them, so that a list of all names
loads neither torch nor Pyro. The user's own files are executed as modules.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

ROWS = "Rows: "
"""How the paragraph of a model's docstring begins that says which rows the model is for."""


@dataclass(frozen=True)
class Entry:
    """A file of models/ or guides/, as its text describes it.

    Attributes:
        name: Name on the command line: the file's name without ``.py``.
        path: Path of the file.
        class_name: Name of its public class.
        title: First line of its docstring.
        equations: The indented lines of its docstring.
        rows: Which rows a model is for, as its docstring says after "Rows: "; "" for a guide.
        needs_guide: Whether the file has a ``pyro.sample`` statement that neither observes its site
            (``obs=``) nor asks to be summed out (``infer=``): of a model, a latent for a guide.
    """

    name: str
    path: Path
    class_name: str
    title: str
    equations: str
    rows: str = ""
    needs_guide: bool = True


def zoo(kind: str) -> dict[str, Entry]:
    """Return all files of models/ or of guides/, by name and in alphabetical order.

    Args:
        kind: ``"models"`` or ``"guides"``.

    Example:
        >>> zoo("models")["bernoulli"].class_name
        'BernoulliModel'
    """
    folder = Path(importlib.import_module(f"ppl_vae.{kind}").__path__[0])
    files = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
    return {path.stem: _entry(path, path.read_text(encoding="utf-8")) for path in files}


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
    return cast("type[Any]", getattr(module, entries[spec].class_name))


@functools.cache
def _entry(path: Path, text: str) -> Entry:
    """Parse a file of the zoo, once for each text that the file has had."""
    tree = ast.parse(text)
    public = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"]
    title, _, rest = (ast.get_docstring(tree, clean=False) or "").partition("\n")
    equations = [line for line in rest.splitlines() if line.startswith("    ")]
    paragraphs = [" ".join(paragraph.split()) for paragraph in rest.split("\n\n")]
    about_rows = [text.removeprefix(ROWS) for text in paragraphs if text.startswith(ROWS)]
    return Entry(
        path.stem, path, public[0], title, textwrap.dedent("\n".join(equations)),
        rows=about_rows[0] if about_rows else "",
        needs_guide=any(_draws_latent(node) for node in ast.walk(tree)),
    )  # fmt: skip


def _draws_latent(node: ast.AST) -> bool:
    """Return whether a node is a ``pyro.sample`` statement without ``obs=`` and ``infer=``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    is_sample = node.func.attr == "sample" and ast.unparse(node.func.value) == "pyro"
    return is_sample and not {"obs", "infer"} & {keyword.arg for keyword in node.keywords}


# Files of the user's own


def class_in_file(path: Path, name: str, content: bytes | None = None) -> type[Any]:
    """Execute a Python file and return one of its classes.

    Args:
        path: The file.
        name: Name of the class.
        content: The bytes of the file, where the caller has read and checked them: these bytes
            are executed, whatever stands in the file by now.

    Raises:
        ValueError: If the file or the class does not exist (close names are listed), or if the
            file raises an error; the line is named.
    """
    return cast("type[Any]", _member(path, name, "class", inspect.isclass, content))


def function_in_file(spec: str) -> Callable[..., Any]:
    """Execute a Python file and return the function that ``file.py:name`` stands for.

    Raises:
        ValueError: If the file or the function does not exist (close names are listed), or if
            the file raises an error; the line is named.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ValueError(f'expected "file.py:name", got "{spec}"')
    return cast("Callable[..., Any]", _member(Path(file), name, "function", callable))


def _member(
    path: Path, name: str, kind: str, is_kind: Callable[[Any], bool], content: bytes | None = None
) -> Any:
    """Execute a Python file and return its class or its function that has a name.

    Raises:
        ValueError: If there is none of the kind; close names of the kind are listed.
    """
    members = vars(_execute(path, content))
    if not is_kind(members.get(name)):
        names = [other for other, held in members.items() if is_kind(held)]
        raise ValueError(f'{path}: no {kind} "{name}" in it' + close_names(name, names))
    return members[name]


def _execute(path: Path, content: bytes | None) -> ModuleType:
    """Execute a Python file as a module and return the module.

    The text itself is compiled. Python's import would rather read a compiled file in
    ``__pycache__``, which may be forged to differ from the text that the user has read.

    The module's name contains a hash of the path, so that two files of one name do not collide.
    The module is registered in ``sys.modules``, because ``inspect`` looks there for the source of
    a class.

    Raises:
        ValueError: If the file does not exist or raises an error.
    """
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ValueError(f"{path}: no such file" + close_names(str(path), near))
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"_ppl_vae_{path.stem}_{key}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: expected a Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        text = path.read_bytes() if content is None else content
        exec(compile(text, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[spec.name]
        line = getattr(error, "lineno", None) or _line_of_error(error, path)
        where = f", line {line}" if line else ""
        raise ValueError(f"{path}{where}: {type(error).__name__}: {error}") from error
    return module


def _line_of_error(error: Exception, path: Path) -> int | None:
    """Return the last line of a file in an exception's traceback; ``None`` if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    return lines[-1] if lines else None


def close_names(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" with at most three known names near to a name; "" if none is.

    Example:
        >>> close_names("bernouli", ["bernoulli", "gaussian"])
        '; did you mean bernoulli?'
    """
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
