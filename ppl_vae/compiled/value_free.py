"""Forms of Pyro's and torch's functions that read no tensor's value, for use while tracing.

A traced graph holds operations on tensors and nothing else. Where Python reads a value (``float``,
``item``, ``if tensor``, a selection by a mask), the value of the example would be frozen into the
graph, or tracing would stop. Pyro and torch read values at the spots below. Each spot has an equal
form that stays within tensors, or reads only to warn or to check.

    spot                                what it reads                 form used while tracing
    torch_item in Pyro's ELBOs          the loss, to return a float   detach, still a tensor
    warn_if_nan in Pyro's ELBOs         the loss, to warn             nothing
    torch.nn.functional.one_hot         the largest class             comparison with arange
    Dice.compute_expectation            cells of probability > 0      cost 0 where probability is 0
    _get_common_scale                   every scale                   numbers alone are compared
    checks of distributions' arguments  whether all are valid         noted, see ``trace_graph``
    checks of values in log_prob        whether they are in support   nothing
    Tensor.numpy, .tolist, __array__    everything                    an error: tracing fails
    Tensor.item, float, int, bool       a number                      an error that names the line

Source of the expectation: Foerster et al. (2018), DiCE, arXiv:1802.05098.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from opt_einsum import shared_intermediates  # type: ignore[import-untyped]  # Pyro's
from pyro.ops import packed
from pyro.ops.rings import MarginalRing
from torch import Tensor

from ppl_vae.compat import of_pyro, of_torch

# Methods of a tensor by which Python reads one number.
NUMBERS = ("item", "__bool__", "__int__", "__float__", "__index__")


@contextlib.contextmanager
def without_values(checks: list[Tensor]) -> Iterator[None]:
    """Replace, inside the block, what reads tensors' values in Pyro's ELBOs and in torch.

    Functions of Pyro and torch are replaced in place (``unittest.mock.patch``) and restored when
    the block ends, whatever ends it. That is safe because the caller holds ``pyro_lock``: no other
    fit of the process runs meanwhile. Code of another thread that uses torch's distributions at
    that moment would meet the replaced forms; their values are right, and its checks are skipped.

    A name that a later version of torch or Pyro no longer has raises ``AttributeError`` here;
    ``fit`` then warns that the step cannot be traced, and runs the eager step.

    Args:
        checks: A list that receives one tensor of booleans for each argument of a distribution:
            whether the argument is valid, cell by cell. Of any shape.
    """

    def note(valid: Tensor) -> bool:
        checks.append(valid)
        return True

    replaced: list[tuple[tuple[Any, str], Any]] = [
        ((torch.nn.functional, "one_hot"), _one_hot),
        (of_pyro.EXPECTATION, _expectation),
        (of_pyro.COMMON_SCALE, _common_scale),
        (of_torch.ALL_TRUE, note),
        (of_torch.VALIDATE_SAMPLE, _unread),
    ]
    for name, form in (("torch_item", _detached), ("warn_if_nan", _unread)):
        replaced += [((module, name), form) for module in of_pyro.modules_of_elbos(name)]
    # make_fx does not see these three, which read every value
    replaced += [((Tensor, name), _refused) for name in ("numpy", "tolist", "__array__")]
    replaced += [((Tensor, name), _naming_the_line(getattr(Tensor, name))) for name in NUMBERS]
    with contextlib.ExitStack() as stack:
        for (owner, name), form in replaced:
            stack.enter_context(patch.object(owner, name, form))
        yield


def _detached(value: Any) -> Any:
    """Return a loss without its gradient, where Pyro's ``torch_item`` returns a number."""
    return value.detach() if isinstance(value, Tensor) else value


