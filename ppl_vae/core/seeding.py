"""Seeded random numbers inside one call, with the global generators restored afterwards.

``seed=None`` stands for the global generators, as plain torch and Pyro use them.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import pyro
import torch

from ppl_vae.arguments import check_seed


@contextlib.contextmanager
def forked(seed: int | None) -> Iterator[None]:
    """Make a context with seeded random generators of torch, NumPy and Python.

    On leaving, all of these generators are restored to the state that they had before.

    Args:
        seed: The seed, a whole number from 0 to 2^32 - 1; ``None`` changes nothing.

    Yields:
        Nothing.

    Raises:
        ValueError: If the seed is not a whole number in this range.

    Example:
        >>> with forked(0):
        ...     first = torch.rand(2)
        >>> with forked(0):
        ...     second = torch.rand(2)
        >>> bool((first == second).all())
        True
    """
    if seed is None:
        yield
        return
    check_seed("seed", seed)
    before = pyro.util.get_rng_state()
    # only devices that are in use: to ask another for its generator would start CUDA on it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        seed_generators(int(seed))
        try:
            yield
        finally:
            pyro.util.set_rng_state(before)


def seed_generators(seed: int) -> None:
    """Seed the global generators of torch, NumPy and Python, as ``pyro.set_rng_seed`` does.

    ``torch.manual_seed`` visits CUDA, XPU and MTIA also on a machine that has none of them. For
    each of the three it formats the whole stack of calls as text, and keeps the text for the day
    when the device starts: milliseconds for every seed, and memory that is never given back. So
    only the generator of the CPU is seeded where no other device is there to draw from.

    Args:
        seed: The seed, a whole number from 0 to 2^32 - 1.

    Example:
        >>> seed_generators(0)
        >>> torch.rand(1)
        tensor([0.4963])
    """
    if torch.accelerator.is_available():
        pyro.set_rng_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the generator that a user's model may draw from


def child(seed: int | None, *path: int) -> int | None:
    """Return the seed of one part of a computation, derived from the seed of the whole.

    Block number 3 of a pass draws from ``child(seed, 3)``. The result depends on the seed and the
    position only, so that a block draws the same numbers whatever ran before it, and
    ``numpy.random.SeedSequence`` mixes the numbers so that neighbouring parts are independent.

    Args:
        seed: The seed of the whole, or ``None``.
        path: The part's position, for example the index of a block.

    Returns:
        A seed from 0 to 2^32 - 1; ``None`` where ``seed`` is ``None``.

    Raises:
        ValueError: If the seed is not a whole number from 0 to 2^32 - 1.

    Example:
        >>> child(0, 3) == child(0, 3), child(0, 3) == child(0, 4)
        (True, False)
    """
    if seed is None:
        return None
    check_seed("seed", seed)
    return int(np.random.SeedSequence((int(seed), *path)).generate_state(1)[0])
