"""From words on the command line to data and a pair."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ppl_vae
from ppl_vae.cli.console import UsageError, usage
from ppl_vae.zoo.catalog import find_class, zoo
from ppl_vae.zoo.source_files import function_in_file

NO_GUIDE = "none"


def read(path: Path, like: Any = None) -> Any:
    """The data of a file; ``like`` is rows in the form to bring them into.

    Raises:
        UsageError: Where there is no such file.
        ValueError: Where it cannot be read.
    """
    from ppl_vae.data.files import check_exists, read_data  # noqa: PLC0415  pandas loads slowly

    with usage():
        check_exists(path)
    return read_data(path, like)


def function(spec: str) -> Any:
    """The function that ``file.py:name`` stands for.

    Raises:
        UsageError: Where there is none.
    """
    with usage():
        return function_in_file(spec)


def check_names(model: str, guide: str) -> None:
    """Refuse, before anything slow, names and files that are not there."""
    for spec, kind in ((model, "models"), (guide, "guides")):
        if _path(spec) is None and not (kind == "guides" and spec == NO_GUIDE):
            check_in_zoo(spec, kind)


def check_in_zoo(name: str, kind: str) -> None:
    """Refuse a name that the zoo does not have.

    Raises:
        UsageError: With the close names.
    """
    names = list(zoo(kind))
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    own = (
        f"{name}:Class is one of your own"
        if name.endswith(".py")
        else f"zoo has {', '.join(names)}"
    )
    raise UsageError(f'no {kind[:-1]} "{name}": the {own}{hint}')


def build_pair(
    model: str, guide: str, data: Any, settings: Sequence[str] | None, seed: int
) -> tuple[Any, Any]:
    """The pair that two names stand for, its arguments from the settings and the data.

    Args:
        model: Zoo name or ``file.py:Class``.
        guide: Likewise, or ``none``.
        data: Rows, in any form that ``fit`` takes.
        settings: ``NAME=VALUE`` each.
        seed: Seeds the first weights.

    Raises:
        UsageError: For an unknown name or setting.
        ValueError: For a file that does not import, or a constructor that refuses.
    """
    import pyro  # noqa: PLC0415  loads torch

    classes = {"model": _find(model, "models")}
    if guide != NO_GUIDE:
        classes["guide"] = _find(guide, "guides")
    arguments = assign(settings or (), classes)
    pyro.set_rng_seed(seed)
    made: dict[str, Any] = {}
    reads = inspect.signature(classes["model"]).parameters
    for half in sorted(classes, reverse="guide" not in reads):  # a partner is made first
        takes = inspect.signature(classes[half]).parameters
        partner = {name: built for name, built in made.items() if name in takes}
        made[half] = _construct(classes[half], data, {**partner, **arguments[half]})
    return made["model"], made.get("guide")


def assign(settings: Sequence[str], classes: Mapping[str, type[Any]]) -> dict[str, dict[str, Any]]:
    """Settings to constructor arguments: ``{"model": {...}, "guide": {...}}``.

    Raises:
        UsageError: For one without a value, or of a name that no constructor has.
    """
    result: dict[str, dict[str, Any]] = {half: {} for half in classes}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set: expected NAME=VALUE, got {setting}")
        half, dot, name = key.rpartition(".")
        if dot and half not in classes:
            raise UsageError(f"--set {setting}: expected model.NAME, guide.NAME or NAME")
        halves = [half] if dot else list(classes)
        takers = [half for half in halves if _has(classes[half], name)]
        if not takers:
            raise UsageError(f"--set {setting}: {_no_argument(name, halves, classes)}")
        for taker in takers:
            result[taker][name] = _value(text)
    return result


def _find(spec: str, kind: str) -> type[Any]:
    path = _path(spec)
    if path is not None and path.is_file():
        return find_class(spec, kind)  # its faults are the pair's, not the command line's
    with usage():
        return find_class(spec, kind)


def _path(spec: str) -> Path | None:
    """The file of ``file.py:Class``; ``None`` for a zoo name."""
    path, colon, _ = spec.rpartition(":")
    return Path(path) if colon else None


def _has(cls: type[Any], name: str) -> bool:
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return name in parameters or open_ended


def _no_argument(name: str, halves: list[str], classes: Mapping[str, type[Any]]) -> str:
    known = {half: list(inspect.signature(classes[half]).parameters) for half in halves}
    listed = "; ".join(f"{classes[half].__name__} takes {', '.join(known[half])}" for half in known)
    every = [argument for arguments in known.values() for argument in arguments]
    near = difflib.get_close_matches(name, every, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f'no argument "{name}" ({listed}){hint}'


def _value(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _construct(cls: type[Any], data: Any, arguments: dict[str, Any]) -> Any:
    """Build one half; what its constructor raises is told as a fault of the pair."""
    try:
        return ppl_vae.build(cls, data, **arguments)
    except ValueError:
        raise
    except Exception as error:  # a constructor may be anybody's code
        given = ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())
        raise ValueError(
            f"{cls.__name__}({given}): {type(error).__name__}: {error}; "
            "arguments that the data do not give are given by --set"
        ) from error
