"""The recipe of a model or a guide: its class and constructor arguments, as JSON can hold them.

    {"class": "module:Class", "arguments": {name: value, ...}}          a class of the library
    {"class": "module:Class", "arguments": {...}, "file": "mine.py"}    a class of the user's

``describe`` writes the recipe of an object, ``rebuild`` makes an object from a recipe. The values
of the arguments are read from the object's attributes of the same names. A value is written as

    None, number, text     itself                  list, tuple      {"list": [...], "tuple": bool}
    tensor                 {"tensor": nested lists, "dtype": "float32"}
    activation class       {"type": "ReLU"}        the other half   {"partner": "model"}
    network of ppl_vae.nn  {"object": its own recipe}

A recipe is read from attributes: the constructor argument ``latents`` from ``model.latents``. That
is a guess. An attribute may hold something else than the argument of its name, and a network of
the right sizes may have another activation. So the guess is tested before it is stored. The recipe
builds a second pair, the weights of the first are loaded into it, and both pairs are run on the
same rows with the same random state. Only where every drawn value and every log-probability agree
bit for bit is the recipe stored. Otherwise the run holds weights alone, and ``load`` asks for the
pair.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.core import sites
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, Rows

ROWS_COMPARED = 16
"""The most rows on which a rebuilt pair is compared with the original."""


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
        source = source_of(half)
        if source is None or cls.__module__ == "__main__":
            raise NoRecipeError(
                f"{cls.__name__} is defined in the running program or notebook, not in a file "
                "that can be imported"
            )
        recipe["file"] = str(source)
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
    given = recipe["arguments"].items()
    return cls(**{name: _from_json(value, classes, partners) for name, value in given})


class NoRecipeError(ValueError):
    """An object whose class or constructor arguments cannot be written as JSON."""


_LIBRARY_MODULES = ("ppl_vae.models.", "ppl_vae.guides.", "ppl_vae.nn.")
_ACTIVATION_MODULES = ("torch.nn.modules.activation", "torch.nn.modules.linear")
LARGEST_TENSOR = 100_000
"""The most numbers that a tensor in a recipe may hold; larger ones belong into the weights."""


def _is_library_class(cls: type) -> bool:
    """Return whether a class is a model, a guide or a network of the library."""
    return cls.__module__.startswith(_LIBRARY_MODULES)


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


# Both halves of a pair, and the files that they came from


def rebuild_pair(recipe: dict[str, Any], classes: dict[str, type]) -> tuple[Model, Guide]:
    """Return a new model and guide made from the recipe of a pair.

    A half that takes the other half as an argument is made after it. The constructors draw initial
    weights from a copy of the random state, so the caller's generators do not move.

    Args:
        recipe: ``{"model": recipe, "guide": recipe or None}``.
        classes: The user's classes, by ``"file:module:Class"``.

    Raises:
        ValueError: If a class is missing, or not one of the library.
    """
    partners: dict[str, Any] = {}
    order = ["model", "guide"]
    if '{"partner": "guide"}' in json.dumps(recipe["model"]):
        order.reverse()
    for role in order:
        with forked(0):
            half = recipe[role]
            partners[role] = None if half is None else rebuild(half, classes, partners)
    return partners["model"], partners["guide"]


def read_sources(pair: Pair) -> dict[str, bytes]:
    """Return the contents of the files that define the model and the guide.

    Returns:
        ``{"source/model.py": contents, "source/guide.py": contents}``: the keys are the places of
        the copies in a run directory. A half that no file defines, or the prior, is left out.
    """
    sources: dict[str, bytes] = {}
    for half in (pair.model, pair.guide):
        file = None if half.is_prior else source_of(half.base)
        if file is not None:
            sources[f"source/{half.role}.py"] = file.read_bytes()
    return sources


def source_text(base: Model) -> str:
    """Return the text of the class or the function that defines a model or a guide.

    Raises:
        OSError: If the text cannot be found.
    """
    return inspect.getsource(base if inspect.isroutine(base) else type(base))


def source_of(base: Model) -> Path | None:
    """Return the file that defines a model or a guide; ``None`` where there is no such file."""
    try:
        file = inspect.getsourcefile(base if inspect.isroutine(base) else type(base))
    except (OSError, TypeError):
        return None
    return Path(file) if file is not None and Path(file).is_file() else None


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


def proven_recipe(
    pair: Pair, rows: Rows | None, sources: dict[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """Return a recipe that was tested to rebuild the same pair, or the reason why there is none.

    Args:
        pair: The pair to describe.
        rows: Rows on which the rebuilt pair is compared. If ``None``, nothing can be compared, so
            every constructor argument must be an attribute, even one that has a default.
        sources: Checksums of the copied source files, by their place in the run directory.

    Returns:
        ``(recipe, "")``, or ``(None, reason)``.
    """
    try:
        recipe, classes = _describe_pair(pair, sources, strict=rows is None)
        rebuilt = Pair.of(*rebuild_pair(recipe, classes), pair.plate)
        for module in rebuilt.modules():  # devices draw different numbers from one seed
            module.to(pair.device())
        rebuilt.load_tensors(pair.tensors(), None if rows is None else _first_rows(rows))
        if rows is not None:
            batch = _first_rows(rows, pair.device())
            numbers, again = (_values_and_log_probs(p, batch) for p in (pair, rebuilt))
            if not _equal(numbers, again):
                raise NoRecipeError(
                    "the rebuilt pair gives other numbers: a constructor argument is not stored "
                    "as an attribute of the same name"
                )
    except ValueError as error:
        return None, str(error)
    except Exception as error:  # a constructor may be anybody's code
        return None, f"{type(error).__name__}: {error}"
    return recipe, ""


def _describe_pair(
    pair: Pair, sources: dict[str, str], *, strict: bool
) -> tuple[dict[str, Any], dict[str, type]]:
    """Return the recipe of both halves, and the user's classes that the recipe names.

    Raises:
        NoRecipeError: If a half cannot be described, or its file was not copied into the run.
    """
    model, guide = pair.model.base, None if pair.guide.is_prior else pair.guide.base
    recipe: dict[str, Any] = {
        "model": describe(model, {} if guide is None else {"guide": guide}, strict=strict),
        "guide": None if guide is None else describe(guide, {"model": model}, strict=strict),
    }
    classes: dict[str, type] = {}
    for role, half in (("model", model), ("guide", guide)):
        described = recipe[role]
        if described is None or "file" not in described:
            continue
        described["file"] = f"source/{role}.py"
        if described["file"] not in sources:
            raise NoRecipeError(f"the file of {described['class']} cannot be read")
        classes[f"{described['file']}:{described['class']}"] = type(half)
    return recipe, classes


def _first_rows(rows: Rows, device: torch.device | None = None) -> Batch:
    """Return a batch of the first rows, at most ``ROWS_COMPARED``."""
    return rows.take(torch.arange(min(len(rows), ROWS_COMPARED)), device)


def _values_and_log_probs(pair: Pair, batch: Batch) -> list[Tensor]:
    """Return the value and the log-probability of every sample site, model first, from seed 0."""
    with forked(0), pair.evaluating(), pyro.validation_enabled(False):
        traces = sites.traces(pair, batch)
    drawn = [site for trace in traces for site in sites.sample_sites(trace).values()]
    return [tensor for s in drawn for tensor in (s["value"], s["fn"].log_prob(s["value"]))]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    """Return whether two lists hold the same tensors, bit for bit."""
    return len(first) == len(second) and all(map(torch.equal, first, second))
