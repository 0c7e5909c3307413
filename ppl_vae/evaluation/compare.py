"""Several pairs on the same rows: whose model explains them best.

Each pair's rows are scored by ``log_likelihood``; what is compared is in ``same_observations``, how
in ``leads``, and the result in ``comparison``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ppl_vae.arguments import check_arguments, check_number, shown
from ppl_vae.core.pair import Guide, Model, Pair
from ppl_vae.data.rows import Data, Rows
from ppl_vae.evaluation.comparison import Comparison
from ppl_vae.evaluation.leads import RowLikelihoods
from ppl_vae.evaluation.likelihood import METHODS, check_method, likelihoods_of_rows
from ppl_vae.evaluation.same_observations import Observed, check_same


def compare(
    pairs: Mapping[str, tuple[Model, Guide]],
    data: Data,
    *,
    method: str | Mapping[str, str] = METHODS[0],
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int | None = 0,
    compile: bool | str = "auto",  # noqa: A002  as log_likelihood has it
    progress: bool | None = None,
    plate: str = "data",
) -> Comparison:
    """Compare pairs by the log-likelihood of the same held-out rows.

    Pass rows that no pair was fitted to: on the rows of a fit the larger model wins. All pairs must
    observe the same numbers of each row, in the same units, all as densities or all as
    probabilities; what can be seen to differ is refused. What a model conditions on is up to the
    user: one that reads a covariate, or a size that was computed from the row, is given what others
    have to explain.

    Differences are taken row by row, so that what makes a row hard for all pairs drops out. Their
    standard error holds the spread of the rows and the error of the draws; it is that of the mean
    over rows like these, which must be independent of one another.

    An estimate of ``log_likelihood`` is too low on average. Where k-hat says that it is not
    reliable, nobody knows by how much, and a lead over such an estimate may not be one. So a pair
    is called the best only if it leads by more than chance, and still does when the rows in which
    another pair is not reliable and behind count as equal. ``refine`` makes such rows reliable.

    Args:
        pairs: By name, a model and its guide, two pairs or more: ``(model, guide)``, as ``load``
            returns them; the guide ``None`` is the prior.
        data: N rows, in any form that ``fit`` takes.
        method: ``"importance"`` or ``"particle_filter"``, as ``log_likelihood`` has it, for all
            pairs or by name; a pair that is not named is scored by importance sampling.
        num_samples: S, draws of the latents for each row.
        level: Probability of the intervals, between 0 and 1.
        seed: Seeds the draws of each pair; the generators are restored afterwards.
        compile: As ``log_likelihood`` has it.
        progress: Whether to show a bar for each pair: ``None`` for yes, in a terminal or a
            notebook, once the work on it has taken two seconds.
        plate: Name of the row plate.

    Raises:
        ValueError: If there are fewer than two pairs, or ``log_likelihood`` refuses one, whose name
            the message has. If a pair observes other fields, other numbers or values of a row than
            another one, or a density where the other has a probability.

    Warns:
        UserWarning: What ``log_likelihood`` warns of, with the pair's name. If a model has a
            factor, which may be no log-probability; if pairs give probabilities to other values.

    Example:
        >>> import pyro, torch
        >>> def normal(scale):
        ...     def model(x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("x", pyro.distributions.Normal(0.0, scale), obs=x)
        ...     return model
        >>> pairs = {"wide": (normal(9.0), None), "unit": (normal(1.0), None)}
        >>> found = compare(pairs, torch.randn(50))
        >>> found.best, list(found.frame.index)
        ('unit', ['unit', 'wide'])
    """
    check_arguments(num_samples=num_samples, seed=seed, compile=compile, progress=progress)
    check_number("level", level, positive=True)
    if level >= 1:
        raise ValueError(f"level: expected a probability between 0 and 1, got {shown(level)}")
    halves = _named(pairs)
    methods = _methods(method, list(halves))
    found: dict[str, tuple[Pair, Rows]] = {}
    observed: dict[str, Observed] = {}
    for name, (model, guide) in halves.items():
        with _naming(name):
            pair = Pair.of(model, guide, plate)
            found[name] = pair, pair.rows(data)
            observed[name] = Observed.of(*found[name])
    check_same(observed)
    scored = []
    for name, (pair, rows) in found.items():
        with _naming(name):
            scores = likelihoods_of_rows(
                pair, rows, methods[name], num_samples, seed=seed, compile=compile,
                progress=progress, name=f'compare: pairs["{name}"]', stacklevel=2,
            )  # fmt: skip
        scored.append(RowLikelihoods.of(name, scores, num_samples))
    index = next(iter(found.values()))[1].index
    return Comparison.of(scored, index, num_samples, level)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Make a context in which every ``ValueError`` begins with the name of a pair.

    Args:
        name: The pair's name.

    Yields:
        Nothing.

    Raises:
        ValueError: In place of one that was raised inside.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f'pairs["{name}"]: {error}') from error


def _named(pairs: Any) -> dict[str, tuple[Model, Guide]]:
    """Return model and guide of each pair, by name.

    Raises:
        ValueError: If the argument is no mapping from names to two pairs or more.
    """
    if not isinstance(pairs, Mapping) or len(pairs) < 2:
        raise ValueError(
            "pairs: expected a mapping {name: (model, guide)} of two pairs or more, got "
            f"{shown(pairs)}"
        )
    for name, pair in pairs.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"pairs: expected names as text, got {shown(name)}")
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(
                f'pairs["{name}"]: expected a tuple (model, guide), as load(run) returns it, got '
                f"{shown(pair)}"
            )
    return dict(pairs)


def _methods(method: Any, names: list[str]) -> dict[str, str]:
    """Return the method for each pair.

    Raises:
        ValueError: If it is none of ``METHODS``, or is for a pair that there is not.
    """
    by_name = method if isinstance(method, Mapping) else dict.fromkeys(names, method)
    for name, each in by_name.items():
        if name not in names:
            raise ValueError(f"method: expected names of pairs, {names}, got {shown(name)}")
        check_method(each)
    return {name: by_name.get(name, METHODS[0]) for name in names}
