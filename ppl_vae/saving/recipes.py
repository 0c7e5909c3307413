"""The recipe of a model or a guide: its class and constructor arguments, as JSON can hold them.

    {"class": "module:Class", "arguments": {name: value, ...}}          a class that is imported
    {"class": "module:Class", "arguments": {...}, "file": "mine.py"}    a class of the user's
    {"class": "module:name", "function": true, "arguments": {}, ...}    a function of the user's
    {"class": "module:Class", "method": "guide", "shared": true, ...}   a method, here of the object
                                                                        whose method the model is

``describe`` writes the recipe of an object, ``rebuild`` makes an object from a recipe. The
arguments are those that the constructor was given (``construction.py``); of an object made before
the library was imported they are guessed from its attributes of the same names. Arguments that
were not given are left to the constructor. A value is written as

    None, number, text     itself                  list, tuple      {"list": [...], "tuple": bool}
    tensor                 {"tensor": nested lists, "dtype": "float32"}, and "array" of numpy
    dictionary             {"dict": [[key, value], ...], "ordered": bool}
    activation class       {"type": "ReLU"}        the other half   {"partner": "model"}
    activation function    {"activation": "tanh"}  layer's class    {"layer": "torch.nn:Linear"}
    network or layer       {"object": its own recipe}
    torch.dtype, device    {"dtype": "float32"}, {"device": "cpu"}
    the user's function    {"member": "module:name", "file": "mine.py"}
    class of distributions {"distribution": "pyro.distributions:Laplace"}

A class that is imported is one of the library, a layer of ``torch.nn`` (``torch.nn:Linear``, and
``pyro.nn:PyroModule[Linear]``), an autoguide or a network of Pyro. ``proof.py`` tests a recipe
before it is stored.
"""

from __future__ import annotations

import inspect
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.core.pair import Guide, Model
from ppl_vae.core.seeding import forked
from ppl_vae.saving.construction import LARGEST_TENSOR, Unrecorded, arguments_of
from ppl_vae.saving.importable import (
    ACTIVATION_FUNCTIONS,
    ACTIVATIONS,
    distribution_name,
    importable_class,
    importable_distribution,
    imported_name,
)
from ppl_vae.saving.kept_code import KeptCode
from ppl_vae.saving.running import MAIN
from ppl_vae.saving.sources import is_of_torch, module_name, source_of


class NoRecipeError(ValueError):
    """An object whose class or constructor arguments cannot be written as JSON."""


@dataclass(frozen=True)
class _Setting:
    """What the recipes of a pair have in common.

    Attributes:
        partners: Objects that an argument may hold, by the name that refers to them.
        files: Paths of the user's modules in the run directory; ``None`` to name the files as
            they are on this machine.
        recorded: Whether to use the arguments that constructors were given.
        strict: Whether an attribute that cannot be written is an error where the constructor has
            a default.
    """

    partners: Mapping[str, Any]
    files: Mapping[str, str] | None
    recorded: bool
    strict: bool


def describe(
    half: Any,
    partners: Mapping[str, Any],
    *,
    files: Mapping[str, str] | None = None,
    recorded: bool = True,
    strict: bool = False,
) -> dict[str, Any]:
    """Return the recipe of a model, a guide or a network: its class and constructor arguments.

    Args:
        half: An instance of a library class, or of a class at the top level of a user's file; a
            method of such an instance, or a function there.
        partners: Objects that an argument may hold, by the name under which the recipe refers to
            them: ``{"model": model}`` for a guide that takes its model as an argument.
        files: Paths of the user's modules in a run directory, by module; where ``None``, the
            recipe names files of this machine.
        recorded: Whether to use the arguments that the constructors were given. If False, and for
            objects without a record, attributes of the same names are read: a guess.
        strict: Whether an attribute that cannot be written is an error also where the
            constructor has a default. If False, the default is left to the constructor.

    Raises:
        NoRecipeError: If the class or an argument cannot be written; names the argument.

    Example:
        >>> from ppl_vae.nn import Standardize
        >>> describe(Standardize(2.0, torch.tensor(4.0)), {})["arguments"]
        {'loc': 2.0, 'scale': {'tensor': 4.0, 'dtype': 'float32'}}
    """
    setting = _Setting(partners, files, recorded, strict)
    if isinstance(half, FunctionType):
        return {**_member(half, "class", setting), "function": True, "arguments": {}}
    if inspect.ismethod(half):
        return {**_describe(half.__self__, setting), "method": half.__name__}
    return _describe(half, setting)


