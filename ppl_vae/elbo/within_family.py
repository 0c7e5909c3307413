"""A distribution moved by free numbers, the offset, within its family: other arguments, same class.

    Normal(m, s)                  moved: Normal(m + s b, s exp(a))
    MultivariateNormal(m, S S')   moved: by all of L, as in ``moved``
    another argument v            moved: v + s o, if v may be any real number; s: scale or sd
                                         t(t^-1(v) + o) else     t: reals onto v's constraint
    z = t(u), u of a family       moved: u, under the same t

``moved`` lets a distribution leave its family, which helps to estimate a likelihood. Here it stays:
the best distribution that a network with these outputs could give a row is among the moved ones, so
that what is lost to it is the network's fault, and what is lost beyond it is the family's.

Source: Cremer, Li & Duvenaud (2018), section 3, arXiv:1801.03558 (the best of the family, row by
row).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pyro.distributions as dist
from pyro.distributions import ExpandedDistribution, MaskedDistribution, constraints
from torch import Tensor
from torch.distributions import TransformedDistribution, biject_to

from ppl_vae.compat.of_torch import mask_of
from ppl_vae.elbo.moved import WIDEST, moved, offset_size


class _Argument(NamedTuple):
    """An argument of a distribution: its name, its constraint, and its numbers."""

    name: str
    constraint: Any
    value: Tensor

    @property
    def is_free(self) -> bool:
        """Whether the argument may be any real number."""
        inside = getattr(self.constraint, "base_constraint", self.constraint)
        return inside is constraints.real


def family_offset_size(fn: Any) -> int:
    """Return how many numbers the offset of a distribution has that stays in its family.

    Raises:
        NotImplementedError: If the distribution has no arguments that can be moved one by one: a
            point, a path, a mask over single numbers of an event, an argument that depends on
            another.

    Example:
        >>> import torch
        >>> family_offset_size(dist.Normal(torch.zeros(2), 1.0).to_event(1))
        4
        >>> family_offset_size(dist.Dirichlet(torch.ones(3)))
        3
    """
    return sum(math.prod(shape) for shape in _shapes(fn))


def moved_within_family(fn: Any, offset: Tensor) -> Any:
    """Return a distribution of the same family, moved by an offset.

    Args:
        fn: The distribution.
        offset: (..., ``family_offset_size(fn)``); its leading dimensions broadcast with the
            distribution's batch shape. At 0 the distribution is what it was.

    Raises:
        NotImplementedError: As ``family_offset_size``.

    Example:
        >>> import torch
        >>> normal = dist.Normal(torch.zeros(2), 2.0).to_event(1)
        >>> moved_within_family(normal, torch.tensor([0.5, 0.0, 0.0, 0.0])).mean
        tensor([1., 0.])
    """
    shapes = _shapes(fn)
    parts = offset.split([math.prod(shape) for shape in shapes], -1)
    lead = offset.shape[:-1]
    return _rebuilt(
        fn, [part.reshape(*lead, *shape) for part, shape in zip(parts, shapes, strict=True)], 0
    )


def _rebuilt(fn: Any, offsets: list[Tensor], inner: int) -> Any:
    """Return the moved distribution.

    Args:
        fn: The distribution, or a part of one.
        offsets: Of each argument, (rows' dimensions..., event's dimensions...).
        inner: Dimensions on the right of the part's batch shape that belong to the whole's event.
    """
    if isinstance(fn, MaskedDistribution):
        return _rebuilt(fn.base_dist, offsets, inner).mask(mask_of(fn))
    if isinstance(fn, ExpandedDistribution):
        return _rebuilt(fn.base_dist, offsets, inner).expand(fn.batch_shape)
    if isinstance(fn, dist.Independent):
        count = fn.reinterpreted_batch_ndims
        return _rebuilt(fn.base_dist, offsets, inner + count).to_event(count)
    if isinstance(fn, TransformedDistribution):
        base: Any = fn.base_dist
        return dist.TransformedDistribution(_rebuilt(base, offsets, inner), fn.transforms)
    if _is_full_normal(fn):
        return moved(fn, offsets[0])
    arguments = zip(_arguments(fn), offsets, strict=True)
    return type(fn)(**{each.name: _moved_argument(fn, each, offset) for each, offset in arguments})


def _moved_argument(fn: Any, argument: _Argument, offset: Tensor) -> Tensor:
    """Return an argument's numbers, moved: free ones in units of the distribution's width."""
    if argument.is_free:
        unit = fn.scale if hasattr(fn, "scale") else fn.stddev
        while unit.ndim < argument.value.ndim:  # a factor of a covariance
            unit = unit[..., None]
        moved_value: Tensor = argument.value + unit * offset
        return moved_value
    to_constraint = biject_to(argument.constraint)
    result: Tensor = to_constraint(to_constraint.inv(argument.value) + offset)
    return result


def _shapes(fn: Any, inner: int = 0) -> list[tuple[int, ...]]:
    """Return the shape of one row's offset for each argument, in the order of ``_arguments``.

    Args:
        fn: The distribution, or a part of one.
        inner: Dimensions on the right of the part's batch shape that belong to the whole's event.

    Raises:
        NotImplementedError: As ``family_offset_size``.
    """
    if isinstance(fn, MaskedDistribution | ExpandedDistribution):
        if inner and isinstance(fn, MaskedDistribution):
            raise NotImplementedError("a mask over single numbers of an event")
        return _shapes(fn.base_dist, inner)
    if isinstance(fn, dist.Independent):
        return _shapes(fn.base_dist, inner + fn.reinterpreted_batch_ndims)
    if isinstance(fn, TransformedDistribution):
        extra = len(fn.event_shape) - len(fn.base_dist.event_shape)
        return _shapes(fn.base_dist, inner + extra)
    if isinstance(fn, dist.Delta) or not fn.has_rsample:
        raise NotImplementedError(type(fn).__name__)
    if _is_full_normal(fn):
        if inner:
            raise NotImplementedError(f"several of {type(fn).__name__} in one event")
        if fn.event_shape[0] > WIDEST:  # its offset would not reach all correlations
            raise NotImplementedError(f"more than {WIDEST} correlated numbers")
        return [(offset_size(fn),)]
    shapes = []
    for argument in _arguments(fn):
        free = biject_to(argument.constraint).inverse_shape(argument.value.shape)
        size = len(free) - (argument.value.ndim - argument.constraint.event_dim) + inner
        shapes.append(tuple(free[len(free) - size :]))
    return shapes


def _is_full_normal(fn: Any) -> bool:
    """Return whether a distribution is a normal with a full covariance."""
    return isinstance(fn, dist.MultivariateNormal)


def _arguments(fn: Any) -> list[_Argument]:
    """Return the arguments that a distribution is made again from, broadcast to its batch shape.

    Raises:
        NotImplementedError: If an argument depends on another, or there are none.
    """
    if constraints.is_dependent(getattr(type(fn), "support", None)):  # bounds, as of Uniform
        raise NotImplementedError(f"the support of {type(fn).__name__} depends on its arguments")
    known = fn.arg_constraints
    if not known or not isinstance(known, dict):
        raise NotImplementedError(f"{type(fn).__name__} has no arguments of its own")
    found = []
    for name, constraint in sorted(known.items()):
        if name == "probs" and "logits" in known:
            continue
        if constraints.is_dependent(constraint) or not isinstance(getattr(fn, name), Tensor):
            raise NotImplementedError(f"{name} of {type(fn).__name__}")
        value = getattr(fn, name)
        event = value.shape[value.ndim - constraint.event_dim :]
        found.append(_Argument(name, constraint, value.expand(*fn.batch_shape, *event)))
    return found
