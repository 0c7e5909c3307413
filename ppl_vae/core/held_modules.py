"""The torch modules that a plain function or method computes with.

A ``PyroModule`` holds its networks as attributes. A plain function holds them where no attribute
shows them: in its closure, among the global names of its file, in its default arguments, in what
``functools.partial`` has bound, in lists and dictionaries of networks, and in other functions that
it calls. Parameters are registered with ``pyro.module``, but buffers (the running means of a batch
norm) and the mode of training are not, so that the modules themselves have to be found.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

_LIBRARIES = {"torch", "pyro", "numpy", "pandas", "ppl_vae", "builtins", "functools"}
"""Packages whose functions hold no networks of the user's."""


def held_modules(function: Any) -> dict[str, nn.Module]:
    """Return the modules that a function or a bound method reaches, by the name it has for them.

    Each module stands once, under the first name: ``"encoder"`` for a variable or an attribute,
    ``"networks.0"`` for one in a list, ``"encode.encoder"`` for one that a function uses.

    Args:
        function: The function, ``functools.partial`` or bound method.

    Example:
        >>> encoder = nn.Linear(2, 2)
        >>> list(held_modules(functools.partial(max, key=[encoder])))
        ['key.0']
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for name, module in _walk("", function, seen):
        found.setdefault(name, module)
    return found


def _walk(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules inside a value with their names; values in ``seen`` are passed over."""
    if id(value) in seen:
        return
    if isinstance(value, nn.Module):
        seen.add(id(value))
        yield name, value
        return
    parts = _parts(value)
    if parts:
        seen.add(id(value))
    for key, part in parts.items():
        yield from _walk(f"{name}.{key}" if name else str(key), part, seen)


def _parts(value: Any) -> Mapping[Any, Any]:
    """Return what a value holds, by name: variables, bound arguments, attributes, entries."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if inspect.isfunction(value):
        return {} if _is_of_library(value) else _variables(value)
    if isinstance(value, functools.partial):
        return {**_parts(value.func), **_bound_arguments(value)}
    bound = isinstance(value, types.MethodType)
    owner = value.__self__ if bound else value
    attributes = {} if isinstance(value, type) else getattr(owner, "__dict__", {})
    code = value.__func__ if bound else getattr(type(value), "__call__", None)  # noqa: B004
    if inspect.isfunction(code):
        return {**attributes, **_parts(code)}
    return {name: part for name, part in attributes.items() if isinstance(part, nn.Module)}


def _variables(function: types.FunctionType) -> dict[str, Any]:
    """Return the values behind the names that a function's code uses, and its default arguments."""
    try:
        closure = inspect.getclosurevars(function)
    except ValueError:  # a variable of an outer function that has no value yet
        return {}
    signature = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in signature if p.default is not p.empty}
    reached = {**defaults, **closure.globals, **closure.nonlocals}
    files = [(name, value) for name, value in reached.items() if inspect.ismodule(value)]
    for name, file in files:  # ``networks.encoder(x)``, from a file of the user's
        del reached[name]
        used = {n: getattr(file, n, None) for n in function.__code__.co_names}
        reached |= {f"{name}.{n}": v for n, v in used.items() if isinstance(v, nn.Module)}
    return reached


def _bound_arguments(partial: functools.partial[Any]) -> dict[str, Any]:
    """Return the arguments that a partial has bound, by the names of the function's parameters."""
    try:
        return dict(inspect.signature(partial.func).bind_partial(*partial.args).arguments) | dict(
            partial.keywords
        )
    except (TypeError, ValueError):  # a callable without a signature
        return {**{str(i): value for i, value in enumerate(partial.args)}, **partial.keywords}


def _is_of_library(function: types.FunctionType) -> bool:
    """Return whether a function belongs to a package that holds no networks of the user's."""
    return str(function.__module__).partition(".")[0] in _LIBRARIES
