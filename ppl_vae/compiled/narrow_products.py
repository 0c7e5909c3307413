"""Products of matrices with few or odd numbers of columns, computed with others or transposed.

    A B = (A [B 0]) without the columns of 0          A B = (B^T A^T)^T

On a processor of AMD, MKL makes 16 columns of the result at a time. What is left of them it makes
in pieces of 8, 4, 2 and 1 columns, each of which takes nearly as long as the 16: 30 columns take
1.6 times as long as 32. Up to 10 columns it takes another way, which is slower still: (1024 x 64)
times (64 x 8) takes four times as long as the transposed product, whose number of columns is 1024.
Codes of a few latents, and data of a few features, are such products.

Whole compiled steps of 128 x 30 rows took a twentieth less time with 20 latents, a sixth less with
8; with eight draws of the code for each row a tenth and a fifth less. MKL on other processors was
not measured, and is left alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

aten = torch.ops.aten

AT_A_TIME = 16  # columns that MKL makes together
SLOW_WAY = 10  # columns up to which MKL takes the slow way
WIDE = 128  # columns from which on the last few of them matter little
FEWEST_ROWS = 64  # rows of the result from which on another way is worth a copy
SMALL = 4096  # numbers of a result that is transposed nearly for nothing


@functools.cache
def rules() -> dict[Any, Callable[..., Any]]:
    """Return ``{operation: what stands in its place}`` for this computer.

    It is empty where torch does not multiply by MKL on a processor of AMD, as far as Linux tells.
    """
    described = Path("/proc/cpuinfo")
    measured = (
        torch.backends.mkl.is_available()
        and described.exists()
        and "AuthenticAMD" in described.read_text()
    )
    return {aten.mm.default: mm, aten.addmm.default: addmm} if measured else {}


def mm(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of two matrices; as a rule of decomposition for ``aten.mm``.

    Returns ``NotImplemented``, by which torch keeps its own product, where that is as fast.

    Args:
        left: (rows, inner).
        right: (inner, columns).

    Returns:
        The product, (rows, columns), equal up to rounding.

    Example:
        >>> mm(torch.ones(64, 5), torch.ones(5, 30)).shape
        torch.Size([64, 30])
    """
    rows, columns = len(left), right.shape[1]
    left_over = columns % AT_A_TIME
    if left.dtype != torch.float32 or left_over == 0 or columns == 1 or columns > WIDE:
        return cast("Tensor", NotImplemented)
    pieces = left_over.bit_count()
    many_rows, in_slow_way = rows >= FEWEST_ROWS, columns <= SLOW_WAY
    if many_rows and not in_slow_way and pieces > 1:
        wider = torch.constant_pad_nd(right, (0, AT_A_TIME - left_over))
        return cast("Tensor", aten.mm.default(left, wider)[:, :columns])
    if (many_rows and in_slow_way) or (rows % AT_A_TIME == 0 and rows * columns <= SMALL):
        return cast("Tensor", aten.mm.default(right.t(), left.t()).t().contiguous())
    return cast("Tensor", NotImplemented)


def addmm(
    bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """Return the product of two matrices plus a bias; as a rule for ``aten.addmm``.

    Args:
        bias: Of any shape that broadcasts to (rows, columns).
        left: (rows, inner).
        right: (inner, columns).
        beta: What the bias is multiplied by; another number than 1 is left to torch.
        alpha: What the product is multiplied by; as ``beta``.

    Example:
        >>> addmm(torch.ones(30), torch.ones(64, 5), torch.ones(5, 30))[0, 0]
        tensor(6.)
    """
    if beta != 1 or alpha != 1:
        return cast("Tensor", NotImplemented)
    product = mm(left, right)
    return product if product is NotImplemented else product + bias
