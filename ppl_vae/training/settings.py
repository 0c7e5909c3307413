"""What must be the same when a fit is resumed, and how two fits are compared.

A resumed fit must be the fit that was cut off. ``run.json`` therefore holds a checksum of every row
of the data, the numbers that ``fit`` was given, and the settings of the optimizer, of each of its
groups and of the scheduler.

A function has no settings that could be read: KL schedules and the functions in a scheduler are
called at some steps, ``0, 1, 2, 5, 10, 20, 50, ...`` up to the last one, and the values are stored.
Two functions that agree at all these steps count as the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ppl_vae.core.seeding import forked
from ppl_vae.training.arguments import KLWeight, plain_numbers
from ppl_vae.training.loop import Loop

FUNCTIONS = "functions"
"""The setting with the values of functions: ``{name: [[step, value], ...]}``."""


def fit_settings(
    loop: Loop,
    *,
    epochs: int,
    kl_weight: KLWeight,
    clip_norm: float | None,
    compiled: bool | str,
    seed: int | None,
) -> dict[str, Any]:
    """Return what must be the same when a fit is resumed, as JSON can hold it."""
    objective, optimizer = loop.stepper.objective, loop.optimizer
    settings: dict[str, Any] = {
        "compile": compiled,
        "seed": seed,
        "shards": loop.stepper.shards,
        "dtype": str(torch.get_default_dtype()),
        "data": loop.rows.fingerprint(),
        "validation": None if loop.held_out is None else loop.held_out.rows.fingerprint(),
        "batch_size": loop.stepper.batch_size,
        "kl_weight": "a function of the step" if callable(kl_weight) else float(kl_weight),
        "clip_norm": clip_norm,
        "objective": objective.name,
        "objective_options": objective.options,
        "num_particles": objective.elbo.num_particles,
        "vectorize_particles": objective.elbo.vectorize_particles,
        "optimizer": type(optimizer).__name__,
        "optimizer_defaults": {k: repr(v) for k, v in sorted(optimizer.defaults.items())},
        "trained": [[name, list(p.shape)] for name, p in loop.pair.trainable().items()],
        "optimizer_groups": _groups(loop),
        "scheduler": type(loop.scheduler).__name__,
        "scheduler_settings": {
            name: _text(value) for name, value in _scheduler(loop) if not callable(value)
        },
        FUNCTIONS: {
            name: _values(function, _some_steps(epochs * steps))
            for name, function, steps in _functions(loop)
        },
    }
    return {name: plain_numbers(value) for name, value in settings.items()}


def check_same_settings(
    path: Path, before: dict[str, Any], now: dict[str, Any], loop: Loop
) -> None:
    """Raise ``ValueError`` that names the first setting that differs from those of a run.

    Settings that the run does not have, because an older version of the library began the run, are
    not compared.

    Args:
        path: The run directory.
        before: The settings of the run.
        now: The settings of this fit.
        loop: The loop of this fit.
    """
    now = {name: value for name, value in now.items() if name in before}
    for name, value in before.items():
        old, new = value, now.get(name)
        if name == FUNCTIONS:
            functions = {key: function for key, function, _ in _functions(loop)}
            new = {key: _same_steps(functions.get(key), pairs) for key, pairs in old.items()}
        if old == new or (name in ("data", "validation") and _are_rows(loop, name, old)):
            continue
        if name in ("data", "validation"):
            raise ValueError(
                f"resume: {path} was made with other {name}; pass the same rows, of data larger "
                "than memory in the same row groups, or choose another directory"
            )
        if name == "trained":  # lists of [parameter, shape]
            old, new = next(p for p in zip_longest(old or [], new or []) if p[0] != p[1])
        setting, old, new = _first_difference(name, old, new)
        raise ValueError(
            f"resume: {path} was made with {setting}={old!r}, got {new!r}; pass the same, or "
            "choose another directory"
        )


def _are_rows(loop: Loop, name: str, checksum: str | None) -> bool:
    """Return whether a checksum that an older version made is that of the loop's rows."""
    held_out = None if loop.held_out is None else loop.held_out.rows
    rows = loop.rows if name == "data" else held_out
    return checksum is not None and rows is not None and checksum == rows.older_fingerprint()


