"""The networks that a model or a guide has when it is given none.

    make_encoder(features, outputs)             row (*features,)  ->  vector (outputs,)
    make_decoder(latents, features, heads=k)    code (latents,)   ->  k numbers for each feature

Rows that are vectors get an ``MLP`` with one hidden layer, images get convolutions.
"""

from collections.abc import Sequence

from torch import nn

from ppl_vae.nn.checked import check_row, check_sizes
from ppl_vae.nn.convolutions import ConvDecoder, ConvEncoder
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
