"""Whether two distributions are one and the same up to rounding, by their parameters.

A network may round a row's outputs in another way when the number of rows changes, because its
sums are then taken in another order. A log-probability can magnify such a difference without
bound: log Normal(z; loc, scale) moves by (z - loc) / scale^2 for each unit of loc, and an encoder
of unbounded activations, shown images of 0 to 255, may have scales of 1e-9. So two runs whose
log-probabilities differ are told apart by the parameters that the networks gave:

    a positive number (scale, rate, probs)   differs by less than 1e-3 of itself: rounding, then exp
    any other (loc, logits)                  differs by less than 1e-4 of the largest one: rounding

A GPU may multiply with 10 bits behind the point (TF32): 100 times as much is rounding there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints

OF_ITSELF, OF_THE_LARGEST = 1e-3, 1e-4  # differences that are rounding
COARSER = 100.0  # the same on a GPU
PLAIN = bool | int | float | str | None  # attributes that hold no parameter, shapes besides
NOT_NEGATIVE = (
    constraints.positive, constraints.nonnegative, constraints.unit_interval, constraints.simplex,
)  # fmt: skip


class CannotTellError(Exception):
    """Raised where a distribution holds parameters in a form that cannot be compared."""


def same_parameters(first: Any, second: Any, few_rows: int | None = None) -> bool:
    """Return whether two distributions have equal parameters, up to the rounding of a network.

    Args:
        first: The distribution of a site in one run.
        second: The distribution of the site in another run.
        few_rows: Rows of ``second``, where it has the first rows of ``first`` alone.

    Returns:
        ``False`` also where nothing can be told: for a distribution without tensors of its own, or
        with a transform that has parameters (a flow).
    """
    try:
        left, right = dict(_parameters(first, "")), dict(_parameters(second, ""))
    except CannotTellError:
        return False
    if not left or left.keys() != right.keys():
        return False
    return all(
        equal_but_for_rounding(value, right[name][0], few_rows, constraint)
        for name, (value, constraint) in left.items()
    )


def _parameters(value: Any, name: str, constraint: Any = None) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that a distribution holds: (place, (constraint, tensor)).

    A distribution inside another, such as the base of ``to_event`` or the parts of a mixture, is
    searched in turn.

    Raises:
        CannotTellError: If an attribute is neither a tensor, a distribution, a number nor a shape.
    """
    if isinstance(value, Tensor):
        yield name, (value, constraint)
    elif isinstance(value, Distribution):
        for attribute, inner in vars(value).items():
            constraint = value.arg_constraints.get(attribute)
            place = f"{name}.{type(value).__name__}.{attribute}"
            yield from _parameters(inner, place, constraint)
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _parameters(inner, f"{name}.{position}")
    elif isinstance(value, Transform):
        for attribute, inner in vars(value).items():
            if not isinstance(inner, PLAIN) and attribute not in ("_inv", "_cached_x_y"):
                raise CannotTellError(f"{name}.{attribute}")
    elif not isinstance(value, PLAIN | constraints.Constraint):
        raise CannotTellError(name)


def equal_but_for_rounding(
    left: Tensor, right: Tensor, few_rows: int | None = None, constraint: Any = None
) -> bool:
    """Return whether two parameters, or two values, are equal except for what rounding explains.

    Args:
        left: A tensor of one run.
        right: The tensor of another run.
        few_rows: Rows of ``right``, where it has the first rows of ``left`` alone.
        constraint: What the tensor's numbers may be; ``None`` for any number.
    """
    if few_rows is not None and left.ndim == right.ndim:
        for dim in range(left.ndim):
            if left.shape[dim] > right.shape[dim] == few_rows:
                left = left.narrow(dim, 0, few_rows)
    if left.shape != right.shape:
        return False
    if not left.is_floating_point():
        return torch.equal(left, right)
    coarser = COARSER if left.is_cuda else 1.0
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if any(constraint is not_negative for not_negative in NOT_NEGATIVE):
        return torch.allclose(left, right, OF_ITSELF * coarser, 0.0, equal_nan=True)
    largest = float(left.nan_to_num(0.0, 0.0, 0.0).abs().max()) if left.numel() else 0.0
    return torch.allclose(left, right, 0.0, OF_THE_LARGEST * coarser * largest, equal_nan=True)
