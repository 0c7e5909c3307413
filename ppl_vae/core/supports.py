"""The support of a distribution, where the distribution knows one.

A wrapper of another library's distribution (a flow, say) may have no support: Pyro draws and
scores without it. The library then takes the values for real numbers without bounds.
"""

from __future__ import annotations

from typing import Any

from torch.distributions.constraints import Constraint


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
