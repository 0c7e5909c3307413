"""Copies of tensors that lie in memory as the tensors themselves, and writing copies back.

A compiled function holds for the strides of its example inputs. ``tensor.clone()`` keeps strides
only where the numbers of a tensor fill one piece of memory. A tensor that ``expand`` has made has
stride 0, and all its copies of a number are one number in memory; every second row of a matrix
leaves gaps. The clones of these have other strides than the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def copy_with_strides(tensor: Tensor) -> Tensor:
    """Return a detached copy of a tensor, of any shape, with the strides of the tensor.

    Example:
        >>> copy_with_strides(torch.ones(1).expand(3)).stride()
        (0,)
    """
    copy = tensor.detach().clone()
    if tensor.layout is not torch.strided or copy.stride() == tensor.stride():
        return copy
    sizes_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
    length = 1 + sum((size - 1) * stride for size, stride in sizes_and_strides)
    memory = tensor.detach().as_strided((length,), (1,)).clone()  # gaps included
    return memory.as_strided(tensor.shape, tensor.stride())


def write_back(tensor: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor of the same shape, an expanded tensor included.

    torch refuses to write into all copies of an expanded number at once; one of them is enough.
    """
    strides = tensor.stride() if tensor.layout is torch.strided else ()
    with torch.no_grad():
        for dim, stride in enumerate(strides):
            if stride == 0 and tensor.shape[dim] > 1:
                tensor, value = tensor.narrow(dim, 0, 1), value.narrow(dim, 0, 1)
        tensor.copy_(value)


def forms_of(tensors: Iterable[Tensor]) -> list[tuple[object, ...]]:
    """Return what compiled code takes for granted of each tensor: shape, strides, dtype.

    Example:
        >>> forms_of([torch.ones(2, 3)])
        [(torch.Size([2, 3]), (3, 1), torch.float32)]
    """
    return [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors]
