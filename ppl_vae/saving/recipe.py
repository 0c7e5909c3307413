"""Build a model or guide whose sizes and scales come from the data.

features     width of a row                    categories   largest code + 1, over all cells
rows         number of rows                    loc, scale   mean and standard deviation
of each feature
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn


def describe(half: Any, partners: dict[str, Any], *, strict: bool = False) -> dict[str, Any]:
    """The recipe of an object.

    Args:
        half: An instance of a library class, or of a class in a file.
        partners: ``{"model": model}``: what an argument may refer to instead of a value.
        strict: Whether every argument must be told, also one that has a default.

    Raises:
        NoRecipe: Where an argument cannot be told; says which.
    """
    cls = type(half)
    recipe: dict[str, Any] = {"class": f"{cls.__module__}:{cls.__qualname__}", "arguments": {}}
    if not _in_library(cls):
        if not isinstance(half, nn.Module) or "." in cls.__qualname__:
            raise NoRecipe(f"{cls.__qualname__} is not a class of a module")
        source = _source_file(cls)
        if source is None:
            raise NoRecipe(f"{cls.__name__} is defined in the program itself, not in a file")
        recipe["file"] = source
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            recipe["arguments"][name] = _tell(getattr(half, name), partners)
        except (AttributeError, NoRecipe) as error:
            if strict or parameter.default is parameter.empty:
                raise NoRecipe(f"{cls.__name__}: argument {name}: {error}") from error
    return recipe


def rebuild(recipe: dict[str, Any], classes: dict[str, type], partners: dict[str, Any]) -> Any:
    """Make the object of a recipe.

    Args:
        recipe: From ``describe``.
        classes: The classes that are not the library's, by ``"file:module:Class"``.
        partners: As in ``describe``.

    Raises:
        ValueError: Where the recipe names a class that may not be used, or it does not build.
    """
    file = recipe.get("file")
    name = recipe["class"]
    cls = _library_class(name) if file is None else classes.get(f"{file}:{name}")
    if cls is None:
        raise ValueError(f"expected the source of {recipe['class']}, got none")
    arguments = {
        name: _make(value, classes, partners) for name, value in recipe["arguments"].items()
    }
    return cls(**arguments)


class NoRecipe(ValueError):  # noqa: N818  an answer more than a fault
    """An object whose constructor arguments cannot be told."""


_LIBRARY = ("ppl_vae.models.", "ppl_vae.guides.", "ppl_vae.nn.")
_ACTIVATIONS = ("torch.nn.modules.activation", "torch.nn.modules.linear")
LONGEST = 100_000  # numbers in a tensor that a recipe may hold


def _in_library(cls: type) -> bool:
    return cls.__module__.startswith(_LIBRARY)


def _source_file(cls: type) -> str | None:
    if cls.__module__ == "__main__":
        return None
    try:
        return inspect.getsourcefile(cls)
    except (OSError, TypeError):
        return None


def _tell(value: Any, partners: dict[str, Any]) -> Any:
    """A value as JSON."""
    for name, partner in partners.items():
        if value is partner:
            return {"partner": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return {"list": [_tell(item, partners) for item in value], "tuple": type(value) is tuple}
    if isinstance(value, Tensor) and value.numel() <= LONGEST:
        kept = value.detach().cpu()
        return {"tensor": kept.tolist(), "dtype": str(kept.dtype).partition(".")[2]}
    if isinstance(value, type) and value.__module__ in _ACTIVATIONS:
        return {"type": value.__name__}
    if isinstance(value, nn.Module) and _in_library(type(value)):
        return {"object": describe(value, partners)}
    raise NoRecipe(f"a {type(value).__name__} has no place in JSON")


def _make(value: Any, classes: dict[str, type], partners: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if "partner" in value:
        return partners[value["partner"]]
    if "list" in value:
        items = [_make(item, classes, partners) for item in value["list"]]
        return tuple(items) if value["tuple"] else items
    if "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if "type" in value:
        return getattr(nn, value["type"])
    return rebuild(value["object"], classes, partners)


def _library_class(name: str) -> type:
    module, _, qualname = name.partition(":")
    if not module.startswith(_LIBRARY) or not qualname.isidentifier():
        raise ValueError(f"expected a class of the library, got {name}")
    found = getattr(importlib.import_module(module), qualname, None)
    if not isinstance(found, type) or not _in_library(found):
        raise ValueError(f"expected a class of the library, got {name}")
    return found
