"""The support of a distribution, where the distribution knows one, and values outside it in words.

A wrapper of another library's distribution (a flow, say) may have no support: Pyro draws and
scores without it. The library then takes the values for real numbers without bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from torch import Tensor
from torch.distributions.constraints import Constraint, boolean


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


def mend_outside(support: Any, value: float) -> str:
    """Return what to do about a value of the data outside a support, for a message.

    Args:
        support: What ``support_of`` returns.
        value: A value of the data outside the support.

    Example:
        >>> from torch.distributions import constraints
        >>> mend_outside(constraints.nonnegative_integer, 2.5)
        'round the values, or change the likelihood or the data'
    """
    low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    mend = ""
    if support is boolean:
        mend = "threshold the values to 0 and 1 (x > 0.5), or "
    elif getattr(support, "is_discrete", False) and value != round(value):
        mend = "round the values, or "
    elif low == 0 and high == 1:
        mend = "scale the values to between 0 and 1 (8-bit pixels: x / 255), or "
    return f"{mend}change the likelihood or the data"


def cell_name(position: Sequence[int], shape: Sequence[int], fields: Iterable[Any]) -> str:
    """Return the name of one cell of a row, for a message; "" for the only cell of a row.

    Args:
        position: Where the cell stands in the row.
        shape: Shape of the row.
        fields: Each field's shape of a row and its columns' labels, ``None`` where they have none.
            Of a field that has the shape, the labels are taken.

    Example:
        >>> cell_name([0, 3, 5], [1, 28, 28], [])
        'channel 0, row 3, column 5 of the image'
        >>> cell_name([1], [2], [((2,), pd.Index(["a", "b"]))])
        'column "b"'
    """
    if len(position) == 3:
        return "channel {}, row {}, column {} of the image".format(*position)
    for row_shape, labels in fields:
        if isinstance(labels, pd.Index) and tuple(row_shape) == tuple(shape) == (len(labels),):
            label = labels[position[0]]
            return f'column "{label}"' if isinstance(label, str) else f"column {label}"
    return f"column {', '.join(map(str, position))}" if position else ""


def place_not_finite(field: Tensor, labels: Any) -> str:
    """Return where the first number that is not finite stands in its row, for a message.

    Args:
        field: Rows of a field, (rows, ...), one of which at least has NaN or infinity.
        labels: The labels of its columns, ``None`` where they have none.

    Example:
        >>> import torch
        >>> place_not_finite(torch.tensor([[0.0, torch.nan]]), pd.Index(["a", "b"]))
        ' in column "b"'
    """
    position = (~field.isfinite()).nonzero()[0, 1:].tolist()
    name = cell_name(position, field.shape[1:], [(field.shape[1:], labels)])
    return f" in {name}" if name else ""
