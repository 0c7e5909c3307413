"""Sums of products given by their logarithms, whose gradient is a draw of what is summed over.

    DrawOfLogs   log sum_y prod_f f(y)     gradient: 1 at a drawn y, y ~ p(y) = prod_f f(y) / sum

Wherever a dimension is summed out, one of its values is drawn from what the values add to the sum,
given all dimensions that are summed out later. Followed back from the total, the gradient is 1 at
the drawn values alone: in a chain, forward filtering and backward sampling. ``einsum``,
``tensordot`` and ``transpose`` are what opt_einsum looks for in a module.

The draw is the largest log-weight plus Gumbel noise (the Gumbel-max identity).

Sources: Scott (2002), Bayesian methods for hidden Markov models, section 2 (backward sampling);
Obermeyer et al. (2019), section 4, arXiv:1902.03210 (elimination in a semiring).
"""

from __future__ import annotations

import torch
from pyro.ops.einsum.util import Tensordot
from torch import Tensor

from ppl_vae.elbo.log_sums import SumOfLogs, aligned_sum, transpose

__all__ = ["DrawOfLogs", "einsum", "tensordot", "transpose"]


def einsum(equation: str, *factors: Tensor) -> Tensor:
    """Return the product of factors, summed over the dimensions that the result lacks, as logs.

    Args:
        equation: One letter for each dimension of each factor and of the result: ``"ab,b->a"``.
        factors: The factors' logarithms.

    Example:
        >>> logs = torch.tensor([0.0, -1000.0], requires_grad=True)
        >>> einsum("a->", logs).backward()
        >>> logs.grad
        tensor([1., 0.])
    """
    joint, kept, summed = aligned_sum(equation, *factors)
    if not summed:
        return joint.clone()
    weights = joint.flatten(len(kept))  # the dimensions that are summed out are one
    exponential = torch.empty_like(weights).exponential_()
    noise = exponential.clamp(min=torch.finfo(weights.dtype).tiny).log()
    drawn = (weights.detach() - noise).argmax(-1, keepdim=True)
    # where all weights are 0 the gradient is 0: no value can be drawn, and -inf - -inf is NaN
    least = torch.finfo(weights.dtype).min
    chosen = weights.gather(-1, drawn).squeeze(-1).clamp(min=least)
    return weights.detach().logsumexp(-1) + (chosen - chosen.detach())


tensordot = Tensordot(einsum)


class DrawOfLogs(SumOfLogs):
    """Sums of products of factors, given by their logarithms, whose gradients are draws."""

    _backend = __name__
