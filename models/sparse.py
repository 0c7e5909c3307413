"""Sparse coding: features linear in many latents, of which few are far from zero.

    z ~ Laplace(0, 1)                                z: (latents,), more latents than features
    x ~ Normal(loc + scale (W z + b), scale sigma)   x: (features,), data's units

The columns of W are the dictionary: each row of the data is a sum of few of them. A network in
place of W makes it a sparse autoencoder. The noise has one sigma, learned, for all features.

Rows: vectors of real numbers that are sums of few parts.

Source: Olshausen & Field (1996), Nature 381, pages 607 to 609 (prior and likelihood).
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn


class SparseModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z; twice ``features`` if ``None``.
        decoder: Network (..., latents) -> (..., features), without units; linear if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> model = SparseModel(features=3, latents=5)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(10, 3))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([10, 5])
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
        self.features, self.latents = features, latents or 2 * features
        self.decoder = decoder or nn.Linear(self.latents, features)
        self.register_buffer("loc", torch.as_tensor(loc).expand(features).clone())
        self.register_buffer("scale", torch.as_tensor(scale).expand(features).clone())
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Laplace(x.new_zeros(self.latents), 1.0).to_event(1))
            mean = self.loc + self.scale * self.decoder(z)  # (..., rows, features)
            sd = self.scale * self.log_sigma.exp()
            pyro.sample("x", dist.Normal(mean, sd).to_event(1), obs=x)
