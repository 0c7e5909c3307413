"""Diagonal normal guide: a network gives the mean and the variance of every row's code.

    m, v = encoder((x - loc) / scale)    (latents,) each; x: (features,), data's units
    z ~ Normal(m, positive(v / 2))       z: (latents,); positive: exp, so that v is log-variance,
                                         or softplus

Source: Kingma & Welling (2014), appendix C.2, arXiv:1312.6114.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import positive_transform
from ppl_vae.nn import Standardize, check_sizes, make_encoder


class NormalGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model.
        encoder: Network (..., features) -> (..., 2 latents) that gives m and v; it reads rows
            of about unit size. One hidden layer for vectors, convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.
        positive: ``"exp"`` or ``"softplus"``, which makes the standard deviation positive.

    Example:
        >>> import torch
        >>> guide = NormalGuide(features=16, latents=2)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        positive: str = "exp",
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents, self.loc, self.scale = features, latents, loc, scale
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, 2 * latents)
        self.to_positive = positive_transform(positive)

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        mean, v = self.encoder(self.standardize(x)).chunk(2, -1)  # (rows, latents) each
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, self.to_positive(v / 2)).to_event(1))