def rebuild(recipe: dict[str, Any], code: KeptCode, partners: dict[str, Any]) -> Any:
    """Return a new object of the class and with the arguments that a recipe names.

    The weights are those that the constructor draws; stored weights are loaded afterwards.

    Args:
        recipe: A recipe as ``describe`` returns it.
        code: The user's code. No other code is ever imported or executed, whatever the recipe
            says, but the classes that ``importable_class`` allows.
        partners: Objects for ``{"partner": name}``, by name.

    Raises:
        ValueError: If the recipe names a class that is neither in the code nor allowed, or an
            argument that its constructor has not.
    """
    name = recipe["class"]
    cls = code.member(*_split(name)) if "file" in recipe else importable_class(name)
    if recipe.get("function"):
        return cls
    given = {key: _from_json(v, code, partners) for key, v in recipe["arguments"].items()}
    bound = inspect.signature(cls).bind_partial()
    unknown = given.keys() - bound.signature.parameters.keys()
    if unknown:
        raise ValueError(f"{name}: no constructor argument {sorted(unknown)[0]}")
    bound.arguments.update(given)
    return cls(*bound.args, **bound.kwargs)


def rebuild_pair(recipe: dict[str, Any], code: KeptCode) -> tuple[Model, Guide]:
    """Return a new model and guide made from the recipe of a pair.

    A half that takes the other half as an argument is made after it. The constructors draw initial
    weights from a copy of the random state, so the caller's generators do not move.

    Args:
        recipe: ``{"model": recipe, "guide": recipe or None}``.
        code: The user's code.

    Raises:
        ValueError: If a class is missing, or not one that a recipe may name.
    """
    partners: dict[str, Any] = {}
    if recipe["guide"] is not None and recipe["guide"].get("shared"):
        with forked(0):
            owner = rebuild(recipe["model"], code, {})
        return _method(owner, recipe["model"]), _method(owner, recipe["guide"])
    order = ["model", "guide"]
    if '{"partner": "guide"}' in json.dumps(recipe["model"]):
        order.reverse()
    for role in order:
        with forked(0):
            half = recipe[role]
            made = None if half is None else rebuild(half, code, partners)
            partners[role] = _method(made, half) if half is not None and "method" in half else made
    return partners["model"], partners["guide"]


def _method(owner: Any, recipe: dict[str, Any]) -> Any:
    """Return the method that a recipe names, of an object of the user's own class."""
    if "file" not in recipe:
        raise ValueError(f"expected a method of the user's own class, got one of {recipe['class']}")
    return getattr(owner, recipe["method"])


def users_files(recipe: Any) -> list[str]:
    """Return the files of the user's own code that a recipe names, each once, at any depth."""
    return sorted({part["file"] for part in _parts(recipe) if "file" in part})


_CONTAINERS = {nn.Sequential: "args", nn.ModuleList: "modules", nn.ModuleDict: "modules"}


def _describe(module: Any, setting: _Setting) -> dict[str, Any]:
    """Return the recipe of an object; see ``describe``."""
    cls = type(module)
    name = imported_name(cls)
    if name is None:
        if not isinstance(module, nn.Module) or "." in cls.__qualname__:
            raise NoRecipeError(
                f"{cls.__qualname__} is not a torch module class at the top level of a file"
            )
        recipe = {**_member(cls, "class", setting), "arguments": {}}
    else:
        recipe = {"class": name, "arguments": {}}
    given = _children(module) or (arguments_of(module) if setting.recorded else None)
    if given is None:
        return {**recipe, "arguments": _from_attributes(module, setting)}
    for argument, value in given.items():
        try:
            recipe["arguments"][argument] = _to_json(value, setting)
        except NoRecipeError as error:
            raise NoRecipeError(f"{cls.__name__}: argument {argument}: {error}") from error
    return recipe


def _children(module: Any) -> dict[str, Any] | None:
    """Return the layers of a container of torch, as it holds them now, as its one argument."""
    for container, argument in _CONTAINERS.items():
        if type(module) not in (container, PyroModule[container]):
            continue
        layers = dict(module.named_children())
        if len(layers) != len(module):  # a layer that stands in two places, or None
            return None
        numbered = list(layers) == [str(i) for i in range(len(layers))]
        if container is nn.Sequential:
            values = tuple(layers.values()) if numbered else (OrderedDict(layers),)
            return {argument: values}
        return {argument: list(layers.values()) if container is nn.ModuleList else layers}
    return None


def _from_attributes(module: Any, setting: _Setting) -> dict[str, Any]:
    """Return constructor arguments guessed from an object's attributes of the same names."""
    arguments = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            arguments[name] = _to_json(getattr(module, name), setting)
        except (AttributeError, NoRecipeError) as error:
            if setting.strict or parameter.default is parameter.empty:
                place = f"{type(module).__name__}: argument {name}"
                raise NoRecipeError(f"{place}: {error}") from error
    return arguments


