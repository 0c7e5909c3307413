"""Classes and functions in Python files of the user's own."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


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
        raise ValueError(f'{path}: no {kind} "{name}" in it' + close_names(name, others))
    return found


def _executed(path: Path, content: bytes | None) -> ModuleType:
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ValueError(f"{path}: no such file" + close_names(str(path), near))
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


def _last_line(error: Exception, path: Path) -> int | None:
    """Line of the file in which an exception was raised."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if Path(frame.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def close_names(name: str, names: Any) -> str:
    """A question that ends an error: which of the known names was meant; empty if none is near."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
