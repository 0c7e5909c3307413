"""Convolutional networks for images (channels, height, width), any dimensions in front.

    encoder    image (channels, height, width)  ->  vector (outputs,)
    decoder    vector (inputs,)                 ->  image (channels, height, width)

Each layer of the encoder halves height and width, rounded up; each layer of the decoder doubles
them, and a last row or column that is too many is cut off.

Source: Radford, Metz & Chintala (2016), section 3, arXiv:1511.06434 (strides in place of pooling).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from ppl_vae.nn.any_batch import AnyBatch


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions whose output is added to their input; images keep their shape.

    Source: He et al. (2016), section 2, arXiv:1603.05027 (activation before each convolution).

    Args:
        channels: Channels of the images.
        activation: Class or function that makes the module before each convolution.

    Example:
        >>> ResidualBlock(8)(torch.zeros(5, 8, 14, 14)).shape
        torch.Size([5, 8, 14, 14])
    """

    def __init__(self, channels: int, activation: Callable[[], nn.Module] = nn.SiLU) -> None:
        super().__init__()
        layers = [(activation(), nn.Conv2d(channels, channels, 3, padding=1)) for _ in range(2)]
        self.layers = nn.Sequential(*(module for layer in layers for module in layer))

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the same shape, (rows, channels, height, width)."""
        residual: Tensor = self.layers(x)
        return x + residual


class ConvEncoder(nn.Module):
    """A convolutional encoder: (..., channels, height, width) -> (..., outputs).

    Args:
        shape: (channels, height, width) of an image.
        outputs: Size of the vector that goes out.
        hidden: Channels after each layer; each layer halves height and width, rounded up.
        residual: Number of residual blocks after each layer.
        activation: Class or function that makes the module after each layer.

    Raises:
        ValueError: If an image of another shape comes in.

    Example:
        >>> ConvEncoder((1, 28, 28), 16)(torch.zeros(5, 100, 1, 28, 28)).shape
        torch.Size([5, 100, 16])
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        hidden: Sequence[int] = (32, 64),
        residual: int = 0,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        self.shape = check_shape(shape)
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise((self.shape[0], *hidden)):
            layers += [nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1), activation()]
            layers += [ResidualBlock(channels_out, activation) for _ in range(residual)]
        cells = math.prod(coarsest(self.shape, hidden))
        layers += [nn.Flatten(), nn.Linear(cells, outputs)]
        self.layers = AnyBatch(nn.Sequential(*layers), row_dims=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return one vector for each image of x, (..., channels, height, width)."""
        if tuple(x.shape[-3:]) != self.shape:
            raise ValueError(
                f"expected images of shape {self.shape}, (channels, height, width), got an input "
                f"of shape {tuple(x.shape)}; resize or crop the images, or build another pair for "
                "them (gray images without a channel need x[:, None])"
            )
        out: Tensor = self.layers(x)
        return out


class ConvDecoder(nn.Module):
    """A convolutional decoder: (..., inputs) -> (..., channels, height, width).

    Args:
        inputs: Size of the vector that comes in.
        shape: (channels, height, width) of an image.
        hidden: Channels before each layer; each layer doubles height and width.
        residual: Number of residual blocks before each layer.
        activation: Class or function that makes the module before each layer.

    Example:
        >>> ConvDecoder(16, (1, 28, 28))(torch.zeros(5, 100, 16)).shape
        torch.Size([5, 100, 1, 28, 28])
    """

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        hidden: Sequence[int] = (64, 32),
        residual: int = 0,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        self.shape = check_shape(shape)
        first = coarsest(self.shape, tuple(hidden)[::-1])
        layers: list[nn.Module] = [nn.Linear(inputs, math.prod(first)), nn.Unflatten(1, first)]
        for channels_in, channels_out in pairwise((*hidden, self.shape[0])):
            layers += [ResidualBlock(channels_in, activation) for _ in range(residual)]
            layers += [
                activation(),
                nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1),
            ]
        self.layers = AnyBatch(nn.Sequential(*layers), row_dims=1)

    def forward(self, z: Tensor) -> Tensor:
        """Return one image for each vector of z, (..., inputs)."""
        image: Tensor = self.layers(z)
        return image[..., : self.shape[1], : self.shape[2]]


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of an image as a tuple.

    Raises:
        ValueError: If the shape is not three positive whole numbers.
    """
    numbers = tuple(int(number) for number in shape)
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError(
            f"shape: expected (channels, height, width), got {tuple(shape)}; images without "
            "channels need x.unsqueeze(1)"
        )
    return numbers


def coarsest(shape: tuple[int, ...], hidden: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape of an image after one halving, rounded up, for each number of channels.

    Args:
        shape: (channels, height, width) before the first halving.
        hidden: Channels after each halving.
    """
    channels, height, width = (shape[0], *hidden)[-1], *shape[1:]
    for _ in hidden:
        height, width = -(-height // 2), -(-width // 2)
    return channels, height, width
