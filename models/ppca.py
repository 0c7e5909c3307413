"""Probabilistic PCA: features linear in a Gaussian latent code, plus noise of one variance.

    z ~ Normal(0, I)                                          z: (latents,)
    x ~ Normal(loc + scale (W z + m), scale sigma)            x: (features,), data's units
    x ~ Normal(loc + scale m, scale^2 (W W^T + sigma^2 I))    the same x with z integrated out
    W = nu V                        V: the weights of textbooks whose prior is Normal(0, nu^2 I)

Rows: vectors of real numbers in one unit.

Source: Tipping & Bishop (1999), Probabilistic principal component analysis, section 3.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class PPCAModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features, latents: Size of a row, all in one unit, as they share one noise; and of z, less.
        loc, scale: Center and spread of the data, numbers or (features,), in the data's units.

    Example:
        >>> model, x = PPCAModel(features=4, latents=2), torch.randn(99, 4)
        >>> model.solve(x), model.log_prob(x).shape, model.density().cov_factor.shape
        (None, torch.Size([99]), torch.Size([4, 2]))
    """

    def __init__(
        self, features: int, latents: int = 8, loc: float | Tensor = 0, scale: float | Tensor = 1
    ) -> None:
        super().__init__()
        if not 0 < latents < features:
            raise ValueError(f"latents: expected 1 or more, below {features=}, got {latents}")
        self.features, self.latents = features, latents
        self.register_buffer("loc", torch.zeros(features).add_(loc))
        self.register_buffer("scale", torch.zeros(features).add_(scale).square().mean().sqrt())
        self.weight = nn.Parameter(torch.randn(features, latents) / features**0.5)
        self.shift, self.log_sigma = (nn.Parameter(torch.zeros(size)) for size in (features, ()))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc.new_zeros(self.latents), 1.0).to_event(1))
            loc = self.loc + self.scale * (z @ self.weight.T + self.shift)
            sigma = self.scale * self.log_sigma.exp()
            pyro.sample("x", dist.Normal(loc, sigma).to_event(1), obs=x.to(self.loc.dtype))

    @pyro_method
    def marginal(self, x: Tensor) -> None:
        """Score rows x with z integrated out: ``fit(ppca.marginal, None, x)`` needs no guide."""
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.density(), obs=x.to(self.loc.dtype))

    def density(self) -> dist.LowRankMultivariateNormal:
        """Return p(x): ``cov_factor`` is scale W, ``cov_diag`` the variance of the noise."""
        mean, weight = self.loc + self.scale * self.shift, self.scale * self.weight
        noise = (self.scale * self.log_sigma.exp()).square().expand(self.features)
        return dist.LowRankMultivariateNormal(mean, weight, noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the exact log p(x) of rows x, (rows, features), as (rows,) in nats."""
        return self.density().log_prob(x.to(self.loc.dtype))  # type: ignore[no-any-return]

    @torch.no_grad()
    def solve(self, x: Tensor) -> None:
        """Set the weights to the maximum likelihood of rows x, by eigenvectors (eq. 7 and 8)."""
        y = (x.double() - self.loc) / self.scale
        values, vectors = (v.flip(-1) for v in torch.linalg.eigh(y.T.cov(correction=0)))
        noise = values[self.latents :].mean()  # the largest come first
        if not noise > 1e-12 * values[0]:
            need = f"{self.latents + 2} rows or more, not on one {self.latents}-dimensional plane"
            raise ValueError(f"x: expected {need}, got {len(x)} rows; use fewer latents")
        self.weight.copy_((vectors * (values - noise).clamp_min(0).sqrt())[:, : self.latents])
        self.shift.copy_(y.mean(0))
        self.log_sigma.copy_(noise.log() / 2)
