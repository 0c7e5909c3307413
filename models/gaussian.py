"""Real features from a Gaussian latent code, each with a mean and a variance from the decoder.

    z ~ Normal(0, I)                                             z: (latents,)
    m, v = decoder(z)                                            (features,) each, no units
    x ~ Normal(loc + scale m, sqrt(scale^2 exp(v) + floor^2))    x: (features,), data's units

Rows: vectors or images of real numbers.

Without a floor, the density of a feature that the decoder predicts exactly grows without bound.

Source: Kingma & Welling (2014), appendix C.2, arXiv:1312.6114 (one tanh layer, two heads).
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded, make_decoder


class GaussianModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., 2 features) that gives m and v, the mean and the
            log-variance without units, for images on the channels; one hidden layer for vectors,
            convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.
        floor: Lower bound of the standard deviation, a number or (features,), in the data's
            units; ``0.01 * scale`` if ``None``.

    Example:
        >>> model = GaussianModel(features=3, latents=2, loc=100.0, scale=30.0)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.full((5, 3), 100.0))
        >>> trace.nodes["x"]["fn"].mean.shape
        torch.Size([5, 3])
    """

    loc: Tensor
    scale: Tensor
    floor: Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        decoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        floor: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.decoder = decoder or make_decoder(latents, features, heads=2)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        floor = 0.01 * self.scale if floor is None else floor
        self.register_buffer("floor", expanded("floor", floor, features, least=0))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean, log_variance = self.decoder(z).chunk(2, 1 - x.dim())  # (..., rows, features)
            mean = self.loc + self.scale * mean
            sd = (self.scale**2 * log_variance.exp() + self.floor**2).sqrt()
            pyro.sample("x", dist.Normal(mean, sd).to_event(x.dim() - 1), obs=x)
