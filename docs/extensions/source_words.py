"""The words of an expression in the library's source, as far as they stand there.

An error's text is an f-string, a sum of strings, a name that was given one before, or what a
function of the library returns. What is filled in while the library runs is an ellipsis.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("ppl_vae", "models", "guides")
HOLE = "…"
MOST = 4  # alternatives of one message that are told apart
THREE_PARTS = {"Cause", "PlateFault"}  # tuples of place, problem and mend, which make a message
PUNCTUATION = ([": "], ["; "], [""])
DEEPEST = 4  # names and calls that are followed from an expression to its words


@dataclass(frozen=True)
class Module:
    """A source file: its functions and classes by name, and what it imports from the library."""

    path: str
    tree: ast.Module
    functions: dict[str, ast.FunctionDef]
    classes: dict[str, ast.ClassDef]
    imported: dict[str, str]  # {name: module that it comes from}


@cache
def modules() -> dict[str, Module]:
    """Return every source file by its module name, such as ``"ppl_vae.data.files"``."""
    found = {}
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            path = file.relative_to(ROOT).as_posix()
            nodes = list(ast.walk(tree))
            found[path.removesuffix(".py").replace("/", ".")] = Module(
                path,
                tree,
                {n.name: n for n in nodes if isinstance(n, ast.FunctionDef)},
                {n.name: n for n in nodes if isinstance(n, ast.ClassDef)},
                {
                    a.asname or a.name: n.module or ""
                    for n in nodes
                    if isinstance(n, ast.ImportFrom)
                    for a in n.names
                },
            )
    return found


def _definition(name: str, module: Module) -> tuple[ast.AST, Module] | None:
    """Return the function or class that a name stands for in a module, and its module."""
    for _ in range(2):
        node = module.functions.get(name) or module.classes.get(name)
        if node is not None:
            return node, module
        if module.imported.get(name, "") not in modules():
            return None
        module = modules()[module.imported[name]]
    return None


def name_of(node: ast.AST) -> str:
    """Return the name that is called or read: ``b`` of ``a.b`` and of ``b``; "" for others."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def words(node: ast.AST | None, module: Module, within: ast.AST, depth: int = 0) -> list[str]:
    """Return the texts that an expression may be, at most ``MOST``, with holes; a hole if unknown.

    Args:
        node: The expression.
        module: The file that it stands in.
        within: The function that it stands in, where its names are assigned.
        depth: How many names and calls have been followed so far.
    """
    follows = depth < DEEPEST
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        texts = [node.value]
    elif isinstance(node, ast.JoinedStr):
        texts = _joined([words(part, module, within, depth) for part in node.values])
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = node.left, node.right
        texts = _joined([words(side, module, within, depth) for side in sides])
    elif isinstance(node, ast.IfExp):
        both = [words(n, module, within, depth) for n in (node.body, node.orelse)]
        texts = _few([text for each in both for text in each])
    elif isinstance(node, ast.FormattedValue) and node.conversion == -1 and not node.format_spec:
        texts = words(node.value, module, within, depth)
    elif isinstance(node, ast.Name) and follows:
        texts = _assigned(node.id, module, within, depth)
    elif isinstance(node, ast.Call) and follows:
        texts = _called(node, module, within, depth)
    else:
        texts = [HOLE]
    return texts


def _assigned(name: str, module: Module, within: ast.AST, depth: int) -> list[str]:
    """Return the texts that a name was given in a function."""
    values = [
        node.value
        for node in ast.walk(within)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and name in {name_of(t) for t in getattr(node, "targets", [getattr(node, "target", node)])}
    ]
    texts = [text for value in values for text in words(value, module, within, depth + 1)]
    return _few(texts) if texts else [HOLE]


def _called(node: ast.Call, module: Module, within: ast.AST, depth: int) -> list[str]:
    """Return the texts that a call may give: of ``str``, an exception or a function of ours."""
    name = name_of(node.func)
    if name in THREE_PARTS and len(node.args) == len(PUNCTUATION):
        parts = [words(a, module, within, depth) for a in node.args]
        return _joined([p for pair in zip(parts, PUNCTUATION, strict=True) for p in pair])
    found = _definition(name, module)
    if found is None:
        made = name.endswith(("Error", "Warning")) or name == "str"
        return words(node.args[0], module, within, depth + 1) if made and node.args else [HOLE]
    definition, home = found
    if isinstance(definition, ast.ClassDef):
        return _raised_by_class(node, definition, module, home, within, depth)
    returned = [n.value for n in ast.walk(definition) if isinstance(n, ast.Return)]
    texts = [t for v in returned for t in words(v, home, definition, depth + 1)]
    texts = _few([t for t in texts if t.strip()])
    if any(map(says_something, texts)) or not (node.args and isinstance(node.args[0], ast.Call)):
        return texts or [HOLE]
    return words(node.args[0], module, within, depth + 1)  # a function that adds to an error


def _raised_by_class(
    node: ast.Call, cls: ast.ClassDef, module: Module, home: Module, within: ast.AST, depth: int
) -> list[str]:
    """Return the words of an exception: those its class passes on, else its first argument."""
    for call in (n for n in ast.walk(cls) if isinstance(n, ast.Call)):
        if name_of(call.func) == "__init__" and call.args:
            texts = words(call.args[0], home, cls, depth + 1)
            if any(says_something(text) for text in texts):
                return texts
    return words(node.args[0], module, within, depth + 1) if node.args else [HOLE]


def _joined(parts: list[list[str]]) -> list[str]:
    """Return the texts that texts of parts make together; a part with many is a hole."""
    count = 1
    kept = []
    for part in parts:
        count *= len(part)
        kept.append(part if count <= MOST else [HOLE])
        count = count if count <= MOST else count // len(part)
    return [re.sub(f"{HOLE}+", HOLE, "".join(texts)) for texts in product(*kept)]


def _few(texts: list[str]) -> list[str]:
    """Return texts without repetition, or a hole where there are many."""
    texts = list(dict.fromkeys(texts))
    return texts if len(texts) <= MOST else [HOLE]


def says_something(text: str) -> bool:
    """Whether a text has words of its own."""
    return bool(re.search(r"\w{2}", text))


def functions_of(module: Module) -> Iterator[tuple[str, ast.AST, list[ast.AST]]]:
    """Yield each function of a file, without those inside it: its name, itself, all nodes in it.

    Statements outside all functions come last, under the name "".
    """
    outside: list[ast.AST] = []

    def walk(node: ast.AST) -> Iterator[tuple[str, ast.AST, list[ast.AST]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                yield child.name, child, list(ast.walk(child))
            else:
                outside.append(child)
                yield from walk(child)

    yield from walk(module.tree)
    yield "", module.tree, outside
