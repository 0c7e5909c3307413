"""Real features with heavy tails from a Gaussian latent code: outliers move the fit little.

    z ~ Normal(0, I)                                        z: (latents,)
    m, v = decoder(z)                                       (features,) each, no units
    s = sqrt(spread^2 exp(v) + floor^2)                     (features,), data's units
    x ~ StudentT(df, center + spread m, s)                  x: (features,), data's units

df > 1 is learned for each feature, so that the mean exists; the variance is finite where df > 2.
``build`` takes center and spread from the quartiles, which outliers do not move.
Without a floor, the density of a feature that the decoder predicts exactly grows without bound.

Rows: vectors or images of real numbers with outliers.

Source: Lange, Little & Taylor (1989), Robust statistical modeling using the t distribution,
section 2.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded, make_decoder


class StudentModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., 2 features) that gives m and v, for images on the
            channels; one hidden layer for vectors, convolutions for images, if ``None``.
        center: Center of the data, a number or (features,), in the data's units.
        spread: Spread of the data, a number or (features,), in the data's units.
        floor: Lower bound of s, in the same form and units; ``0.01 * spread`` if ``None``.

    Example:
        >>> model = StudentModel(features=3, latents=2, center=100.0, spread=30.0)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.full((5, 3), 100.0))
        >>> trace.nodes["x"]["fn"].mean.shape
        torch.Size([5, 3])
    """

    center: Tensor
    spread: Tensor
    floor: Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        decoder: nn.Module | None = None,
        center: float | Tensor = 0.0,
        spread: float | Tensor = 1.0,
        floor: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.decoder = decoder or make_decoder(latents, features, heads=2)
        self.register_buffer("center", expanded("center", center, features))
        self.register_buffer("spread", expanded("spread", spread, features, positive=True))
        floor = 0.01 * self.spread if floor is None else floor
        self.register_buffer("floor", expanded("floor", floor, features, least=0))
        self.log_df = nn.Parameter(torch.ones(features))  # df = 1 + exp(log_df), from 3.7 on

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean, log_variance = self.decoder(z).chunk(2, 1 - x.dim())  # (..., rows, features)
            mean = self.center + self.spread * mean
            sd = (self.spread**2 * log_variance.exp() + self.floor**2).sqrt()
            likelihood = dist.StudentT(1 + self.log_df.exp(), mean, sd)
            pyro.sample("x", likelihood.to_event(x.dim() - 1), obs=x)
