"""What a run directory says about a fit, in words: the one reader of ``run.json``.

``run.json`` holds the recipe of the pair, the form of the data, the settings and how the fit ended;
the checked record of the fit holds the history, a row for each epoch. The command ``show`` and the
report both print the facts that are read here. No code of the run is executed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.data.rows import Rows
from ppl_vae.data.schema import Schema
from ppl_vae.saving.snapshots import read_metrics
from ppl_vae.training.history import History

Info = Mapping[str, Any]  # the contents of run.json

STOPPED = {  # how a finished fit ended
    "epochs": "finished after all epochs that were asked for",
    "patience": "finished early by patience: the held-out ELBO had stopped improving",
    "callback": "finished early by a callback that returned True",
    "interrupted": "interrupted by Ctrl-C",
}
UNFINISHED = {  # the status of a run whose fit did not finish
    "running": "still running, or cut off before its end; resume continues the fit",
    "not finite": "stopped by a loss or gradient that was not finite",
    "saved": "saved; the pair was not fitted in this directory",
}
OPTIMIZER_OPTIONS = ("lr", "betas", "weight_decay", "momentum", "alpha")  # those worth a mention
LISTED_COLUMNS = 24  # names of columns that are listed in a line; the page folds more of them away


class Fact(NamedTuple):
    """A name and what it is.

    Attributes:
        name: The name.
        text: What it is, in words.
        code: What it is as code, before the words.
    """

    name: str
    text: str = ""
    code: str = ""


class Field(NamedTuple):
    """The form of one field of the data.

    Attributes:
        name: Name of the field; empty where the data are a single field.
        shape: Shape of one row.
        columns: Names of the columns; empty where they have none.
    """

    name: str
    shape: tuple[int, ...]
    columns: list[str]


# The pair


LONGEST_LIST = 300
"""Characters of a list among constructor arguments; a longer one is told by its length."""


def recipe_as_call(recipe: Mapping[str, Any]) -> str:
    """Return the recipe of a model or guide as the constructor call that makes it.

    Args:
        recipe: The class and the constructor arguments, as ``run.json`` holds them.

    Example:
        >>> recipe_as_call({"class": "ppl_vae.models.normal:Model", "arguments": {"latents": 2}})
        'Model(latents=2)'
    """
    name = str(recipe["class"]).partition(":")[2]
    if recipe.get("function"):
        return name
    arguments = ", ".join(f"{key}={_argument(item)}" for key, item in recipe["arguments"].items())
    method = f".{recipe['method']}" if "method" in recipe else ""
    return f"{name}({arguments}){method}"


def _argument(value: Any) -> str:  # noqa: PLR0911  one for each form
    """Return one constructor argument of a recipe as text; tensors by their length."""
    if not isinstance(value, Mapping):
        return repr(value)
    if "object" in value:
        return recipe_as_call(value["object"])
    numbers = value.get("tensor", value.get("array"))
    if numbers is not None:
        return f"tensor of {len(numbers)}" if isinstance(numbers, list) else str(numbers)
    if "list" in value:
        text = "(" + ", ".join(_argument(item) for item in value["list"]) + ")"
        return text if len(text) <= LONGEST_LIST else f"({len(value['list'])} items)"
    if "dict" in value:
        items = [f"{_argument(key)}: {_argument(item)}" for key, item in value["dict"]]
        return "{" + ", ".join(items) + "}"
    if "member" in value:
        return str(value["member"]).partition(":")[2]
    return str(next(iter(value.values())))  # a type, the other half, a dtype or a device


def half_as_call(info: Info, half: str) -> str | None:
    """Return the model or the guide of a run as a constructor call.

    Args:
        info: The contents of ``run.json``.
        half: ``"model"`` or ``"guide"``.

    Returns:
        The call; the name alone where the run has no recipe; ``None`` where the pair has no guide.
    """
    recipe = (info["recipe"] or {}).get(half)
    return recipe_as_call(recipe) if recipe else info[half]


# The data


def fields_of(template: Mapping[str, Any]) -> list[Field]:
    """Return the form of each field of the data.

    A table of mixed columns has its columns and its covariates, in place of its fields: which cells
    are there says nothing of its own.

    Args:
        template: Description of the data, from ``run.json`` or ``Rows.template``.
    """
    fields = template["fields"]
    if "schema" in template:
        schema = Schema.of_json(template["schema"])
        parts = {"": schema.modelled, "covariates": schema.given}
        named = {name: [str(column.name) for column in part] for name, part in parts.items()}
        return [Field(name, (len(part),), part) for name, part in named.items() if part]
    names = template["keys"] or (
        [""] if template["single"] else [f"field {i}" for i in range(len(fields))]
    )
    return [
        Field(str(name), tuple(field["shape"]), _column_names(field["labels"]))
        for name, field in zip(names, fields, strict=True)
    ]


def _column_names(labels: Any) -> list[str]:
    if labels is None:
        return []
    return [str(label) for label in labels] if isinstance(labels, list) else [str(labels)]


def form_of_rows(template: Mapping[str, Any]) -> str:
    """Return in words what a row is: ``"2 features: height, weight"``.

    Args:
        template: Description of the data, from ``run.json`` or ``Rows.template``.
    """
    parts = []
    for field in fields_of(template):
        if len(field.shape) == 1:
            text = f"{field.shape[0]} feature{'' if field.shape[0] == 1 else 's'}"
        else:
            size = " \N{MULTIPLICATION SIGN} ".join(map(str, field.shape)) or "one"
            text = f"{size} number{'s' if field.shape else ''} each"
        if 0 < len(field.columns) <= LISTED_COLUMNS:
            text += f": {', '.join(field.columns)}"
        parts.append(f"{field.name}: {text}" if field.name else text)
    return "; ".join(parts)


def find_split(rows: Rows, info: Info) -> dict[str, Tensor]:
    """Find which rows a fit was trained on and which rows it held out.

    The run holds checksums of both sets. Where the checksum of all given rows is one of them, the
    answer is clear. Otherwise, the rows may be the whole data set that ``fit`` split by itself:
    the split is repeated with the seed of the fit, and counts only if the checksum of its training
    part is the one of the run.

    Args:
        rows: The rows to find.
        info: The contents of ``run.json``; empty where there is no run.

    Returns:
        ``{"fitted": positions, "held out": positions}``, (rows,) integers each, without a set that
        is absent; empty where the rows are others, or where the run does not say.
    """
    settings = info.get("settings")
    if not settings:
        return {}
    everything = torch.arange(len(rows))
    checksums = _checksums(rows)
    for name, key in (("fitted", "data"), ("held out", "validation")):
        if settings[key] in checksums:
            return {name: everything}
    fraction = 1 - (info.get("rows") or len(rows)) / len(rows)
    if settings["validation"] is None or settings["seed"] is None or not 0 < fraction < 1:
        return {}
    try:
        fitted, held_out = rows.split(fraction, settings["seed"])
    except ValueError:  # too few rows to hold that share out
        return {}
    if settings["data"] not in _checksums(fitted):
        return {}
    return {
        "fitted": fitted.positions_in_data(everything[: len(fitted)]),
        "held out": held_out.positions_in_data(everything[: len(held_out)]),
    }


def _checksums(rows: Rows) -> set[str]:
    """Return the checksums by which runs of this version and of older ones know the rows."""
    older = rows.older_fingerprint()
    return {rows.fingerprint()} | ({older} if older else set())


# The fit


def read_history(path: Path, info: Info) -> History | None:
    """Return the history of a run; of a fit that is still running, up to its last snapshot.

    Args:
        path: The run directory.
        info: The contents of ``run.json``.

    Returns:
        The history; ``None`` where no epoch is recorded.
    """
    metrics = read_metrics(path, info) if "objective" in info else None
    if metrics is None:
        return None
    frame = metrics.frame()
    summary = info.get("history") or {}
    held_out = frame["validation_elbo"]
    best = int(held_out.argmax()) if held_out.notna().any() else -1
    return History(
        frame=frame, objective=info["objective"], reason=info["reason"],
        stopped=summary.get("stopped", ""),
        best_epoch=int(summary.get("best_epoch") or frame["epoch"].iloc[best]),
        step=summary.get("step_kind", ""), step_reason=summary.get("step_reason", ""),
        validation_elbo=summary.get("validation_elbo"),
        validation_elbo_se=summary.get("validation_elbo_se"),
        measure=summary.get("measure", "ELBO"),
    )  # fmt: skip


def ending(info: Info, history: History | None) -> str:
    """Return in words how the fit ended; empty where that is not known.

    Args:
        info: The contents of ``run.json``; empty where there is no run.
        history: The history of the fit.
    """
    error = (info.get("history") or {}).get("error")
    if error:
        return f"{UNFINISHED['not finite']}: {error}"
    if info.get("status") in UNFINISHED:
        return UNFINISHED[info["status"]]
    return "" if history is None else STOPPED.get(history.stopped, history.stopped)


def course(history: History, write: Callable[[float], object] = "{:.3f}".format) -> Iterator[Fact]:
    """Yield how long a fit took, its ELBOs, and which kind of step it used.

    Args:
        history: The history of the fit.
        write: Writes an ELBO, in nats per row, as text.
    """
    frame = history.frame
    if len(frame):
        last = frame.iloc[-1]
        steps = f"{int(last['step'])} steps in {last['seconds']:.1f} s"
        yield Fact("length", f"{int(last['epoch'])} epochs, {steps}")
        yield Fact(
            f"training {history.measure}", f"{write(last['elbo'])} nats per row, in the last epoch"
        )
        if history.objective_differs:
            value = write(last["objective"])
            yield Fact("trained value", f"{value} nats per row, not the ELBO, in the last epoch")
        if history.validation_elbo is not None:
            yield Fact(f"held-out {history.measure}", history.held_out_elbo(write))
        yield Fact("converged", history.convergence())
    if history.step:
        yield Fact("step", f"{history.step}: {history.step_reason}")


def settings(info: Info) -> Iterator[Fact]:
    """Yield the settings of a fit, named as the arguments of ``fit``; nothing without a run."""
    found = info.get("settings")
    if not found:
        return
    defaults = found["optimizer_defaults"]
    options = ", ".join(f"{key} {defaults[key]}" for key in OPTIMIZER_OPTIONS if key in defaults)
    yield Fact("optimizer", found["optimizer"] + (f" ({options})" if options else ""))
    if found["scheduler"] != "NoneType":
        yield Fact("scheduler", found["scheduler"])
    yield Fact("batch size", f"{found['batch_size']} rows")
    yield Fact("KL weight", f"{found['kl_weight']}")
    if found["clip_norm"] is not None:
        yield Fact("clip norm", f"{found['clip_norm']:g}")
    yield Fact("particles", f"{found['num_particles']}")
    count = sum(math.prod(shape) for _, shape in found["trained"])
    yield Fact("trained", f"{count:,} numbers in {len(found['trained'])} parameters")
