"""The networks that a model or a guide has when it is given none.

    make_encoder(features, outputs)             row (*features,)  ->  vector (outputs,)
    make_decoder(latents, features, heads=k)    code (latents,)   ->  k numbers for each feature
    make_code_encoder(features, positions, size)    row (*features,)  ->  (positions * size,)
    make_code_decoder(positions, size, features)    (positions * size,)  ->  row (*features,)

Rows that are vectors get an ``MLP`` with one hidden layer, images get convolutions. The positions
of a code are the places of an image's grid, where there are as many.
"""

from collections.abc import Sequence

from torch import nn

from ppl_vae.nn.checked import check_row, check_sizes
from ppl_vae.nn.convolutions import ConvDecoder, ConvEncoder
from ppl_vae.nn.grids import GridDecoder, GridEncoder, places_of
from ppl_vae.nn.mlp import MLP


def make_encoder(features: int | Sequence[int], outputs: int) -> nn.Module:
    """Return a network from rows to vectors: (..., *features) -> (..., outputs).

    Args:
        features: Number of features of a row, or (channels, height, width) of an image.
        outputs: Size of the vector that goes out.

    Example:
        >>> type(make_encoder(16, 4)).__name__, type(make_encoder((1, 28, 28), 4)).__name__
        ('MLP', 'ConvEncoder')
    """
    check_row(features)
    if isinstance(features, Sequence):
        return ConvEncoder(features, outputs)
    return MLP(features, outputs)


def make_decoder(latents: int, features: int | Sequence[int], heads: int = 1) -> nn.Module:
    """Return a network from codes to rows, with several numbers for each feature.

    The numbers lie side by side on the dimension of the features, or of the channels of an image:
    (..., latents) -> (..., heads * features), or -> (..., heads * channels, height, width).

    Args:
        latents: Size of the code.
        features: Number of features of a row, or (channels, height, width) of an image.
        heads: How many numbers each feature gets, such as a mean and a log-variance.

    Example:
        >>> import torch
        >>> mean, log_variance = make_decoder(8, 16, heads=2)(torch.zeros(5, 8)).chunk(2, -1)
        >>> log_variance.shape
        torch.Size([5, 16])
    """
    check_row(features)
    check_sizes(latents=latents, heads=heads)
    if isinstance(features, Sequence):
        channels, *size = features
        return ConvDecoder(latents, (heads * channels, *size))
    return MLP(latents, heads * features)


def make_code_encoder(features: int | Sequence[int], positions: int, size: int) -> nn.Module:
    """Return a network from rows to a vector at each position: (..., positions * size).

    Args:
        features: Number of features of a row, or (channels, height, width) of an image.
        positions: Number of positions; those of an image's grid are ``places_of(features)``.
        size: Size of the vector at each position.

    Example:
        >>> type(make_code_encoder((1, 28, 28), positions=49, size=8)).__name__
        'GridEncoder'
    """
    check_row(features)
    if isinstance(features, Sequence) and positions == places_of(features):
        return GridEncoder(features, size)
    return make_encoder(features, positions * size)


def make_code_decoder(positions: int, size: int, features: int | Sequence[int]) -> nn.Module:
    """Return a network from a vector at each position, (..., positions * size), to rows.

    Args:
        positions: Number of positions; those of an image's grid are ``places_of(features)``.
        size: Size of the vector at each position.
        features: Number of features of a row, or (channels, height, width) of an image.

    Example:
        >>> type(make_code_decoder(49, 8, (1, 28, 28))).__name__
        'GridDecoder'
    """
    check_row(features)
    if isinstance(features, Sequence) and positions == places_of(features):
        return GridDecoder(size, features)
    return make_decoder(positions * size, features)
