"""The support of a distribution, where the distribution knows one, and the values outside it.

A wrapper of another library's distribution (a flow, say) may have no support: Pyro draws and
scores without it. The library then takes the values for real numbers without bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Delta, ExpandedDistribution, Independent, MaskedDistribution
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Categorical,
    ComposeTransform,
    TransformedDistribution,
    constraints,
)
from torch.distributions.constraints import Constraint

from ppl_vae.compat.of_torch import argument_checks_off


def support_of(fn: Any) -> Constraint | None:
    """Return the support of a distribution, without the wrappers of ``to_event`` around it.

    Args:
        fn: A Pyro distribution, the ``fn`` of a site.

    Returns:
        The constraint that all values of the distribution meet; ``None`` where it knows none.

    Example:
        >>> import pyro.distributions as dist
        >>> support_of(dist.Bernoulli(0.5).expand([3]).to_event(1))
        Boolean()
    """
    try:
        support: Any = fn.support
    except (NotImplementedError, AttributeError):
        return None
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    constraint: Constraint | None = support
    return constraint


def is_discrete(fn: Any) -> bool:
    """Return whether a distribution's values are discrete; false where it knows no support."""
    return bool(getattr(support_of(fn), "is_discrete", False))


def support_text(support: Any, position: Sequence[int] = ()) -> str:
    """Return a support in words, for a message: "whole numbers from 0", "0 or 1", "real numbers".

    Args:
        support: What ``support_of`` returns; "" for ``None``.
        position: Where a cell stands in a value, for a support with bounds of its own in each cell.
            Without a position, the widest of such bounds are told.

    Example:
        >>> from torch.distributions import constraints
        >>> support_text(constraints.nonnegative_integer), support_text(constraints.unit_interval)
        ('whole numbers from 0', 'numbers between 0 and 1')
        >>> import torch
        >>> by_column = constraints.integer_interval(0, torch.tensor([1, 4]))
        >>> support_text(by_column), support_text(by_column, [0, 1])
        ('whole numbers from 0 to 4 (each cell has its own)', 'whole numbers from 0 to 4')
    """
    if support is None:
        return ""
    own = (_WORDS[cls] for cls in type(support).__mro__ if cls in _WORDS)
    known = next(own, "") or _bounds_in_words(support, position)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(support).__name__.strip("_"))
    return known or words.replace("_", " ").lower()


def _bounds_in_words(support: Any, position: Sequence[int]) -> str:
    """Return the bounds of a support in words; "" where it has none."""
    low, high, vary = _bounds(support, position)
    whole = "whole numbers" if getattr(support, "is_discrete", False) else "numbers"
    if low is not None and high is not None:
        between = f"from {low:g} to {high:g}"
        between = between if whole == "whole numbers" else f"between {low:g} and {high:g}"
    elif low is not None:
        above = isinstance(support, type(constraints.positive))
        if above and low == 0:
            return "positive numbers"
        between = f"{'above' if above else 'from'} {low:g}"
    elif high is not None and isinstance(support, constraints.multinomial):
        between = f"from 0 that sum to {high:g}"
    elif high is not None:
        below = isinstance(support, type(constraints.less_than(0.0)))
        between = f"{'below' if below else 'up to'} {high:g}"
    else:
        return ""
    return f"{whole} {between}{' (each cell has its own)' if vary else ''}"


def _bounds(support: Any, position: Sequence[int]) -> tuple[float | None, float | None, bool]:
    """Return the bounds of a support, ``None`` where there is none, and whether cells differ.

    Args:
        support: The support.
        position: Where a cell stands in a value: its own bounds are returned, and no cell differs.
            Without a position, the widest bounds of all cells are returned.
    """
    bounds: list[float | None] = []
    vary = False
    for name, widest in (("lower_bound", torch.amin), ("upper_bound", torch.amax)):
        bound = getattr(support, name, None)
        if not isinstance(bound, Tensor):
            bounds.append(bound)
        elif len(position) >= bound.ndim:
            own = position[len(position) - bound.ndim :]  # a bound of size 1 holds for all cells
            place = [0 if size == 1 else at for at, size in zip(own, bound.shape, strict=True)]
            bounds.append(float(bound[tuple(place)]))
        else:
            extreme = widest(bound)
            bounds.append(float(extreme))
            vary = vary or bool(torch.any(bound != extreme))
    low, high = bounds
    return low, high, vary


_WORDS: dict[type[Any], str] = {
    type(constraints.boolean): "0 or 1",
    type(constraints.real): "real numbers",
    type(constraints.simplex): "numbers from 0 that sum to 1",
    type(constraints.one_hot): "a single 1 among zeros",
    type(constraints.positive_definite): "positive definite matrices",
    type(constraints.lower_cholesky): "lower triangular matrices with a positive diagonal",
    type(constraints.corr_cholesky): "Cholesky factors of correlation matrices",
}
"""Supports without numbers in them, in words."""


def is_unbounded(support: Any) -> bool:
    """Return whether a support holds all real numbers, so that no value needs a look."""
    return support is None or isinstance(support, type(constraints.real))


