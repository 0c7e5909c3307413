"""The files of the user's own code that a pair comes from, as they are kept in its run.

    source/model.py, source/guide.py    the files that define the two halves
    source/modules/<module>.py          the user's other files: those that define modules within
                                        the pair, and all that these files import, at any depth

Files of Python, of installed packages and of the library are not kept: they are imported. (The
file of a half is kept always, because a reader of the run wants to see it.) Classes of the running
script or of a notebook are kept as a file of their own (``running.py``).
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Any

from torch import nn

from ppl_vae.core.pair import Model, Pair
from ppl_vae.saving.kept_code import KeptCode, origin
from ppl_vae.saving.running import MAIN, main_text
from ppl_vae.saving.statements import from_module

MOST_FILES = 200
"""The most imported files that a run keeps."""


@dataclass
class Sources:
    """The user's code of a pair.

    Attributes:
        files: The contents of each file, by its path in a run directory.
        modules: The path of each module of the user's, by the name under which it is imported.
        roots: Module and name of the class or function of each half that is the user's, by role.
        missing: Modules of the user's that the kept files import and that are not kept.
        fault: Why the classes of the running program could not be written as a file; or "".
    """

    files: dict[str, bytes] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    roots: dict[str, tuple[str, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    fault: str = ""

    def contents(self) -> dict[str, bytes]:
        """Return the contents of each module of the user's."""
        return {name: self.files[path] for name, path in self.modules.items()}

    def code(self, folder: Path, purpose: str = "") -> KeptCode:
        """Return the modules, ready to be executed from these very bytes."""
        files = {name: (path, self.files[path]) for name, path in self.modules.items()}
        return KeptCode(folder, files, purpose)


def sources_of(pair: Pair) -> Sources:
    """Read the files that define a pair, and those that they import."""
    sources = Sources()
    try:
        own_text = main_text([d for d in _definitions(pair) if d.__module__ == MAIN])
    except ValueError as error:
        own_text, sources.fault = b"", str(error)
    for half in (pair.model, pair.guide):
        if half.is_prior:
            continue
        definition, path = definition_of(half.base), f"source/{half.role}.py"
        content = _content(definition, own_text)
        if content is None:
            continue
        sources.files[path] = content
        if not is_imported(definition):
            name = module_name(definition)
            sources.roots[half.role] = (name, definition.__qualname__.partition(".")[0])
            sources.modules.setdefault(name, path)
    for definition in filter(_is_own, _definitions(pair)):
        content, name = _content(definition, own_text), module_name(definition)
        if content is not None and name not in sources.modules:
            _keep(sources, name, content, is_package=False)
    _keep_imports(sources, _definitions(pair))
    return sources


def source_of(base: Model) -> Path | None:
    """Return the file that defines a model or a guide; ``None`` where there is no such file."""
    try:
        file = inspect.getsourcefile(definition_of(base))
    except (OSError, TypeError):
        return None
    return Path(file) if file is not None and Path(file).is_file() else None


def source_text(base: Model) -> str:
    """Return the text of the class or the function that defines a model or a guide.

    Raises:
        OSError: If the text cannot be found.
    """
    return inspect.getsource(definition_of(base))


def module_name(definition: Any) -> str:
    """Return the name under which the user's code imports the module of a class or function.

    That is its ``__module__``, but for a class that was loaded from a run: the run has given the
    module a name of its own in ``sys.modules``.
    """
    kept = origin(definition.__module__)
    return definition.__module__ if kept is None else kept[1]


def is_imported(definition: Any) -> bool:
    """Return whether a class or function of a half is imported where a run is loaded, and not kept.

    So are those of the library, of torch and of Pyro. The file of another installed package that
    defines a half is kept and executed as if it were the user's.
    """
    file = source_of(definition) if origin(definition.__module__) is None else None
    return file is not None and (in_library(file) or is_of_torch(definition))


def is_of_torch(definition: Any) -> bool:
    """Return whether a class or function is torch's, Pyro's or Python's."""
    top = str(definition.__module__).partition(".")[0]
    return top in ("torch", "pyro") or (top in sys.stdlib_module_names and top != MAIN)


def _is_own(definition: Any) -> bool:
    """Return whether a class or function is the user's own, and of no installed package."""
    if definition.__module__ == MAIN or origin(definition.__module__) is not None:
        return True
    file = source_of(definition)
    return file is not None and _is_users(file)


