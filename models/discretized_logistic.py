"""8-bit pixels from a Gaussian latent code: a logistic distribution rounded to whole levels.

    z ~ Normal(0, I)                             z: (latents,)
    m, v = decoder(z)                            (features,) each, no units
    y ~ Logistic(loc + scale m, scale exp(v))    y: (features,), in levels
    x = y rounded and clamped to 0 .. 255        x: (features,), whole numbers
    p(x given z) = F(x + 1/2) - F(x - 1/2)       F: CDF of y; F(-1/2) = 0, F(255 + 1/2) = 1

Rows: vectors or images of 8-bit pixels, whole numbers from 0 to 255.

Source: Kingma et al. (2016), arXiv:1606.04934; Salimans et al. (2017), arXiv:1701.05517, sec. 2.1.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import RoundedLogistic
from ppl_vae.nn import check_sizes, expanded, make_decoder


class DiscretizedLogisticModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., 2 features) that gives m and v, for images on the
            channels; one hidden layer for vectors, convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in levels.
        scale: Spread of the data, a number or (features,), in levels.

    Example:
        >>> model = DiscretizedLogisticModel(features=16, latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.full((5, 16), 200))
        >>> trace.nodes["x"]["fn"].mean.shape
        torch.Size([5, 16])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        decoder: nn.Module | None = None,
        loc: float | Tensor = 128.0,
        scale: float | Tensor = 64.0,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.decoder = decoder or make_decoder(latents, features, heads=2)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), whole numbers of any dtype."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            m, v = self.decoder(z).chunk(2, 1 - x.dim())  # (..., rows, features): particles lead
            pixels = RoundedLogistic(self.loc + self.scale * m, self.scale * v.exp())
            pyro.sample("x", pixels.to_event(x.dim() - 1), obs=x)
