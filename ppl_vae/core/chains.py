"""Sites that are the steps of a chain, by their names: ``x_0``, ``x_1``, ... of a Markov model."""

from __future__ import annotations

import re
from collections.abc import Iterable


def steps_of(names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return which step of which chain each site is, ``{site: (chain, step)}``.

    The sites ``z_0``, ``z_1``, ... are a chain ``z`` where none of the numbers up to the largest is
    missing, and no site is called ``z`` itself. Any other site is step 0 of its own name.

    Args:
        names: Names of sites.

    Example:
        >>> steps_of(["z_0", "z_1", "k", "a_1"])
        {'z_0': ('z', 0), 'z_1': ('z', 1), 'k': ('k', 0), 'a_1': ('a_1', 0)}
    """
    names = list(names)
    chains: dict[str, set[int]] = {}
    parts = {name: re.fullmatch(r"(.+)_(0|[1-9]\d*)", name) for name in names}
    for part in parts.values():
        if part:
            chains.setdefault(part[1], set()).add(int(part[2]))
    whole = {c for c, steps in chains.items() if c not in names and max(steps) == len(steps) - 1}
    return {n: (p[1], int(p[2])) if p and p[1] in whole else (n, 0) for n, p in parts.items()}
