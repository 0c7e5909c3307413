"""Sparse coding: features linear in many latents, of which few are far from zero.

    z ~ Laplace(0, 1)                                z: (latents,), more latents than features
    x ~ Normal(loc + scale (W z + b), scale sigma)   x: (features,), data's units

The columns of W are the dictionary: each row of the data is a sum of few of them. The prior has a
peak at 0, which holds a latent there unless the row needs it, and heavy tails for when it does. The
spread of the prior is fixed, so that W needs no norm. One sigma, learned, is the noise of all
features.

Rows: vectors of real numbers that are sums of few parts.

Source: Olshausen & Field (1996), Nature 381, pages 607 to 609 (prior and likelihood); Geadah et al.
(2024), Neural Computation 36(12), pages 2571 to 2601 (fitted with an amortized guide).
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded


class SparseModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z; twice ``features`` if ``None``. A guide needs the same.
        decoder: Network (..., latents) -> (..., features), without units; linear if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> model = SparseModel(features=3)
        >>> model.latents, model.decoder.weight.shape  # W: a column for each latent
        (6, torch.Size([3, 6]))
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int,
        latents: int | None = None,
        decoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(features=features, latents=1 if latents is None else latents)
        self.features = features
        self.latents = 2 * features if latents is None else latents
        self.decoder = decoder or nn.Linear(self.latents, features)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Laplace(x.new_zeros(self.latents), 1.0).to_event(1))
            mean = self.loc + self.scale * self.decoder(z)  # (..., rows, features)
            sd = self.scale * self.log_sigma.exp()
            pyro.sample("x", dist.Normal(mean, sd).to_event(1), obs=x)
