"""The user's own code as a run directory holds it: modules executed from their kept bytes.

A kept file may import another of the user's files that is kept beside it. That import must give
the kept file, not whatever has the name on this machine. Python looks up the function behind the
``import`` statement in the ``__builtins__`` of the module that imports; each module executed here
gets its own, in which ``__import__`` knows the kept modules and hands all other names to Python's.
So nothing is changed in ``sys.path`` or in the import system, imports inside functions are served
as well whenever they run, and two runs that hold two versions of one file do not meet.
``importlib.import_module("name")`` does not pass through the statement and finds no kept module.

The bytes themselves are compiled. Python's import would rather read a compiled file in
``__pycache__``, which may be forged to differ from the text that the user has read.
"""

from __future__ import annotations

import builtins
import hashlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_vae.zoo.catalog import close_names


class KeptCode:
    """Modules that are executed from bytes, at first use.

    Args:
        folder: The folder from which the modules take their ``__file__``, the run directory.
        files: ``{module: (path in the folder, bytes)}``; the modules by the names under which
            they import each other. A package's own file is called ``__init__.py``, after a dot or
            a slash.
        purpose: Part of the modules' names in ``sys.modules``; modules that are soon to be
            forgotten must not bear the names of those that another call has given away.

    Example:
        >>> files = {"mine": ("mine.py", b"from sizes import A"), "sizes": ("sizes.py", b"A = 3")}
        >>> KeptCode(Path("."), files).member("mine", "A")
        3
    """

    def __init__(
        self, folder: Path, files: Mapping[str, tuple[str, bytes]], purpose: str = ""
    ) -> None:
        self.folder, self.files = folder, dict(files)
        self._modules: dict[str, ModuleType] = {}
        digest = hashlib.sha256(f"{purpose}\0{folder.resolve()}".encode())
        for name, (path, content) in sorted(self.files.items()):
            digest.update(repr((name, path, content)).encode())
        self._key = digest.hexdigest()[:12]

    def member(self, module: str, name: str) -> Any:
        """Return what a module defines under a name.

        Raises:
            ValueError: If the module is not kept or raises an error, or lacks the name.
        """
        if module not in self.files:
            raise ValueError(f"expected the source of {module}:{name}, got none")
        members = vars(self.module(module))
        if name not in members:
            path = self.folder / self.files[module][0]
            raise ValueError(f'{path}: no "{name}" in it' + close_names(name, members))
        return members[name]

    def module(self, name: str) -> ModuleType:
        """Return a kept module, executed at the first call; an empty one for a package not kept.

        Raises:
            ValueError: If the file raises an error; names the line.
        """
        if name in self._modules:
            return self._modules[name]
        parent, _, last = name.rpartition(".")
        if parent:
            self.module(parent)
        if name not in self._modules:  # a package may have imported its own module just now
            self._modules[name] = self._execute(name)
        if parent:
            setattr(self.module(parent), last, self._modules[name])
        return self._modules[name]

    def forget(self) -> None:
        """Remove the modules from ``sys.modules``: their classes were needed for a while only."""
        for module in self._modules.values():
            sys.modules.pop(module.__name__, None)
            _ORIGINS.pop(module.__name__, None)

    def _holds(self, name: str) -> bool:
        """Return whether a module is kept, or is a package of which only modules are kept."""
        above = any(kept.startswith(f"{name}.") for kept in self.files)
        return name in self.files or (above and name not in sys.modules)

    def _execute(self, name: str) -> ModuleType:
        """Execute a module; it is registered before, so that modules may import each other."""
        file, content = self.files.get(name, ("", b""))
        stem = Path(file).stem.replace(".", "_") if file else f"package_{name.replace('.', '_')}"
        module = ModuleType(f"_ppl_vae_{stem}_{self._key}")
        is_package = file == "" or file.endswith("__init__.py")
        module.__file__ = str(self.folder / file)
        module.__package__ = name if is_package else name.rpartition(".")[0]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        self._modules[name] = module
        sys.modules[module.__name__] = module  # ``inspect`` looks here for the source of a class
        _ORIGINS[module.__name__] = (self, name)
        try:
            exec(compile(content, module.__file__, "exec"), vars(module))
        except (Exception, SystemExit) as error:  # a file may end the program
            del self._modules[name]
            self.forget()
            lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)
                     if f.filename == module.__file__]  # fmt: skip
            line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
            where = f", line {line}" if line else ""
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{module.__file__}{where}: {what}") from error
        return module

    def _import(
        self,
        name: str,
        globals_: Mapping[str, Any] | None = None,
        locals_: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Serve one ``import`` statement of a kept module, in the place of ``__import__``."""
        if level:
            package = str((globals_ or {}).get("__package__") or "")
            above = package.split(".")[: len(package.split(".")) - level + 1]
            name = ".".join([*filter(None, above), *filter(None, [name])])
        submodules = [n for n in fromlist or () if f"{name}.{n}" in self.files]
        if not self._holds(name) and not submodules:
            return builtins.__import__(name, globals_, locals_, fromlist or (), 0)
        module = self.module(name)
        for submodule in submodules:
            self.module(f"{name}.{submodule}")
        return module if fromlist else self.module(name.partition(".")[0])


_ORIGINS: dict[str, tuple[KeptCode, str]] = {}


def origin(module: str) -> tuple[KeptCode, str] | None:
    """Return the kept code that a module was executed from, and the name that it has there.

    Args:
        module: Name of the module in ``sys.modules``, the ``__module__`` of a class.

    Returns:
        ``None`` for every other module.
    """
    return _ORIGINS.get(module)
