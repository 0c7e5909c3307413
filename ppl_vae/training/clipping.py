"""The factor that clips a gradient, from a norm that does not overflow.

    factor = min(1, c / |g|),    |g| = sqrt(sum g_i^2)

with c the largest norm. In single precision the square of 2e19 is no longer finite, and so is the
sum of many smaller squares, so that the squares are added up in double precision. Gradients in
double precision are divided by their largest number first.

Adam and RMSprop hold squares of the gradient. A square that is not finite would stop its parameter
for the rest of the fit without a word, so that the factor is NaN, and no update is made, where a
number of the clipped gradient is that large.

Every gradient is read once, because these readings are a tenth of a small compiled step: for its
norm where gradients are clipped, for its largest number where they are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


def clip_factor(gradients: Sequence[Tensor], limit: float) -> Tensor:
    """Return what to multiply the gradients by, a scalar; NaN where they cannot be used.

    The work is done by operations on tensors alone, so that a compiled step can contain them.

    Args:
        gradients: One gradient for each parameter, of any shapes; at least one.
        limit: Largest norm of all gradients together; infinite where nothing is clipped.

    Returns:
        A number in (0, 1], or NaN where a number of the gradients is not finite, or where the
        square of a number is not finite after clipping.

    Example:
        >>> clip_factor([torch.tensor([3e20, 4e20])], 5.0), clip_factor([torch.ones(2)], 5.0)
        (tensor(1.0000e-20), tensor(1.))
        >>> clip_factor([torch.tensor([3e20, 4e20])], math.inf)
        tensor(nan)
    """
    first = gradients[0]
    filled = [g.to(first) for g in gradients if g.numel()] or [first.new_zeros(1)]
    if limit == math.inf:
        largest, factor = _largest(filled), first.new_ones(())
    else:
        norm = _norm(filled)
        factor = (limit / (norm + 1e-6)).clamp(max=1.0).to(first.dtype)
        # No number of the clipped gradient is larger than its norm.
        largest = torch.where(norm.isfinite(), norm.clamp(max=limit), norm).to(first.dtype)
    return torch.where(largest.square().isfinite(), factor, math.nan)


def _largest(gradients: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute value of all numbers, NaN where one is NaN."""
    return reduce(torch.maximum, [g.abs().amax() for g in gradients])


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of all numbers together in double precision; infinite or NaN as they are."""
    if gradients[0].dtype != torch.float64:
        return reduce(torch.add, [g.double().square().sum() for g in gradients]).sqrt()
    largest = _largest(gradients)
    unit = torch.where(largest > 0, largest, 1.0)
    return unit * reduce(torch.add, [(g / unit).square().sum() for g in gradients]).sqrt()