def _unread(value: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the first argument: stands for a function that only warns or raises."""
    return value


def _refused(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Raise: NumPy and Python would read a value that changes between steps."""
    raise RuntimeError("Python reads values, with numpy() or tolist(), that change between steps")


def _naming_the_line(read: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Return a form of ``Tensor.item`` and its like whose error names the line that reads a value.

    A tensor that depends on no input is read as always. Of any other, torch raises an error that
    speaks of its tracer. The line is the innermost one outside torch, Pyro and this library.
    """

    def read_or_name_the_line(tensor: Tensor) -> Any:
        try:
            return read(tensor)
        except RuntimeError as error:
            if tensor.numel() != 1:  # no number to read, traced or not
                raise
            raise RuntimeError(
                f"Python reads a number from a tensor{_users_line()}, which changes between steps "
                "(item, int, float, or an if); compute with the tensor, in torch.where for example"
            ) from error

    return read_or_name_the_line


def _users_line() -> str:
    """Return `` in file.py, line 3`` for the innermost line of the user's code, or ``""``."""
    frame = inspect.currentframe()
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in ("torch", "pyro", "ppl_vae", "contextlib", "unittest"):
            return f" in {Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
        if package == "ppl_vae" and frame.f_globals["__name__"] != __name__:
            return ""  # everything further out only calls the library
        frame = frame.f_back
    return ""


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Return ``torch.nn.functional.one_hot`` by comparison: (...) -> (..., classes), int64."""
    if num_classes < 0:
        raise RuntimeError("one_hot reads its values to count the classes; give num_classes")
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).to(torch.int64)


def _common_scale(scales: list[Any]) -> Any:
    """Return the one scale of sites that are summed out together.

    Scales that are tensors are not compared. The eager step runs once before tracing, and Pyro's
    own comparison then raises for scales that differ.
    """
    numbers = {float(scale) for scale in scales if not isinstance(scale, Tensor)}
    if len(numbers) > 1:
        raise ValueError(f"expected enumerated sites to share one scale, got {sorted(numbers)}")
    return scales[0]


def _expectation(dice: Any, costs: dict[Any, list[Any]]) -> Any:
    """Return the expected cost, a scalar: an equal form of ``Dice.compute_expectation``.

    For each cost at an ordinal (a set of plates),

        E[cost] = sum over cells of p(cell) * cost(cell)

    where p is the marginal, over the cost's own dimensions, of the product of all enumerated and
    sampled factors upstream of the cost. All marginals come from one contraction and its backward
    pass, as in Pyro.

    Pyro leaves out cells of probability zero with ``masked_select``, because their cost may be
    infinite and 0 * inf is NaN. The number of cells left is a shape that depends on values, so
    here such cells stay and their cost is set to 0 with ``masked_fill``: the same sum, and the
    gradient of a filled cell is 0.

    Args:
        dice: Pyro's ``Dice`` of the guide's trace.
        costs: ``{ordinal: packed costs}``, of any shapes whose dimensions are named.
    """
    total: Any = 0.0
    with shared_intermediates() as cache:
        ring = MarginalRing(cache=cache)
        for ordinal, terms in costs.items():
            upstream = of_pyro.log_factors(dice, ordinal)
            weight = math.exp(sum(f for f in upstream if not isinstance(f, Tensor)))
            factors = [f for f in upstream if isinstance(f, Tensor)]
            queries = _queries(terms, factors)
            eliminated = set().union(*(of_pyro.named_dims(f) for f in factors)) - ordinal
            logs = of_pyro.marginals(ring, factors, queries.values(), eliminated)
            marginal = dict(zip(queries, logs, strict=True))
            for cost in terms:
                log_prob = marginal[frozenset(of_pyro.named_dims(cost))]
                probability = of_pyro.name_dims(log_prob.exp(), of_pyro.named_dims(log_prob))
                value, chance = packed.broadcast_all(cost, probability)
                value = value.masked_fill(chance <= 0, 0.0)
                total = total + weight * (chance * value).sum()
    return total


def _queries(terms: list[Any], factors: list[Tensor]) -> dict[frozenset[str], Tensor]:
    """Return, for the dimensions of each cost, a factor over the same dimensions.

    Such a factor is where the contraction leaves the marginal over these dimensions. Where no
    factor has them, a factor of zeros (a probability of 1) is appended to ``factors``.
    """
    queries: dict[frozenset[str], Tensor] = {}
    for cost in terms:
        dims = frozenset(of_pyro.named_dims(cost))
        if dims in queries:
            continue
        same = [factor for factor in factors if frozenset(of_pyro.named_dims(factor)) == dims]
        if not same:
            same = [of_pyro.name_dims(torch.zeros_like(cost), of_pyro.named_dims(cost))]
            factors += same
        queries[dims] = same[0]
    return queries
