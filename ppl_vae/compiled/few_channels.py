"""Transposed convolutions to few channels, computed as a product of matrices and a sum of patches.

    y = fold(W^T x) + bias      x: (images, in, cells); W: (in, out kernel); y: (images, out, cells)

The last layer of a decoder for images has one output channel, or three. torch's own convolution on
a CPU works on 16 output channels at a time, most of them empty then. The product of matrices has no
empty ones: it gives each input cell its patch of the output, and ``fold`` adds up the patches. It
takes a sixth of the time for gray images (28 x 28, 32 channels), and two thirds or less for most
layers to three channels; from four channels on it is no faster everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MOST = 3  # output channels up to which the product of matrices is faster

Pair = int | Sequence[int]


class FewChannels(TorchFunctionMode):
    """Context in which transposed convolutions to few channels are computed as products.

    Other calls, and those of other devices and dtypes than single precision on a CPU, are as they
    are without the context. The results are the same up to rounding.

    Example:
        >>> layer = torch.nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1)
        >>> with FewChannels():
        ...     layer(torch.zeros(5, 32, 14, 14)).shape
        torch.Size([5, 1, 28, 28])
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.conv_transpose2d:
            return _conv_transpose2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv_transpose2d(
    input: Tensor,  # noqa: A002  as torch has it, and so the next seven
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Return what ``conv_transpose2d`` of torch does for the same arguments.

    Args:
        input: Images, (images, in, height, width).
        weight: (in, out, height, width) of the kernel.
        bias: (out,).
        stride: Cells between two patches of the output.
        padding: Cells cut off at each edge of the output.
        output_padding: Cells added at the end of the output.
        groups: Groups of channels.
        dilation: Cells between two cells of the kernel.
    """
    tensors = [input, weight] if bias is None else [input, weight, bias]
    taken = all(each.dtype == torch.float32 and each.device.type == "cpu" for each in tensors)
    if (
        not taken or torch.is_autocast_enabled("cpu") or input.dim() != 4 or input.numel() == 0
        or groups != 1 or weight.dim() != 4 or weight.shape[1] > MOST
        or input.shape[1] != weight.shape[0] or (bias is not None and len(bias) != weight.shape[1])
    ):  # fmt: skip
        return F.conv_transpose2d(
            input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    steps, cut, added, apart = (_two(each) for each in (stride, padding, output_padding, dilation))
    kernel = weight.shape[2:]
    height, width = (
        (input.shape[2 + i] - 1) * steps[i] - 2 * cut[i] + apart[i] * (kernel[i] - 1) + added[i] + 1
        for i in range(2)
    )
    patches = torch.matmul(weight.flatten(1).t(), input.flatten(2))
    image = F.fold(patches, (height, width), tuple(kernel), apart, cut, steps)
    return image if bias is None else image + bias[:, None, None]


def _two(value: Pair) -> tuple[int, int]:
    """Return a size for height and width, given as one number or as two."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])