def in_library(file: Path) -> bool:
    """Return whether a file belongs to the library, at any depth of its folders.

    In a checkout the library is three folders (``ppl_vae``, ``models``, ``guides``), in a wheel
    one. Their places are read from the imported packages, so both layouts hold. A package that
    has not been imported has no class in use.
    """
    names = ("ppl_vae", "ppl_vae.models", "ppl_vae.guides")
    files = [sys.modules[name].__file__ for name in names if name in sys.modules]
    folders = {Path(init).resolve().parent for init in files if init is not None}
    return bool(folders & set(file.resolve().parents))


def definition_of(base: Any) -> Any:
    """Return the class or the function that defines a model or a guide."""
    if inspect.isclass(base):
        return base
    if inspect.ismethod(base):
        return type(base.__self__)
    return base if inspect.isroutine(base) else type(base)


def _definitions(pair: Pair) -> list[Any]:
    """Return the classes and functions of the halves and of the modules within them, each once."""
    halves = [half.base for half in (pair.model, pair.guide) if not half.is_prior]
    found = [definition_of(half) for half in halves]
    for half in halves:
        if isinstance(half, nn.Module):
            found += [type(module) for module in half.modules()]
    own = [thing for thing in found if hasattr(thing, "__qualname__")]
    return list(dict.fromkeys(own))


def _content(definition: Any, own_text: bytes) -> bytes | None:
    """Return the contents of the file of a class or function; ``None`` where there is none."""
    kept = origin(definition.__module__)
    if kept is not None:
        return kept[0].files[kept[1]][1]
    if definition.__module__ == MAIN and own_text:
        return own_text
    file = source_of(definition)
    try:
        return None if file is None else file.read_bytes()
    except OSError:
        return None


def _keep(sources: Sources, name: str, content: bytes, *, is_package: bool) -> None:
    """Add a module to the sources."""
    safe = re.sub(r"[^\w.]", "_", name)  # a file may have a name that no import statement can have
    path = f"source/modules/{safe}{'.__init__' if is_package else ''}.py"
    sources.modules[name] = path
    sources.files[path] = content


def _keep_imports(sources: Sources, definitions: list[Any]) -> None:
    """Add all modules of the user's that the modules of the sources import, at any depth."""
    codes = [kept[0] for d in definitions if (kept := origin(d.__module__)) is not None]
    queue, looked_at = list(sources.modules), set(sources.modules)
    while queue:
        name = queue.pop()
        path = sources.modules[name]
        package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
        for other in _imports(sources.files[path], package, codes):
            if other in looked_at:
                continue
            looked_at.add(other)
            found = _find(other, codes)
            if found is None:
                continue
            if isinstance(found, str) or len(sources.modules) >= MOST_FILES:
                sources.missing.append(other)
                continue
            _keep(sources, other, found[0], is_package=found[1])
            queue.append(other)


def _imports(content: bytes, package: str, codes: list[KeptCode]) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, in functions as well."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                steps = alias.name.split(".")
                yield from (".".join(steps[: i + 1]) for i in range(len(steps)))
        elif isinstance(node, ast.ImportFrom):
            base = from_module(node, package)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield base if _find(submodule, codes) is None else submodule


def _find(name: str, codes: list[KeptCode]) -> tuple[bytes, bool] | str | None:
    """Return a module of the user's: its contents and whether it is a package.

    Returns:
        The path alone where the module is the user's and cannot be kept: a compiled one. ``None``
        where there is no such module, or it is installed.
    """
    for code in codes:
        if name in code.files:
            return code.files[name][1], code.files[name][0].endswith("__init__.py")
    module = sys.modules.get(name)
    found = getattr(module, "__file__", None) if module is not None else _locate(name)
    if not isinstance(found, str) or not _is_users(Path(found)):
        return None
    if found.endswith(tuple(EXTENSION_SUFFIXES)):
        return found
    try:
        return Path(found).read_bytes(), Path(found).name == "__init__.py"
    except OSError:
        return found


def _locate(name: str) -> str | None:
    """Return the file of a module that has not been imported, without importing anything."""
    parent, _, _ = name.rpartition(".")
    search = None
    if parent:
        search = getattr(sys.modules.get(parent), "__path__", None)
        if search is None:
            return None
    try:
        spec = PathFinder.find_spec(name, None if search is None else list(search))
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin


def _is_users(file: Path) -> bool:
    """Return whether a file is the user's own: not Python's, not installed, not the library's."""
    parents = {*file.parents, *file.resolve().parents}
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {Path(sysconfig.get_path(name)) for name in names}
    installed |= {folder.resolve() for folder in installed}
    by_name = {"site-packages", "dist-packages"} & set(file.parts)
    return not (parents & installed or by_name or in_library(file))
