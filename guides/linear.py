"""Linear guide with a full covariance: one map gives every row's mean, one matrix the spread.

    m = A (x - loc) / scale + b          (latents,)
    z ~ MultivariateNormal(m, L L^T)     z: (latents,); L lower triangular, the same for all rows

The exact posterior of probabilistic PCA is one of these.

Source: Tipping & Bishop (1999), Probabilistic principal component analysis, section 3.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from ppl_vae.nn import Standardize


class LinearGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Width of a row.
        latents: Width of the code.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, likewise.
    """

    scale_tril: Any  # a PyroParam goes in, a tensor comes out

    def __init__(
        self,
        features: int,
        latents: int = 8,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.features, self.latents, self.loc, self.scale = features, latents, loc, scale
        self.standardize = Standardize(loc, scale)
        self.encoder = nn.Linear(features, latents)
        self.scale_tril = PyroParam(torch.eye(latents), constraints.softplus_lower_cholesky)

    def forward(self, x: Tensor) -> None:
        """Propose codes for rows x, (rows, features)."""
        mean = self.encoder(self.standardize(x))  # (rows, latents)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=self.scale_tril))
