"""What a definition reaches: the statements of the user's files that it depends on.

``reached_statements`` starts from one class or function and follows names: to the statements at the
top level of the same file that bind them (constants, functions, base classes, imports), and through
imports into other files of the user's. Two versions of the files are the same code for the class
where these statements are the same. Comments, docstrings, layout and all other statements do not
count.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Mapping

Statements = dict[tuple[str, str], str]
"""The text of each reached statement, by (module, name that the statement binds)."""

EVERYTHING = "*"


def reached_statements(files: Mapping[str, bytes], module: str, name: str) -> Statements:
    r"""Return the statements that a class or a function depends on.

    Args:
        files: Contents of the user's files, by the name of the module. Imports of other modules
            are compared by their statement alone.
        module: The module that defines the class or function.
        name: Its name in the module; ``"*"`` stands for everything in it.

    Example:
        >>> text = b"A = 1\nB = 2\ndef f(x):\n    return x + A\n"
        >>> reached_statements({"mine": text}, "mine", "f")
        {('mine', 'f'): 'def f(x):\n    return x + A', ('mine', 'A'): 'A = 1'}
    """
    trees = {key: _tree(content) for key, content in files.items()}
    found: Statements = {}
    queue = [(module, name)]
    seen = set(queue)
    while queue:
        place, wanted = queue.pop()
        for statement in trees[place].body if place in trees else []:
            bound = set(bound_names(statement))
            starred = _starred_module(statement, place, files)
            if wanted not in (EVERYTHING, *bound) and not starred:
                continue
            nexts = []
            if starred:
                nexts = [(starred, wanted)]
            else:
                text = ast.unparse(statement)
                names = sorted(bound) if wanted == EVERYTHING else [wanted]
                for key in ((place, each) for each in names or [text]):
                    found[key] = "\n".join(filter(None, [found.get(key), text]))
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    nexts = list(_imported(statement, place, wanted, files))
                nexts += [(place, other) for other in sorted(global_names(text))]
            for item in nexts:
                if item not in seen:
                    seen.add(item)
                    queue.append(item)
    return found


def global_names(text: str) -> set[str]:
    r"""Return the names that a piece of code reads from the module around it.

    A variable of a function is not among them, even where the module has one of the same name:
    ``symtable``, Python's own analysis of scopes, tells them apart.

    Example:
        >>> sorted(global_names("def f(x):\n    y = x + A\n    return g(y)"))
        ['A', 'g']
    """
    found: set[str] = set()

    def collect(table: symtable.SymbolTable) -> None:
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (symbol.is_global() or top):
                found.add(symbol.get_name())
        for child in table.get_children():
            collect(child)

    table = symtable.symtable("from __future__ import annotations\n" + text, "<text>", "exec")
    collect(table)
    here = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    return found - here


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at the top level of a module binds or changes.

    ``SIZES[0] = 3`` and ``SIZES.append(3)`` change ``SIZES``.
    """
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name  # within an if, a try or a with
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            yield from _root(node)
        elif isinstance(node, ast.Expr):
            yield from _root(getattr(node.value, "func", node))


def from_module(statement: ast.ImportFrom, package: str) -> str:
    """Return the full name of the module that a ``from ... import`` statement names."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    above = parts[: len(parts) - statement.level + 1]
    return ".".join([*filter(None, above), *filter(None, [statement.module])])


def _root(node: ast.AST) -> Iterator[str]:
    """Yield the variable at the left end of ``name.attribute[item]``."""
    if isinstance(node, ast.Name):  # a call of a function changes no name that is in sight
        return
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _imported(
    statement: ast.Import | ast.ImportFrom, place: str, wanted: str, files: Mapping[str, bytes]
) -> Iterator[tuple[str, str]]:
    """Yield what an import statement gives a name: a file of the user's, or a name in one."""
    for alias in statement.names:
        if wanted not in (EVERYTHING, alias.asname or alias.name.partition(".")[0]):
            continue
        if isinstance(statement, ast.Import):
            steps = alias.name.split(".")
            parts = [".".join(steps[: i + 1]) for i in range(len(steps))]
            yield from ((part, EVERYTHING) for part in parts if part in files)
            continue
        for package in (place, place.rpartition(".")[0]):  # a package, or a module in one
            base = from_module(statement, package)
            if f"{base}.{alias.name}" in files:
                yield f"{base}.{alias.name}", EVERYTHING
            elif base in files:
                yield base, alias.name


def _starred_module(statement: ast.stmt, place: str, files: Mapping[str, bytes]) -> str:
    """Return the user's module that ``from module import *`` names; "" for other statements."""
    if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
        for package in (place, place.rpartition(".")[0]):
            base = from_module(statement, package)
            if base in files:
                return base
    return ""


def _tree(content: bytes) -> ast.Module:
    """Parse a file and drop its docstrings; a file that is no Python has no statements."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return ast.Module([], [])
    described = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
    for node in ast.walk(tree):
        if isinstance(node, described) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
