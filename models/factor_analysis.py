"""Factor analysis: features linear in a Gaussian latent code, each with a noise of its own.

    z ~ Normal(0, I)                                              z: (latents,)
    x ~ Normal(loc + scale (W z + m), scale s)                    x: (features,), data's units
    x ~ Normal(loc + scale m, scale (W W^T + diag(s^2)) scale)    the same x with z integrated out

scale and s have one number for each feature; in the last line scale is the diagonal matrix of them.
Probabilistic PCA is the case of one scale and one s for all features.

Rows: vectors of real numbers, each feature in a unit of its own.

Source: Rubin & Thayer (1982), EM algorithms for ML factor analysis, section 2.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded


class FactorAnalysisModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> model = FactorAnalysisModel(features=4, latents=2)
        >>> model.log_prob(torch.zeros(5, 4)).shape
        torch.Size([5])
        >>> model.density().cov_factor.shape
        torch.Size([4, 2])
        >>> pyro.poutine.trace(model.marginal).get_trace(torch.zeros(5, 4)).observation_nodes
        ['x']
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, features: int, latents: int = 8, loc: float | Tensor = 0, scale: float | Tensor = 1
    ) -> None:
        super().__init__()
        check_sizes(features=features, latents=latents)
        self.features, self.latents = features, latents
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        self.weight = nn.Parameter(torch.randn(features, latents) / features**0.5)
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_sigma = nn.Parameter(torch.zeros(features))  # log s

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc.new_zeros(self.latents), 1.0).to_event(1))
            mean = self.loc + self.scale * (z @ self.weight.T + self.shift)
            noise = self.scale * self.log_sigma.exp()
            pyro.sample("x", dist.Normal(mean, noise).to_event(1), obs=x.to(self.loc.dtype))

    @pyro_method
    def marginal(self, x: Tensor) -> None:
        """Score rows x with z integrated out: ``fit(model.marginal, None, x)`` needs no guide."""
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.density(), obs=x.to(self.loc.dtype))

    def density(self) -> dist.LowRankMultivariateNormal:
        """Return p(x): ``cov_factor`` is scale W, ``cov_diag`` the variances of the noise."""
        mean, factor = self.loc + self.scale * self.shift, self.scale[:, None] * self.weight
        noise = (self.scale * self.log_sigma.exp()).square()
        return dist.LowRankMultivariateNormal(mean, factor, noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the exact log p(x) of rows x, (rows, features), as (rows,) in nats."""
        return self.density().log_prob(x.to(self.loc.dtype))  # type: ignore[no-any-return]
