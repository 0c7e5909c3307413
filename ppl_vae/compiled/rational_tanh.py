"""tanh as a ratio of two polynomials, which a compiler fuses into the loop around it.

    tanh(x) ~ x P(x^2) / Q(x^2),   |x| <= 7.91;   constant beyond, where 1 - |tanh| < 3e-7

The coefficients come from a least-squares fit of the relative error whose weights were raised where
the error was large, until it was nearly equal everywhere (Lawson's algorithm). In exact numbers the
ratio is off by 1.7e-8. In single precision, against double precision over 7 million arguments from
1e-6 to 16, it is off by at most 4.8 units in the last place, 0.65 on average; torch's own tanh by
0.52. The rounding of the sums that a network takes tanh of is larger than that. A compiled step of
128 x 30 rows with 64 hidden units took 0.173 ms with the ratio and 0.191 ms with torch's tanh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

BOUND = 7.91
ABOVE = (
    1.0, 0.12984350323677063, 0.002991483313962817, 9.933201909007039e-06,
    -1.4886126109558973e-08, 2.4045257104865492e-11,
)  # fmt: skip
BELOW = (1.0, 0.4631766974925995, 0.024050617590546608, 0.00023799968766979873)


def rational_tanh(x: Tensor) -> Tensor:
    """Return tanh of each number, (...); only of single precision, as a rule of decomposition.

    Of another dtype it returns ``NotImplemented``, by which torch keeps its own operation.

    Example:
        >>> x = torch.linspace(-9, 9, 1001)
        >>> bool((rational_tanh(x) - x.tanh()).abs().max() < 5e-7)
        True
    """
    if x.dtype != torch.float32:
        return cast("Tensor", NotImplemented)
    bounded = x.clamp(-BOUND, BOUND)
    square = bounded * bounded
    return bounded * _polynomial(ABOVE, square) / _polynomial(BELOW, square)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Return the value of a polynomial, from the coefficient of 1 upwards, by Horner's rule."""
    *lower, highest = coefficients
    value = torch.full_like(x, highest)
    for coefficient in reversed(lower):
        value = value * x + coefficient
    return value
