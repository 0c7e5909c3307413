"""Statistics that a user passes as functions: T(x) of a data set, or a discrepancy T(x, latents).

Source: Gelman, Meng & Stern (1996), section 2.3 (discrepancies).
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ppl_vae.arguments import names_in, shown

Function = Callable[..., Any]


def requested_statistics(
    statistics: Any, known: Collection[str]
) -> tuple[list[str] | None, dict[str, Function]]:
    """Split the ``statistics`` argument into built-in statistics and functions of the user.

    Functions of the same name are numbered: ``"<lambda>"``, ``"<lambda> #2"``, ...

    Args:
        statistics: A name, a function, or a list or mapping of names and functions; ``"built-in"``
            stands for all built-in statistics; ``None`` is the same as ``"built-in"``.
        known: Names of the built-in statistics.

    Returns:
        Names of the built-in statistics, ``None`` for all of them; and functions by title.

    Raises:
        ValueError: On anything else, an unknown name, or an empty list.

    Example:
        >>> names, functions = requested_statistics(["mean", torch.amax], {"mean", "sd"})
        >>> names, list(functions)
        (['mean'], ['amax'])
    """
    if statistics is None:
        return None, {}
    names: list[str] | None = []
    functions: dict[str, Function] = {}
    for title, entry in _titled(statistics):
        if isinstance(entry, str) and entry == "built-in":
            names = None
        elif isinstance(entry, str) and entry in known:
            names = names if names is None else [*names, entry]
        elif callable(entry):
            functions[_unused(title, functions)] = entry
        else:
            raise ValueError(
                f"statistics: expected functions, or names among {sorted(known)} or "
                f'"built-in", got {shown(entry)}'
            )
    if names is not None and not names and not functions:
        raise ValueError("statistics: expected at least one, got none")
    return names, functions


def _titled(statistics: Any) -> Iterator[tuple[str, Any]]:
    """Yield every requested statistic with its title: its key, its name, or its position."""
    if isinstance(statistics, Mapping):
        yield from ((str(title), entry) for title, entry in statistics.items())
        return
    for i, entry in enumerate(names_in("statistics", statistics)):
        yield getattr(entry, "__name__", f"statistic {i}"), entry


def _unused(title: str, taken: Collection[str]) -> str:
    """Return the title, with a number behind it where it is taken."""
    candidate, number = title, 1
    while candidate in taken:
        number += 1
        candidate = f"{title} #{number}"
    return candidate


def takes_latents(function: Function) -> bool:
    """Return whether a user's function is a discrepancy, T(x, latents).

    A discrepancy has two positional parameters or more without a default. A function whose
    signature cannot be read, as that of some built-in functions, is not a discrepancy.

    Example:
        >>> takes_latents(lambda x, latents: 0.0), takes_latents(lambda x, power=2: 0.0)
        (True, False)
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(required) > 1


class RowLatents(dict[str, Tensor]):
    """The latents that a discrepancy may read, ``{site: (rows, ...)}``, those of one draw.

    A discrepancy compares T(x, z) of the observed rows with T of a replicate. Under the right model
    the two are alike only where z was drawn given the observed rows. A latent from the prior has
    not seen them: a perfect model would be flagged. Reading one is therefore an error.

    Args:
        latents: Latents drawn given the rows.
        from_prior: Names of the latents that came from the prior.
    """

    def __init__(self, latents: Mapping[str, Tensor], from_prior: Collection[str]) -> None:
        super().__init__(latents)
        self._from_prior = from_prior

    def __missing__(self, name: str) -> Tensor:
        if name in self._from_prior:
            raise ValueError(
                f'site "{name}": expected a latent that the guide draws given the rows, got one '
                "drawn from the prior, which would let a discrepancy flag a perfect model; draw "
                "it in the guide"
            )
        raise KeyError(name)


def check_latents_are_given_rows(
    functions: Mapping[str, Function], from_prior: Collection[str]
) -> None:
    """Raise ``ValueError`` if there is a discrepancy in a check whose latents are from the prior.

    Args:
        functions: The user's statistics, by title.
        from_prior: Names of the latents that come from the prior.
    """
    for title, function in functions.items():
        if from_prior and takes_latents(function):
            raise ValueError(
                f'statistics: expected a guide for "{title}", which reads latents, got '
                f"guide=None; latents from the prior ({', '.join(sorted(from_prior))}) have not "
                "seen the rows, so that T(x, latents) of the data differs from that of replicates "
                "even under a perfect model; pass the guide, or a statistic T(x) of the data alone"
            )


def without_discrepancies(statistics: Any) -> Any:
    """Return a ``statistics`` argument without discrepancies; ``None`` where nothing else is in it.

    Example:
        >>> without_discrepancies(["mean", lambda x, latents: 0.0])
        ['mean']
    """
    if statistics is None:
        return None
    entries = [
        (title, entry)
        for title, entry in _titled(statistics)
        if not (callable(entry) and takes_latents(entry))
    ]
    if isinstance(statistics, Mapping):
        return dict(entries) or None
    return [entry for _, entry in entries] or None


def as_argument(values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Any:
    """Return a data set as a user's function gets it.

    Args:
        values: ``{site: (rows, ...)}``.
        masks: Unmasked cells, likewise; a site without masked cells may lack.

    Returns:
        Copies, so that a function that writes into its argument changes nothing, with NaN in
        masked cells: a tensor where there is one site, else ``{site: tensor}``.
    """
    copies = {name: value.clone() for name, value in values.items()}
    for name, mask in masks.items():
        copies[name] = copies[name].to(torch.get_default_dtype()).masked_fill(~mask, torch.nan)
    return copies if len(copies) > 1 else next(iter(copies.values()))


def changing_length(title: str) -> ValueError:
    """Return the error for a statistic that does not always have the same number of values."""
    return ValueError(
        f'statistics: expected "{title}" to return the same number of values for every data set'
    )


def evaluate(title: str, function: Function, *arguments: Any) -> Tensor:
    """Call a user's function, and return its numbers as (values,) of doubles on the CPU.

    Args:
        title: Title of the statistic, for messages.
        function: The user's function.
        arguments: The data set, and the latents for a discrepancy.

    Raises:
        ValueError: If the function raises, or returns no number or something else.

    Example:
        >>> evaluate("range", lambda x: (x.min(), x.max()), torch.arange(3.0))
        tensor([0., 2.], dtype=torch.float64)
    """
    try:
        returned = function(*arguments)
    except Exception as error:  # a user's code may raise anything
        raise ValueError(f'statistics: "{title}" raised {type(error).__name__}: {error}') from error
    try:
        if isinstance(returned, tuple | list):
            returned = torch.stack([torch.as_tensor(v, dtype=torch.double) for v in returned])
        values = torch.as_tensor(returned, dtype=torch.double).detach().cpu().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f'statistics: expected "{title}" to return numbers, got {type(returned).__name__}: '
            f"{error}"
        ) from error
    if not len(values):
        raise ValueError(f'statistics: expected "{title}" to return at least one number, got none')
    return values
