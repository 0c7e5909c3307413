"""Classes that the running script or the notebook defines, written as the text of a file.

The script itself cannot be kept and executed: it would fit again. So what a class needs is written
into a file of its own: the text of the class, of the classes and functions that it reaches, and a
line for each name that they read from around them, by the value that the name has now:

    from torch import nn          modules, and classes and functions of other modules
    WIDTH = 32                    numbers, texts, and lists, tuples and dictionaries of these
    SCALE = torch.tensor([1.0])   small tensors

The values are those of the running program, not those of the text, because the cells of a notebook
are run in any order and more than once. A name with another value (a network, a frame of data)
cannot be written, and the error names it.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import math
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ppl_vae.saving.statements import global_names

MAIN = "__main__"
LARGEST_CONSTANT = 100_000
"""The most characters of a value that is written into the file."""


def main_text(roots: list[Any]) -> bytes:
    """Return a file that defines classes and functions of the running program.

    Args:
        roots: Classes and functions whose ``__module__`` is ``"__main__"``.

    Raises:
        ValueError: If a text is not known, or a name that they read has a value that cannot be
            written; names it.
    """
    writer = _Writer()
    for root in roots:
        writer.define(root)
    parts = ["from __future__ import annotations", "\n".join(sorted(writer.imports))]
    parts += ["\n".join(writer.constants), *writer.definitions.values()]
    return ("\n\n".join(filter(None, parts)) + "\n").encode()


class _Writer:
    """The lines of the file, as they are found.

    Attributes:
        imports: Import statements.
        constants: Assignments.
        definitions: The texts of classes and functions by name, each after those it reaches.
    """

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.constants: list[str] = []
        self.definitions: dict[str, str] = {}
        self._named: set[str] = set()

    def define(self, thing: Any) -> None:
        """Write a class or a function, after everything that it reads from around it."""
        name = thing.__name__
        if name in self._named:
            return
        self._named.add(name)
        text = definition_text(thing)
        around = _namespace(thing)
        for other in sorted(global_names(text)):
            if other in around and other not in self._named:
                self._bind(other, around[other], name)
        self.definitions[name] = text

    def _bind(self, name: str, value: Any, reader: str) -> None:
        """Write the line that gives a name its value."""
        own = getattr(value, "__module__", None) == MAIN
        if own and (inspect.isclass(value) or inspect.isfunction(value)):
            if "." in value.__qualname__ or value.__name__ != name:
                raise ValueError(
                    f"{reader} reads {name}, which is defined within a function or bears another "
                    "name; define it at the top level"
                )
            self.define(value)
            return
        self._named.add(name)
        line = _import_line(name, value)
        if line is not None:
            self.imports.add(line)
            return
        text = _as_text(value)
        if text is None or len(text) > LARGEST_CONSTANT:
            raise ValueError(
                f"{reader} reads {name} of the running program, whose value, a "
                f"{type(value).__name__}, cannot be written into a file; pass it to the "
                "constructor, or define the class in a file that can be imported"
            )
        if "torch." in text or "device(" in text:
            self.imports.add("import torch")
        self.constants.append(f"{name} = {text}")


def definition_text(thing: Any) -> str:
    """Return the text of a class or a function as Python read it, decorators included.

    ``inspect.getsource`` finds no class of a notebook, whose cells are no files. But the code of a
    class's methods names the cell or the file that it came from and its first line, and
    ``linecache`` holds the lines of cells and files alike. So the class statement of that name
    around that line is looked up.

    Raises:
        ValueError: If no text is known, as for what was typed at Python's prompt.
    """
    codes = [function.__code__ for function in _functions(thing)]
    for code in codes:
        lines = linecache.getlines(code.co_filename)
        text = _definition_at("".join(lines), thing.__name__, code.co_firstlineno)
        if text is not None:
            return text
    try:
        if inspect.isclass(thing) and not codes:  # a class without methods
            return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        pass
    raise ValueError(
        f"the text of {thing.__qualname__} is not known, because it was typed at a prompt or made "
        "by exec; define it in a file"
    )


def _definition_at(text: str, name: str, line: int) -> str | None:
    """Return the text of the definition of a name that holds a line; ``None`` if there is none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name != name:
            continue
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        if first <= line <= (node.end_lineno or first):
            return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))
    return None


def _functions(thing: Any) -> Iterator[Any]:
    """Yield the methods that a class defines itself; a function yields itself."""
    if inspect.isfunction(thing):
        yield thing
        return
    for member in vars(thing).values():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        function = inspect.unwrap(function) if callable(function) else function
        own = inspect.isfunction(function) and function.__code__.co_qualname.startswith(
            f"{thing.__qualname__}."
        )
        if own:
            yield function


def _namespace(thing: Any) -> dict[str, Any]:
    """Return the names around a class or a function of the running program."""
    own = next(_functions(thing), None)
    names: dict[str, Any] = vars(sys.modules[MAIN]) if own is None else own.__globals__
    return names


def _import_line(name: str, value: Any) -> str | None:
    """Return the statement that imports a value under a name; ``None`` if none does."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}"
    theirs = getattr(value, "__qualname__", getattr(value, "__name__", None))
    if not isinstance(theirs, str) or "." in theirs:
        return None
    places = [getattr(value, "__module__", None), "torch", "torch.nn.functional", "math"]
    for place in (*places, *list(sys.modules)):  # a builtin function of torch has no module
        module = sys.modules.get(place) if isinstance(place, str) and place != MAIN else None
        if isinstance(module, ModuleType) and vars(module).get(theirs) is value:
            return f"from {place} import {theirs}" + (f" as {name}" if theirs != name else "")
    return None


def _as_text(value: Any) -> str | None:  # noqa: PLR0911  one for each form
    """Return a value as the Python expression that makes it; ``None`` where that is not known."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if type(value) in (bool, int, float, str, bytes, type(None)):
        return repr(value)
    if isinstance(value, torch.dtype):
        return repr(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if type(value) is Tensor and not value.requires_grad and value.layout == torch.strided:
        numbers = _as_text(value.tolist()) if value.numel() <= LARGEST_CONSTANT else None
        return None if numbers is None else f"torch.tensor({numbers}, dtype={value.dtype})"
    if type(value) is dict:
        items = [(_as_text(key), _as_text(item)) for key, item in value.items()]
        if all(None not in item for item in items):
            return "{" + ", ".join(f"{key}: {item}" for key, item in items) + "}"
    if type(value) in (list, tuple):
        texts = [_as_text(item) for item in value]
        if None not in texts:
            inner = ", ".join(str(text) for text in texts)
            if type(value) is list:
                return f"[{inner}]"
            return f"({inner},)" if len(texts) == 1 else f"({inner})"
    return None
