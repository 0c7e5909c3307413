"""From words on the command line to rows of data, functions, and a pair.

Nothing here loads torch or pandas before it must, so that a mistyped name is answered at once.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ppl_vae
from ppl_vae.cli.console import UsageError, usage
from ppl_vae.zoo.catalog import close_names, find_class, function_in_file, zoo

if TYPE_CHECKING:
    from ppl_vae.cli.sequence_files import SequenceColumns
    from ppl_vae.core.pair import Guide, Model
    from ppl_vae.data.rows import Data

NO_GUIDE = "none"
"""The word that stands for ``guide=None``."""


def read(
    path: Path,
    like: Any = None,
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    fields: Sequence[str] | None = None,
    label: str | None = None,
    of_sequences: SequenceColumns | None = None,
) -> Any:
    """Return the rows of a data file.

    Args:
        path: A .csv, .tsv, .parquet, .npy or .npz file, or a folder of Parquet files.
        like: Example rows, as a run holds them; the file's columns are found by their names and
            brought into this form.
        columns: The columns of a table to read; ``None`` or none for all.
        drop: The columns of a table to leave out.
        fields: Words of the form ``FIELD=NAME``: columns of a table, arrays of an ``.npz`` file, or
            other files, that are fields of their own.
        label: The column of a table that labels the rows.
        of_sequences: The columns that hold the sequences of the file; ``None`` where it has none.

    Raises:
        UsageError: If there is no such file, or if it has no column of a name that was given, or
            if a word is of another form.
        ValueError: If the file cannot be read, or does not have the columns of ``like``.
    """
    from ppl_vae.data.files import (  # noqa: PLC0415  loads pandas
        check_exists,
        files_of_fields,
        in_form_of,
        read_data,
    )
    from ppl_vae.data.selection import ColumnChoiceError  # noqa: PLC0415  loads pandas

    sources = _sources(fields or ())
    with usage():
        check_exists(path, or_folder=True)
        for file in files_of_fields(sources).values():
            check_exists(file)
    chosen = columns or None
    try:
        if of_sequences is not None:
            if sources:
                raise UsageError("--field: expected none beside sequences; use Python for inputs")
            found = of_sequences.read(path)
            return found if like is None else in_form_of(found, like, str(path))
        return read_data(path, like, columns=chosen, drop=drop, index=label, fields=sources)
    except ColumnChoiceError as error:
        raise UsageError(str(error)) from error


def read_in_parts(
    path: Path,
    rows: int,
    like: Any,
    *,
    columns: Sequence[str] | None,
    drop: Sequence[str] | None,
    fields: Sequence[str] | None,
) -> Iterator[Any]:
    """Yield the rows of a data file in parts of some rows; arguments and errors as ``read``."""
    from ppl_vae.data.files import check_exists  # noqa: PLC0415  loads pandas
    from ppl_vae.data.parts import read_parts  # noqa: PLC0415  loads pandas
    from ppl_vae.data.selection import ColumnChoiceError  # noqa: PLC0415  loads pandas

    choice: dict[str, Any] = {
        "columns": columns or None, "drop": drop, "fields": _sources(fields or ())
    }  # fmt: skip
    with usage():
        check_exists(path)
    try:
        for data, _ in read_parts(path, rows, like, **choice):
            yield data
    except ColumnChoiceError as error:
        raise UsageError(str(error)) from error


def _sources(words: Sequence[str]) -> dict[str, str]:
    """Return the column of each field, from words of the form ``FIELD=NAME``.

    Raises:
        UsageError: If a word has another form, or a field has two columns.
    """
    sources: dict[str, str] = {}
    for word in words:
        key, _, name = word.partition("=")
        if not key or not name:
            raise UsageError(f"--field: expected FIELD=NAME, such as size=library, got {word}")
        if key in sources:
            raise UsageError(
                f"--field: expected one column for {key}, got {sources[key]} and {name}"
            )
        sources[key] = name
    return sources


def function(spec: str) -> Callable[..., Any]:
    """Execute a Python file and return the function that ``file.py:name`` stands for.

    Raises:
        UsageError: If there is no such file or function, or if the file raises an error.
    """
    with usage():
        return function_in_file(spec)


def check_names(model: str, guide: str) -> None:
    """Check the names of a model and a guide of the zoo before anything slow is loaded.

    Specs of the form ``file.py:Class`` are checked later, when the file is executed.

    Raises:
        UsageError: If the zoo has no model or guide of the name.
    """
    for spec, kind in ((model, "models"), (guide, "guides")):
        if _file_of(spec) is None and not (kind == "guides" and spec == NO_GUIDE):
            check_in_zoo(spec, kind)


def check_in_zoo(name: str, kind: str) -> None:
    """Check that the zoo has a model or a guide of a name.

    Args:
        name: Name without ``.py``.
        kind: ``"models"`` or ``"guides"``.

    Raises:
        UsageError: If it has none; close names are listed.
    """
    names = list(zoo(kind))
    if name in names:
        return
    if name.endswith(".py"):
        known = f"a class in a file of your own is written {name}:Class"
    else:
        known = f"the zoo has {', '.join(names)}"
    raise UsageError(f'no {kind[:-1]} "{name}": {known}{close_names(name, names)}')


def build_pair(
    model: str, guide: str, data: Data, settings: Sequence[str] | None, seed: int,
    device: str | None = None,
) -> tuple[Model, Guide]:  # fmt: skip
    """Return a new pair of the model and the guide that two names stand for.

    Constructor arguments come from the settings, from the other half (arguments named ``model``
    and ``guide``, and the number of ``latents``) and from the data. The half that the other one
    takes as an argument is made first, else the model. Pyro's global seed is set, which decides the
    initial weights.

    Args:
        model: Name of the zoo, or ``file.py:Class``.
        guide: Name of the zoo, ``file.py:Class``, or ``none``.
        data: Rows in any form that ``fit`` takes.
        settings: Words of the form ``NAME=VALUE``; see ``assign``.
        seed: Seed of the initial weights.
        device: Where the pair computes, as ``on_device`` has it.

    Raises:
        UsageError: If a name, a setting or a device is unknown.
        ValueError: If a file raises an error, or a constructor refuses its arguments.
    """
    from ppl_vae.core.seeding import seed_generators  # noqa: PLC0415  loads torch

    classes = {"model": _find(model, "models")}
    if guide != NO_GUIDE:
        classes["guide"] = _find(guide, "guides")
    arguments = assign(settings or (), classes)
    seed_generators(seed)
    model_takes_guide = "guide" in inspect.signature(classes["model"]).parameters
    halves: dict[str, Any] = {}
    for role in sorted(classes, reverse=not model_takes_guide):  # "guide" sorts before "model"
        takes = inspect.signature(classes[role]).parameters
        partner = {name: half for name, half in halves.items() if name in takes}
        for half in halves.values():
            if "latents" in takes and isinstance(getattr(half, "latents", None), int):
                partner["latents"] = half.latents
        halves[role] = _construct(classes[role], data, {**partner, **arguments[role]})
    return on_device((halves["model"], halves.get("guide")), device)


def on_device(pair: tuple[Model, Guide], device: str | None) -> tuple[Model, Guide]:
    """Return a pair whose parameters have been moved to a device.

    Args:
        pair: Model and guide.
        device: Name of a device of torch; ``None`` leaves the pair where it is. Of processes that
            work together on this machine, each takes the device of its number for ``"cuda"``.

    Raises:
        UsageError: If there is no such device.
    """
    if device is None:
        return pair
    import torch  # noqa: PLC0415  slow

    if device == "cuda" and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch tells it
        first = str(error).strip().partition("\n")[0]
        raise UsageError(f"--device {device}: cannot be used: {first}") from error
    for half in pair:
        if isinstance(half, torch.nn.Module):
            half.to(device)
    return pair


def assign(settings: Sequence[str], classes: Mapping[str, type[Any]]) -> dict[str, dict[str, Any]]:
    """Return the constructor arguments that settings give to the model and to the guide.

    ``model.latents=8`` and ``guide.latents=8`` reach one half, ``latents=8`` every half whose
    constructor has the argument.

    Args:
        settings: Words of the form ``NAME=VALUE``; a value is a Python literal, a network of
            ``ppl_vae.nn`` such as ``GaussianNoise(0.5)``, or else a text.
        classes: ``{"model": class, "guide": class}``; the guide may be absent.

    Returns:
        ``{"model": arguments, "guide": arguments}``.

    Raises:
        UsageError: If a setting has no value, or if no constructor has an argument of its name.

    Example:
        >>> from ppl_vae.nn import MLP
        >>> assign(["hidden=(9, 9)"], {"model": MLP})
        {'model': {'hidden': (9, 9)}}
    """
    result: dict[str, dict[str, Any]] = {role: {} for role in classes}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set: expected NAME=VALUE, got {setting}")
        role, dot, name = key.rpartition(".")
        if dot and role not in classes:
            raise UsageError(f"--set {setting}: expected model.NAME, guide.NAME or NAME")
        candidates = [role] if dot else list(classes)
        takers = [role for role in candidates if _takes(classes[role], name)]
        if not takers:
            raise UsageError(f"--set {setting}: {_no_argument(name, candidates, classes)}")
        for taker in takers:
            result[taker][name] = _value(text)
    return result


def _find(spec: str, kind: str) -> type[Any]:
    """Return the class that a name stands for.

    Raises:
        UsageError: If there is no such name or file: the command line is at fault.
        ValueError: If the file is there and cannot be used: the pair is at fault.
    """
    file = _file_of(spec)
    if file is not None and file.is_file():
        return find_class(spec, kind)
    with usage():
        return find_class(spec, kind)


def _file_of(spec: str) -> Path | None:
    """Return the file of a spec ``file.py:Class``; ``None`` for a name of the zoo."""
    path, colon, _ = spec.rpartition(":")
    return Path(path) if colon else None


def _takes(cls: type[Any], name: str) -> bool:
    """Return whether a constructor has an argument of a name, or takes any."""
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return name in parameters or takes_any


def _no_argument(name: str, roles: list[str], classes: Mapping[str, type[Any]]) -> str:
    """Return the text that no constructor has an argument, and which arguments they have."""
    known = {role: list(inspect.signature(classes[role]).parameters) for role in roles}
    listed = "; ".join(f"{classes[role].__name__} takes {', '.join(known[role])}" for role in known)
    names = [argument for arguments in known.values() for argument in arguments]
    return f'no argument "{name}" ({listed}){close_names(name, dict.fromkeys(names))}'


def _value(text: str) -> Any:
    """Return the Python literal or the network that a text stands for, or the text itself.

    A network is a class of ``ppl_vae.nn`` with literals as arguments: ``GaussianNoise(0.5)``.

    Raises:
        UsageError: If a text is a call, and there is no such class, or it refuses the arguments.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    name, bracket, _ = text.partition("(")
    if not (bracket and name.isidentifier()):
        return text
    from ppl_vae import nn as networks  # noqa: PLC0415  loads torch

    try:
        call: Any = ast.parse(text, mode="eval").body
        given = [ast.literal_eval(argument) for argument in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (AttributeError, ValueError, SyntaxError):
        return text
    cls = getattr(networks, name, None)
    if not isinstance(cls, type):
        classes = [n for n in networks.__all__ if isinstance(getattr(networks, n), type)]
        raise UsageError(f"--set: expected a network among {', '.join(classes)}, got {name}")
    with usage():
        return cls(*given, **named)


def _construct(cls: type[Any], data: Data, arguments: dict[str, Any]) -> Any:
    """Return ``build(cls, data, **arguments)``, with errors of every type as ``ValueError``.

    Raises:
        ValueError: If the constructor raises anything; names the given arguments.
    """
    try:
        return ppl_vae.build(cls, data, **arguments)
    except ValueError:
        raise
    except Exception as error:  # a constructor may be anybody's code
        given = ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())
        raise ValueError(
            f"{cls.__name__}({given}): {type(error).__name__}: {error}; "
            "give arguments that cannot be read from the data by --set NAME=VALUE"
        ) from error
