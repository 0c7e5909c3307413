"""Statistics of a user's own: T(x) of a data set, or T(x, latents), which is a discrepancy.

Source: Gelman, Meng & Stern (1996), section 2.3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]


def requested_statistics(
    statistics: Any, known: Collection[str]
) -> tuple[list[str] | None, dict[str, Function]]:
    """What a user asks for.

    Args:
        statistics: Names, functions, or a list or mapping of both.
        known: Names of the built-in statistics.

    Returns:
        The built-in ones (``None``: all), and the functions by title.

    Raises:
        ValueError: On something else, or nothing.
    """
    if statistics is None:
        return None, {}
    names: list[str] | None = []
    own: dict[str, Function] = {}
    for title, entry in _entries(statistics):
        if entry == "built-in":
            names = None
        elif isinstance(entry, str) and entry in known:
            names = names if names is None else [*names, entry]
        elif callable(entry):
            number = sum(known_title.split(" #")[0] == title for known_title in own)
            own[f"{title} #{number + 1}" if number else title] = entry
        else:
            raise ValueError(
                f"statistics: expected functions, or names among {sorted(known)} or "
                f'"built-in", got {entry!r}'
            )
    if names is not None and not names and not own:
        raise ValueError("statistics: expected at least one, got none")
    return names, own


def _entries(statistics: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(statistics, Mapping):
        yield from ((str(title), entry) for title, entry in statistics.items())
        return
    several = isinstance(statistics, Iterable) and not isinstance(statistics, str)
    for i, entry in enumerate(statistics if several else [statistics]):
        yield getattr(entry, "__name__", f"statistic {i}"), entry


def takes_latents(function: Function) -> bool:
    """Whether a user's function is a discrepancy: it takes two arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(needed) > 1


def evaluate(title: str, function: Function, *arguments: Any) -> Tensor:
    """What a user's function gives, as (values,) of doubles.

    Raises:
        ValueError: Where it raises, or gives something else than numbers, or none.
    """
    try:
        given = function(*arguments)
    except Exception as error:  # whatever a user's code says
        raise ValueError(f'statistics: "{title}" raised {type(error).__name__}: {error}') from error
    try:
        if isinstance(given, tuple | list):
            given = torch.stack([torch.as_tensor(v, dtype=torch.double) for v in given])
        values = torch.as_tensor(given, dtype=torch.double).detach().cpu().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f'statistics: expected "{title}" to give numbers, got {type(given).__name__}: {error}'
        ) from error
    if not len(values):
        raise ValueError(f'statistics: expected "{title}" to give a number or more, got none')
    return values
