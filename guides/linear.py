"""Linear guide: the mean of the code is linear in the row, the covariance is full and shared.

    m = A (x - loc) / scale + b          m: (latents,); x: (features,), data's units
    z ~ MultivariateNormal(m, L L^T)     z: (latents,); L lower triangular, the same for all rows

The exact posterior of probabilistic PCA has this form.

Source: Tipping & Bishop (1999), Probabilistic principal component analysis, section 3.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from ppl_vae.nn import Standardize, check_sizes


class LinearGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z, as in the model.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> guide = LinearGuide(features=16, latents=2)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    scale_tril: Any  # assigned as a PyroParam, read as a tensor: L, (latents, latents)

    def __init__(
        self,
        features: int,
        latents: int = 8,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(features=features, latents=latents)
        self.features, self.latents, self.loc, self.scale = features, latents, loc, scale
        self.standardize = Standardize(loc, scale)
        self.encoder = nn.Linear(features, latents)
        self.scale_tril = PyroParam(torch.eye(latents), constraints.softplus_lower_cholesky)

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        mean = self.encoder(self.standardize(x))  # (rows, latents)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=self.scale_tril))