def _first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """Return the name and the two values of the first entry that differs, in nested settings."""
    if name == FUNCTIONS:
        key = next(key for key in old if old[key] != new[key])
        for (step, before), (_, now) in zip(old[key], new[key], strict=True):
            if before != now:
                return f"{key}({step})", before, now
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        return _first_difference(f"{name}.{key}", old.get(key), new.get(key))
    return name, old, new


def _groups(loop: Loop) -> dict[str, dict[str, Any]]:
    """Return the settings of each group of the optimizer, and the names of its parameters."""
    names = {id(parameter): name for name, parameter in loop.pair.trainable().items()}
    groups = {}
    for position, group in enumerate(loop.optimizer.param_groups):
        texts = {key: _text(value) for key, value in sorted(group.items()) if key != "params"}
        parameters = [names.get(id(parameter), "") for parameter in group["params"]]
        groups[str(position)] = {**texts, "params": parameters}
    return groups


def _functions(loop: Loop) -> Iterator[tuple[str, Callable[[int], Any], int]]:
    """Yield the functions that a fit was given: name, function, and its steps in an epoch."""
    if callable(loop.kl_weight):
        yield "kl_weight", loop.kl_weight, loop.stepper.steps_per_epoch
    for name, value in _scheduler(loop):
        if callable(value):
            yield name, value, 1


def _scheduler(loop: Loop) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the scheduler by name, those of schedulers in it as well."""
    scheduler = loop.scheduler
    if scheduler is None or isinstance(scheduler, LRScheduler):
        yield from _leaves("scheduler", scheduler)
    elif callable(getattr(scheduler, "state_dict", None)):  # a class of the user's
        yield from _leaves("scheduler", scheduler.state_dict())


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values in nested schedulers, dictionaries and lists, each with its name."""
    if isinstance(value, LRScheduler):
        value = {key: item for key, item in vars(value).items() if key != "optimizer"}
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _leaves(f"{name}[{position}]", item)
    else:
        yield name, value


def _text(value: Any) -> str:
    """Return a setting as text: a tensor's numbers, and of an object that has none its class."""
    value = plain_numbers(value.tolist() if isinstance(value, Tensor) else value)
    simple = value is None or isinstance(value, str | Real | list | tuple | dict)
    return repr(value) if simple else type(value).__qualname__


def _some_steps(count: int) -> list[int]:
    """Return some of the steps 0 to ``count - 1``: 0, 1, 2, 5, 10, 20, 50, ... and the last one."""
    steps = {0, max(count - 1, 0)}
    for power in range(len(str(count))):
        steps |= {factor * 10**power for factor in (1, 2, 5)}
    return sorted(step for step in steps if step < max(count, 1))


def _same_steps(function: Callable[[int], Any] | None, pairs: list[Any]) -> list[list[Any]]:
    """Return the values of a function at the steps of ``[[step, value], ...]``."""
    steps = [step for step, _ in pairs]
    return [[step, None] for step in steps] if function is None else _values(function, steps)


def _values(function: Callable[[int], Any], steps: list[int]) -> list[list[Any]]:
    """Return ``[[step, value], ...]`` of a function; ``None`` for what is no finite number.

    The random generators are left as they were, so that a fit with a run directory draws the same
    numbers as one without.
    """

    def value(step: int) -> float | None:
        try:
            number = float(function(step))
        except Exception:  # whatever a user's function raises at a step that the fit may not reach
            return None
        return number if math.isfinite(number) else None

    with forked(0):
        return [[step, value(step)] for step in steps]
