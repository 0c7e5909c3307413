"""Convolutional networks between images and grids of vectors, a vector for each place of the grid.

    encoder    image (channels, height, width)  ->  (places * size,), place after place
    decoder    (places * size,)                 ->  image (channels, height, width)

The grid is the image halved in height and width, rounded up, once for each layer: 7 x 7 places of
28 x 28 pixels by two layers. Each place sees its neighbourhood alone, and all share the weights.

Source: van den Oord, Vinyals & Kavukcuoglu (2017), section 4.1, arXiv:1711.00937.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ppl_vae.nn.any_batch import AnyBatch
from ppl_vae.nn.checked import check_row, check_sizes
from ppl_vae.nn.convolutions import ResidualBlock, check_shape, coarsest


class GridEncoder(nn.Module):
    """A vector for each place of an image: (..., channels, height, width) -> (..., places * size).

    Args:
        shape: (channels, height, width) of an image.
        size: Size of the vector at each place.
        hidden: Channels after each layer; each layer halves height and width, rounded up.
        residual: Number of residual blocks after the last layer.

    Example:
        >>> import torch
        >>> encoder = GridEncoder((1, 28, 28), size=8)
        >>> encoder.places, encoder(torch.zeros(5, 1, 28, 28)).shape
        (49, torch.Size([5, 392]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        size: int,
        hidden: Sequence[int] = (32, 64),
        residual: int = 1,
    ) -> None:
        super().__init__()
        self.shape, self.places = check_shape(shape), places_of(shape, hidden)
        check_sizes(size=size, hidden=hidden)
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise((self.shape[0], *hidden)):
            layers += [nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1), nn.SiLU()]
        layers += [ResidualBlock(hidden[-1]) for _ in range(residual)]
        layers += [nn.SiLU(), nn.Conv2d(hidden[-1], size, 1), nn.Flatten(2)]
        self.layers = AnyBatch(nn.Sequential(*layers), row_dims=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., places * size) for images x, (..., channels, height, width)."""
        if tuple(x.shape[-3:]) != self.shape:
            raise ValueError(
                f"expected images of shape {self.shape}, (channels, height, width), got an input "
                f"of shape {tuple(x.shape)}; resize or crop the images, or build another pair"
            )
        vectors: Tensor = self.layers(x)  # (..., size, places)
        return vectors.transpose(-1, -2).flatten(-2)


class GridDecoder(nn.Module):
    """An image from a vector at each place: (..., places * size) -> (..., channels, height, width).

    Args:
        size: Size of the vector at each place.
        shape: (channels, height, width) of an image.
        hidden: Channels before each layer; each layer doubles height and width.
        residual: Number of residual blocks before the first layer.

    Example:
        >>> import torch
        >>> GridDecoder(8, (1, 28, 28))(torch.zeros(5, 100, 392)).shape
        torch.Size([5, 100, 1, 28, 28])
    """

    def __init__(
        self,
        size: int,
        shape: Sequence[int],
        hidden: Sequence[int] = (64, 32),
        residual: int = 1,
    ) -> None:
        super().__init__()
        self.size, self.shape = size, check_shape(shape)
        check_sizes(size=size, hidden=hidden)
        self.grid = coarsest(self.shape, hidden)[1:]
        layers: list[nn.Module] = [nn.Unflatten(2, self.grid), nn.Conv2d(size, hidden[0], 1)]
        layers += [ResidualBlock(hidden[0]) for _ in range(residual)]
        for channels_in, channels_out in pairwise((*hidden, self.shape[0])):
            layers += [
                nn.SiLU(),
                nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1),
            ]
        self.layers = AnyBatch(nn.Sequential(*layers), row_dims=2)

    def forward(self, z: Tensor) -> Tensor:
        """Return one image for each grid of vectors, (..., places * size)."""
        image: Tensor = self.layers(z.unflatten(-1, (-1, self.size)).transpose(-1, -2))
        return image[..., : self.shape[1], : self.shape[2]]


def places_of(features: int | Sequence[int], hidden: Sequence[int] = (32, 64)) -> int:
    """Return the number of places of an image's grid, halved once for each layer; 8 for a vector.

    Args:
        features: Number of features of a row, or (channels, height, width) of an image.
        hidden: Channels after each layer, as of ``GridEncoder``.

    Example:
        >>> places_of((1, 28, 28)), places_of(16)
        (49, 8)
    """
    check_row(features)
    if not isinstance(features, Sequence):
        return 8
    _, height, width = coarsest(check_shape(features), hidden)
    return height * width
