"""The factor that clips a gradient, from a norm that does not overflow.

    factor = min(1, c / |g|),    |g| = s^-1 sqrt(sum (s g_i)^2)

with c the largest norm and s a power of 2. In single precision the square of 2e19 is no longer
finite, and so is the sum of many smaller squares. Where that happens, s = 2^-80 takes the place of
s = 1, and squares of all finite numbers are finite. The norm itself is never formed there, because
it may be larger than the largest number: the factor is s c / sqrt(sum (s g_i)^2).

Adam and RMSprop hold squares of the gradient. A square that is not finite would stop its parameter
for the rest of the fit without a word, so that the factor is NaN, and no update is made, where a
number of the clipped gradient is that large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    shrink = 2.0 ** -round(0.625 * math.log2(torch.finfo(first.dtype).max))
    filled = [g.to(first) for g in gradients if g.numel()] or [first.new_zeros(1)]
    largest = torch.stack([g.abs().amax() for g in filled]).amax()
    plain = torch.stack([g.square().sum() for g in filled]).sum().sqrt()
    shrunk = torch.stack([(g * shrink).square().sum() for g in filled]).sum().sqrt()
    factor = torch.ones_like(plain)
    if limit < math.inf:
        by_shrunk = limit * shrink / shrunk
        factor = torch.where(plain.isfinite(), limit / (plain + 1e-6), by_shrunk).clamp(max=1.0)
    usable = shrunk.isfinite() & (largest * factor).square().isfinite()
    return torch.where(usable, factor, math.nan)
