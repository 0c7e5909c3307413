"""Sums of products, and largest products, of factors that are given by their logarithms.

    SumOfLogs    log sum_y prod_f f(y)      gradient: p(y), the share of y in the sum
    MaxOfLogs    max_y sum_f log f(y)       gradient: 1 at the y of the largest product, else 0

``log_draws`` has the sum whose gradient is a draw of y.

Pyro's own ``LogRing`` scales every factor by itself, by its largest value, before it multiplies.
Where one factor is large just where the other is small, the product is lost: in a chain whose
state fits the row badly, and is yet the only one that leads on, exp(-150) is 0 in single precision,
and the result is that of other paths, or minus infinity. Here the logarithms are added first and
then scaled, so that nothing is lost; the cost is the memory of the product of two factors.

Source: Obermeyer et al. (2019), sections 3 and 4, arXiv:1902.03210 (elimination in any semiring).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce
from operator import add
from typing import Any
from unittest.mock import patch

from pyro.infer import traceenum_elbo
from pyro.infer.discrete import TraceEnumSample_ELBO
from pyro.ops.einsum import torch_log
from pyro.ops.einsum.util import Tensordot
from pyro.ops.rings import LogRing, MapRing
from torch import Tensor

from ppl_vae.compat.of_pyro import COMMON_SCALE


def transpose(factor: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return a factor with its dimensions in another order."""
    return factor.permute(order)


def einsum(equation: str, *factors: Tensor) -> Tensor:
    """Return the product of factors, summed over the dimensions that the result lacks, as logs.

    Args:
        equation: One letter for each dimension of each factor and of the result: ``"ab,b->a"``.
        factors: The factors' logarithms.

    Example:
        >>> import torch
        >>> einsum("a,a->", torch.tensor([0.0, -200.0]), torch.tensor([-200.0, 0.0]))
        tensor(-199.3069)
    """
    joint, kept, summed = aligned_sum(equation, *factors)
    result: Tensor = torch_log.einsum(f"{kept}{summed}->{kept}", joint)
    return result


def aligned_sum(equation: str, *factors: Tensor) -> tuple[Tensor, str, str]:
    """Return the sum of factors along the dimensions that their letters name.

    Args:
        equation: One letter for each dimension of each factor and of the result: ``"ab,b->a"``.
        factors: The factors' logarithms.

    Returns:
        The sum, and the letters of its dimensions: those of the result, and after them those that
        the result lacks.
    """
    inputs, kept = equation.split("->")
    summed = "".join(sorted(set(inputs) - {",", *kept}))
    dims = kept + summed
    joint = reduce(add, map(lambda names, f: _aligned(f, names, dims), inputs.split(","), factors))
    return joint, kept, summed


def _aligned(factor: Tensor, names: str, dims: str) -> Tensor:
    """Return a factor with its dimensions in the order of ``dims``, of size 1 where it has none."""
    ordered = factor.permute([names.index(dim) for dim in dims if dim in names])
    return ordered[tuple(slice(None) if dim in names else None for dim in dims)]


tensordot = Tensordot(einsum)


class SumOfLogs(LogRing):
    """Sums of products of factors, given by their logarithms, in which nothing is lost."""

    _backend = __name__  # where opt_einsum looks for einsum, tensordot and transpose


MaxOfLogs = MapRing  # Pyro adds the logarithms first, as is done here


@contextmanager
def exact_sums_in_pyro(elbo: Any) -> Iterator[None]:
    """Run the block with the sums of ``TraceEnum_ELBO`` over enumerated latents made exact.

    Where Pyro's ring loses a product, the loss of a fit is infinite, or that of other values, and
    nothing says so.

    Expected: ``traceenum_elbo`` makes a ``SampleRing``, whose sums are those of ``LogRing``. Only
    ``TraceEnumSample_ELBO`` uses what it has more, the means to draw the summed latents.

    A KL weight has a gradient, of which torch would warn where Pyro compares the sites' scales, as
    if the user had written something wrong.
    """
    draws = isinstance(elbo, TraceEnumSample_ELBO)
    compare = getattr(*COMMON_SCALE)

    def common_scale(scales: list[Any]) -> Any:
        compare([scale.detach() if isinstance(scale, Tensor) else scale for scale in scales])
        return scales[0]

    sums = nullcontext() if draws else patch.object(traceenum_elbo, "SampleRing", SumOfLogs)
    with sums, patch.object(*COMMON_SCALE, common_scale):
        yield
