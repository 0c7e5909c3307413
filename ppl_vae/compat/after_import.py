"""Code that runs once another package has been imported, without importing that package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_import(package: str, action: Callable[[], object]) -> None:
    """Call a function as soon as a package has been imported; at once if that has happened.

    ``import ppl_vae`` loads neither torch nor Pyro, but has something to do before the user makes
    the first torch module, and the user may import torch after the library. Python offers one
    place to wait: it asks every object in ``sys.meta_path`` for each module that is imported. The
    object put there by this function answers for one name only. Asked for it, it leaves the list,
    lets the other finders find the package as ever, and replaces the method ``exec_module`` of
    the loader that they give, on this one loader object and for one call: the package executes,
    the method is itself again, and the function is called. The package is left with its own
    loader and its own spec. If the package fails to import, the function is never called.

    Args:
        package: Name of a top-level package.
        action: The function. It may import the package.
    """
    if package in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Waiting(package, action))


class _Waiting(MetaPathFinder):
    """A finder that waits for one package; see ``after_import``."""

    def __init__(self, package: str, action: Callable[[], object]) -> None:
        self.package, self.action = package, action

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the awaited package, whose loader calls the action afterwards."""
        if name != self.package:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def execute_then_act(module: ModuleType) -> None:
                del loader.exec_module  # the replacement, an attribute of this one object
                execute(module)
                self.action()

            setattr(loader, "exec_module", execute_then_act)  # noqa: B010  mypy forbids the other
        return spec
