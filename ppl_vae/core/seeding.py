"""Random numbers that a call can own: seeded inside, put back after.

``seed=None`` means the global generators, as plain torch and Pyro use them.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import pyro
import torch


@contextlib.contextmanager
def forked(seed: int | None) -> Iterator[None]:
    """Seed torch's, NumPy's and Python's generators, and restore all of them on leaving.

    Args:
        seed: The seed, 0 to 2^32 - 1; ``None`` leaves the global generators in charge.

    Raises:
        ValueError: Where the seed is no such number.
    """
    if seed is None:
        yield
        return
    _check(seed)
    before = pyro.util.get_rng_state()
    with torch.random.fork_rng():
        pyro.set_rng_seed(seed)
        try:
            yield
        finally:
            pyro.util.set_rng_state(before)


def child(seed: int | None, *path: int) -> int | None:
    """Seed of one part of a work, from the whole work's seed and the part's position.

    Args:
        seed: The whole's seed, or ``None``.
        path: Where the part stands, for example the index of a block.

    Example:
        >>> child(0, 3) == child(0, 3), child(0, 3) == child(0, 4)
        (True, False)
    """
    if seed is None:
        return None
    _check(seed)
    return int(np.random.SeedSequence((seed, *path)).generate_state(1)[0])


def _check(seed: object) -> None:
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected a whole number from 0 to 2^32 - 1, got {seed!r}")