def _member(thing: Any, key: str, setting: _Setting) -> dict[str, Any]:
    """Return the name and the file of a class or a function of the user's.

    Raises:
        NoRecipeError: If it is not at the top level of a file, or the file is not kept.
    """
    if "." in thing.__qualname__ or not thing.__qualname__.isidentifier():
        raise NoRecipeError(
            f"{thing.__qualname__} is not a torch module class at the top level of a file"
        )
    place = module_name(thing)
    if is_of_torch(thing):
        raise NoRecipeError(f"{thing.__qualname__} of {place} is none that a recipe may name")
    file = source_of(thing) if setting.files is None else setting.files.get(place)
    if file is None:
        where = "the running program or notebook" if place == MAIN else place
        raise NoRecipeError(f"the file of {thing.__qualname__}, of {where}, cannot be read")
    return {key: f"{place}:{thing.__qualname__}", "file": str(file)}


def _to_json(value: Any, setting: _Setting) -> Any:  # noqa: PLR0911, PLR0912  one for each form
    """Return the value of an argument in the form that the module's docstring lists.

    Raises:
        NoRecipeError: If the value has none of the listed types.
    """
    for role, partner in setting.partners.items():
        if value is partner:
            return {"partner": role}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = [_to_json(item, setting) for item in value]
        return {"list": items, "tuple": isinstance(value, tuple)}
    if isinstance(value, dict):
        pairs = [[_to_json(k, setting), _to_json(item, setting)] for k, item in value.items()]
        return {"dict": pairs, "ordered": isinstance(value, OrderedDict)}
    if isinstance(value, Tensor) and value.numel() <= LARGEST_TENSOR and not value.is_complex():
        tensor = value.detach().cpu()
        return {"tensor": tensor.tolist(), "dtype": str(tensor.dtype).partition(".")[2]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).partition(".")[2]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, nn.Module):
        return {"object": _describe(value, setting)}
    name = getattr(value, "__name__", "")
    if name in ACTIVATIONS and getattr(nn, name) is value:
        return {"type": name}
    for activation, function in ACTIVATION_FUNCTIONS.items():
        if value is function:
            return {"activation": activation}
    if isinstance(value, type) and imported_name(value) is not None:
        return {"layer": imported_name(value)}
    if isinstance(value, type) and distribution_name(value) is not None:
        return {"distribution": distribution_name(value)}
    if isinstance(value, FunctionType | type) and _is_users(value, setting):
        return _member(value, "member", setting)
    got = value.type_name if isinstance(value, Unrecorded) else type(value).__name__
    raise NoRecipeError(f"a {got} cannot be written as JSON")


def _is_users(thing: Any, setting: _Setting) -> bool:
    """Return whether a function or class is the user's and its file is kept."""
    return setting.files is not None and module_name(thing) in setting.files


def _from_json(  # noqa: PLR0911, PLR0912  one for each form
    value: Any, code: KeptCode, partners: dict[str, Any]
) -> Any:
    """Return the value of an argument that ``_to_json`` wrote.

    Raises:
        ValueError: If the value is in none of the forms.
    """
    if not isinstance(value, dict):
        return value
    if "partner" in value:
        return partners[value["partner"]]
    if "list" in value:
        items = [_from_json(item, code, partners) for item in value["list"]]
        return tuple(items) if value["tuple"] else items
    if "dict" in value:
        kind = OrderedDict if value["ordered"] else dict
        pairs = [[_from_json(part, code, partners) for part in pair] for pair in value["dict"]]
        return kind(pairs)
    if "tensor" in value:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if "array" in value:
        return np.array(value["array"], dtype=np.dtype(value["dtype"]))
    if "type" in value:
        if value["type"] not in ACTIVATIONS:
            raise ValueError(f"expected an activation of torch.nn, got {value['type']!r}")
        return getattr(nn, value["type"])
    if "activation" in value:
        return ACTIVATION_FUNCTIONS[value["activation"]]
    if "layer" in value:
        return importable_class(value["layer"])
    if "distribution" in value:
        return importable_distribution(value["distribution"])
    if "member" in value:
        return code.member(*_split(value["member"]))
    if "device" in value:
        return torch.device(value["device"])
    if "dtype" in value:
        dtype = getattr(torch, value["dtype"], None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"expected a dtype of torch, got {value['dtype']!r}")
        return dtype
    return rebuild(value["object"], code, partners)


def _split(name: str) -> tuple[str, str]:
    """Return the module and the name in it of ``"module:name"``."""
    place, _, member = name.partition(":")
    return place, member


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary within a JSON value, from the outside in."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _parts(item)
