"""How many threads of torch's a piece of work is worth.

Two threads share the work of every kernel and wait for each other after it. A step of 0.2 ms has
twenty kernels, so that on idle cores two threads gain nothing; where anything else runs on the
cores, each wait lasts until the system lets the other thread run again, and the step took 4 to
13 ms. Large products are worth the waiting: a step of 3.7 ms took 2.1 ms on two idle cores.

The rule looks at sizes alone, never at measured times, so that the numbers of a fit, which are
rounded differently on another number of threads, do not depend on how busy the machine was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from ppl_vae.compat.of_torch import Operations

ONE_THREAD_BELOW = 2e7
"""Operations of floating point in products and convolutions below which one thread runs."""


class _Counter(Operations):
    """Counts the operations of floating point in the products and convolutions of a block."""

    count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an elementary operation, and count what its formula says, where torch has one."""
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(getattr(func, "overloadpacket", None))
        if formula is not None:
            with contextlib.suppress(
                Exception
            ):  # a formula that refuses its tensors counts nothing
                self.count += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


def operations_of(run: Callable[[], object]) -> int:
    """Return the operations of floating point in the products and convolutions of a call.

    Args:
        run: Runs the work once.

    Example:
        >>> operations_of(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
        60
    """
    with _Counter() as counter:
        run()
    return int(counter.count)


def threads_for(run: Callable[[], object]) -> int:
    """Return how many threads a piece of work is worth: all that torch has now, or one.

    Args:
        run: Runs the work once.
    """
    operations = operations_of(run)
    return 1 if operations < ONE_THREAD_BELOW else torch.get_num_threads()


@contextlib.contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Run the block on a number of torch's threads, and restore the number afterwards.

    Args:
        count: Threads; ``None`` leaves the number alone.
    """
    before = torch.get_num_threads()
    if count not in (None, before):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
