"""Which tensors of a run depend on random numbers, or on the data, found by following them.

The mean of ``b ~ Normal(2 a, 1)`` is random where ``a`` was drawn, and it is a constant where ``a``
was computed from the row. Two draws do not tell the cases apart: a discrete ``a`` is often drawn
twice the same. ``DependentTensors`` therefore follows the random numbers themselves through a run.

torch hands every elementary operation that a run executes to an active dispatch mode, also those
inside layers, distributions and scripted functions. Three rules follow random numbers there:

- An operation that draws random numbers (torch tags each of them ``nondeterministic_seeded``) has a
  random result.
- An operation with a random tensor among its arguments has a random result. What is marked is the
  memory (the storage) and not the tensor object, so that ``loc[:, 0] = a`` marks ``loc`` too, which
  shares its memory with the view that is written to.
- An operation that turns a random tensor into a Python number (``if a > 0``, ``a.item()``) lets the
  user's Python decide by it. All that is computed later may depend on it, so that all of it counts
  as random.

A mark is a weak reference to the memory: memory that the run frees is freed, and its address cannot
be taken for a marked one as long as the weak reference lives. Numbers that leave torch without an
operation (``a.numpy()``) are not followed; the caller also compares two draws.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyro
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.compat.of_torch import Operations, draws_random_numbers, memory_of, tensors_in


class DependentTensors(Operations):
    """Context that knows of every tensor computed inside whether it depends on marked ones.

    Tensors are marked by ``mark``, and by drawing random numbers.

    Args:
        random_numbers: Whether drawing random numbers marks a tensor.

    Attributes:
        decided: Whether Python read a marked number, so that all that follows counts as dependent.

    Example:
        >>> with DependentTensors() as random:
        ...     draw = torch.rand(3)
        ...     loc = torch.zeros(3, 2)
        ...     loc[:, 0] = 2 * draw
        >>> random.holds(loc), random.holds(torch.zeros(3))
        (True, False)
    """

    def __init__(self, *, random_numbers: bool = True) -> None:
        super().__init__()
        self.random_numbers = random_numbers
        self.decided = False
        self._marked: set[Any] = set()  # weak references to memory

    def mark(self, tensor: Tensor) -> None:
        """Mark a tensor, and all that shares its memory."""
        self._marked.add(memory_of(tensor))

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor depends on marked ones; all sparse tensors count together."""
        return self.decided or memory_of(tensor) in self._marked

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Execute one operation of torch, and mark its results where they depend on marked ones."""
        results = func(*args, **(kwargs or {}))
        draws = self.random_numbers and draws_random_numbers(func)
        if draws or any(map(self.holds, tensors_in((args, kwargs)))):
            for tensor in tensors_in(results):
                self.mark(tensor)
            self.decided = self.decided or isinstance(results, bool | int | float)
        return results


class RandomMoments(Messenger):
    """Handler that writes down, for every site of a run, whether its moments are random.

    A site is looked at before it draws its value, and what its own sampler decides by the numbers
    it draws (the loop of a rejection sampler) is forgotten afterwards. A drawn value counts as
    random, also where its sampler draws outside torch; the value of a ``Delta`` is as random as the
    tensor that it is set to.

    Args:
        tensors: Knows which tensors are random.
        moments: Returns the moments of a distribution; ``None`` where they are not known.
        given: Sites whose values are given from outside the run, and are random.

    Attributes:
        exact: ``{site: whether its moments are known and not random}``. Where several runs of the
            pair have a site of one name, the entry is of the last of these runs.
    """

    def __init__(
        self,
        tensors: DependentTensors,
        moments: Callable[[Any], tuple[Tensor, ...] | None],
        given: Collection[str],
    ) -> None:
        super().__init__()
        self.tensors, self.moments, self.given = tensors, moments, given
        self.exact: dict[str, bool] = {}
        self._before = False, False  # whether the site had a value, and ``tensors.decided``

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        moments = self.moments(msg["fn"])
        random = moments is None or any(self.tensors.holds(moment) for moment in moments)
        self.exact[msg["name"]] = not random
        self._before = bool(msg["done"]), self.tensors.decided

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        had_value, self.tensors.decided = self._before
        drawn = not had_value and not isinstance(msg["fn"], Delta)
        if drawn or msg["name"] in self.given:
            self.tensors.mark(msg["value"])


@contextlib.contextmanager
def following_random_numbers(
    moments: Callable[[Any], tuple[Tensor, ...] | None], given: Collection[str] = ()
) -> Iterator[dict[str, bool]]:
    """Find out which sites have known moments, while a pair runs inside.

    Pyro's own checks are off inside: they read every parameter and every value, which would count
    as decisions of the user's Python.

    Args:
        moments: Returns the moments of a distribution; ``None`` where they are not known.
        given: Sites whose values are given from outside the run, and are random.

    Yields:
        ``{site: whether its moments are known and do not depend on random numbers}``, filled while
        the pair runs.
    """
    tensors = DependentTensors()
    handler = RandomMoments(tensors, moments, given)
    with pyro.validation_enabled(False), tensors, handler:
        yield handler.exact
