"""The recipe of a model or a guide: its class and constructor arguments, as JSON can hold them.

    {"class": "module:Class", "arguments": {name: value, ...}}          a class of the library
    {"class": "module:Class", "arguments": {...}, "file": "mine.py"}    a class of the user's

``describe`` writes the recipe of an object, ``rebuild`` makes an object from a recipe. The values
of the arguments are read from the object's attributes of the same names. A value is written as

    None, number, text     itself                  list, tuple      {"list": [...], "tuple": bool}
    tensor                 {"tensor": nested lists, "dtype": "float32"}
    activation class       {"type": "ReLU"}        the other half   {"partner": "model"}
    network of ppl_vae.nn  {"object": its own recipe}
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn


def describe(half: Any, partners: dict[str, Any], *, strict: bool = False) -> dict[str, Any]:
    """Return the recipe of a model, a guide or a network: its class and constructor arguments.

    The recipe is a guess as long as nobody has rebuilt the object and compared: an attribute may
    have the name of an argument and hold something else.

    Args:
        half: An instance of a library class, or of a class at the top level of a user's file.
        partners: Objects that an argument may hold, by the name under which the recipe refers to
            them: ``{"model": model}`` for a guide that takes its model as an argument.
        strict: Whether an argument whose value cannot be written is an error also where the
            constructor has a default. If False, the default is left to the constructor.

    Raises:
        NoRecipeError: If the class or an argument cannot be written; names the argument.

    Example:
        >>> from ppl_vae.nn import Standardize
        >>> describe(Standardize(2.0, 4.0), {})["arguments"]["loc"]
        {'tensor': 2.0, 'dtype': 'float32'}
    """
    cls = type(half)
    recipe: dict[str, Any] = {"class": f"{cls.__module__}:{cls.__qualname__}", "arguments": {}}
    if not _is_library_class(cls):
        if not isinstance(half, nn.Module) or "." in cls.__qualname__:
            raise NoRecipeError(
                f"{cls.__qualname__} is not a torch module class at the top level of a file"
            )
        source = _source_path(cls)
        if source is None:
            raise NoRecipeError(
                f"{cls.__name__} is defined in the running program or notebook, not in a file "
                "that can be imported"
            )
        recipe["file"] = source
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            recipe["arguments"][name] = _to_json(getattr(half, name), partners)
        except (AttributeError, NoRecipeError) as error:
            if strict or parameter.default is parameter.empty:
                raise NoRecipeError(f"{cls.__name__}: argument {name}: {error}") from error
    return recipe


def rebuild(recipe: dict[str, Any], classes: dict[str, type], partners: dict[str, Any]) -> Any:
    """Return a new object of the class and with the arguments that a recipe names.

    The weights are those that the constructor draws; stored weights are loaded afterwards.

    Args:
        recipe: A recipe as ``describe`` returns it.
        classes: The user's classes, by ``"file:module:Class"``. Library classes are imported; no
            other code is ever imported or executed, whatever the recipe says.
        partners: Objects for ``{"partner": name}``, by name.

    Raises:
        ValueError: If the recipe names a class that is neither in ``classes`` nor a library class.
    """
    file = recipe.get("file")
    name = recipe["class"]
    cls = _library_class(name) if file is None else classes.get(f"{file}:{name}")
    if cls is None:
        raise ValueError(f"expected the source of {name}, got none")
    arguments = {
        argument: _from_json(value, classes, partners)
        for argument, value in recipe["arguments"].items()
    }
    return cls(**arguments)


class NoRecipeError(ValueError):
    """An object whose class or constructor arguments cannot be written as JSON."""


_LIBRARY_MODULES = ("ppl_vae.models.", "ppl_vae.guides.", "ppl_vae.nn.")
_ACTIVATION_MODULES = ("torch.nn.modules.activation", "torch.nn.modules.linear")
LARGEST_TENSOR = 100_000
"""The most numbers that a tensor in a recipe may hold; larger ones belong into the weights."""


def _is_library_class(cls: type) -> bool:
    """Return whether a class is a model, a guide or a network of the library."""
    return cls.__module__.startswith(_LIBRARY_MODULES)


def _source_path(cls: type) -> str | None:
    """Return the path of the file that defines a class; ``None`` for a script or a notebook."""
    if cls.__module__ == "__main__":
        return None
    try:
        return inspect.getsourcefile(cls)
    except (OSError, TypeError):
        return None


def _to_json(value: Any, partners: dict[str, Any]) -> Any:
    """Return the value of an argument in the form that the module's docstring lists.

    Raises:
        NoRecipeError: If the value has none of the listed types.
    """
    for name, partner in partners.items():
        if value is partner:
            return {"partner": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_to_json(item, partners) for item in value]
        return {"list": items, "tuple": type(value) is tuple}
    if isinstance(value, Tensor) and value.numel() <= LARGEST_TENSOR:
        tensor = value.detach().cpu()
        return {"tensor": tensor.tolist(), "dtype": str(tensor.dtype).partition(".")[2]}
    if isinstance(value, type) and value.__module__ in _ACTIVATION_MODULES:
        return {"type": value.__name__}
    if isinstance(value, nn.Module) and _is_library_class(type(value)):
        return {"object": describe(value, partners)}
    raise NoRecipeError(f"a {type(value).__name__} cannot be written as JSON")


def _from_json(value: Any, classes: dict[str, type], partners: dict[str, Any]) -> Any:
    """Return the value of an argument that ``_to_json`` wrote."""
    if not isinstance(value, dict):
        return value
    if "partner" in value:
        return partners[value["partner"]]
    if "list" in value:
        items = [_from_json(item, classes, partners) for item in value["list"]]
        return tuple(items) if value["tuple"] else items
    if "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if "type" in value:
        return getattr(nn, value["type"])
    return rebuild(value["object"], classes, partners)


def _library_class(name: str) -> type:
    """Import the class of the library that ``"module:Class"`` names.

    A recipe is data from anywhere, so a name that leads to other code is refused: the module must
    lie in one of three folders, and what is found there must be a class defined in them.

    Raises:
        ValueError: If the name is not that of a class of the library.
    """
    module, _, qualname = name.partition(":")
    if not module.startswith(_LIBRARY_MODULES) or not qualname.isidentifier():
        raise ValueError(f"expected a class of the library, got {name}")
    cls = getattr(importlib.import_module(module), qualname, None)
    if not isinstance(cls, type) or not _is_library_class(cls):
        raise ValueError(f"expected a class of the library, got {name}")
    return cls