def cells_outside(site: Any, unmasked: Tensor) -> Tensor:
    """Return which numbers, or vectors, of a site's value are outside the support.

    NaN counts as inside, because it says that a number is missing, and so does a masked cell.

    Args:
        site: A node of a trace, with ``fn`` and ``value``.
        unmasked: Which numbers of the value no mask hides, shaped like the value.

    Returns:
        (...) of bool, shaped like the value, or without the dimensions of a vector that the
        support judges as a whole; all false where the support is not known or cannot be checked.
    """
    support, value = support_of(site["fn"]), site["value"]
    none = torch.zeros(value.shape, dtype=torch.bool, device=value.device)
    if is_unbounded(support):
        return none
    assert support is not None
    try:
        outside = torch.as_tensor(~support.check(value))
    except NotImplementedError:  # of a constraint that cannot be checked
        return none
    missing = value.isnan()
    event_dim = value.ndim - outside.ndim  # a vector has one answer for all its cells
    if event_dim:
        unmasked, missing = (t.flatten(-event_dim).any(-1) for t in (unmasked, missing))
    result: Tensor = outside & unmasked & ~missing
    return result


def mend_outside(fn: Any, value: float) -> str:
    """Return what to do about a value of the data outside a support, for a message.

    Args:
        fn: The distribution whose support the value is outside of; ``None`` where it is not known.
        value: The value.

    Example:
        >>> import pyro.distributions as dist
        >>> mend_outside(dist.Poisson(3.0), 2.5)
        'round the values, or change the likelihood or the data'
    """
    support = support_of(fn)
    low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    mend = ""
    if support is constraints.boolean:
        mend = "threshold the values to 0 and 1 (x > 0.5), or "
    elif getattr(support, "is_discrete", False) and value != round(value):
        mend = "round the values, or "
    elif isinstance(basic_distribution(fn), Categorical):
        mend = (
            "code the categories of a column 0, 1, 2, ..., and build the model on data that hold "
            "all of them (build(Class, data)) or give it their number (categories=), or "
        )
    elif isinstance(low, int | float) and isinstance(high, int | float) and (low, high) == (0, 1):
        mend = "scale the values to between 0 and 1 (8-bit pixels: x / 255), or "
    return f"{mend}change the likelihood or the data"


def reaches_outside(fn: Any, other: Any) -> bool:
    """Return whether a distribution has values that another distribution of the same shape has not.

    A point, and a support that is no interval, of reals or of whole numbers, count as having none.

    Args:
        fn: A distribution, such as the guide's of a latent.
        other: The other, such as the model's of the same latent.

    Example:
        >>> import pyro.distributions as dist
        >>> reaches_outside(dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0))
        True
        >>> reaches_outside(dist.Gamma(1.0, 1.0), dist.Normal(0.0, 1.0))
        False
        >>> reaches_outside(dist.Categorical(torch.ones(3)), dist.Categorical(torch.ones(2)))
        True
    """
    if any(isinstance(basic_distribution(each), Delta) for each in (fn, other)):
        return False
    inner, outer = (_interval(_sure_support(each)) for each in (fn, other))
    if inner is None or outer is None:
        return False
    below, above = inner[0] < outer[0], inner[1] > outer[1]
    return bool(torch.as_tensor(below).any() or torch.as_tensor(above).any())


def _sure_support(fn: Any) -> Constraint | None:
    """Return a distribution's support; ``None`` where it is only said to be all real numbers.

    torch says so of every shifted and scaled variable, a positive one that is shifted by 0 too.
    """
    basic = basic_distribution(fn)
    if getattr(type(basic), "support", None) is not TransformedDistribution.support:
        return support_of(fn)  # the distribution's own word, such as Gumbel's
    last: Any = basic.transforms[-1] if basic.transforms else None
    while isinstance(last, ComposeTransform) and last.parts:
        last = last.parts[-1]
    return None if isinstance(last, AffineTransform) else support_of(fn)


def _interval(support: Any) -> tuple[Any, Any] | None:
    """Return the ends of a support that is an interval of numbers; ``None`` for others.

    Returns:
        The low and the high end: numbers, infinity included, or tensors with one for each cell.
    """
    if isinstance(support, type(constraints.real)):
        return -math.inf, math.inf
    low, high = (getattr(support, f"{end}_bound", None) for end in ("lower", "upper"))
    if low is None and high is None:
        return None
    return -math.inf if low is None else low, math.inf if high is None else high


def validation_is_off(fn: Any) -> bool:
    """Return whether a user made a distribution, or one in its wrappers, without Pyro's checks.

    The answer is right for a distribution that was made while Pyro's checks were on, and is asked
    for while they are on: the class's own flag is off without them.
    """
    while not argument_checks_off(fn):
        if not isinstance(fn, (Independent, MaskedDistribution, ExpandedDistribution)):
            return False  # torch itself makes the base of a transformed distribution so
        fn = fn.base_dist
    return True


def basic_distribution(fn: Any) -> Any:
    """Return a distribution without the wrappers of ``to_event``, ``expand`` and ``mask``."""
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):
        fn = fn.base_dist
    return fn
