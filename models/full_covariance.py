"""Real features from a Gaussian latent code, with a covariance of all features from the decoder.

    z ~ Normal(0, I)                                            z: (latents,)
    m, v, F = decoder(z)                                        m, v: (features,)
    S = F F^T + diag(exp(v) + floor^2)                          F: (features, rank)
    x ~ MultivariateNormal(loc + scale m, scale S scale)        x: (features,), data's units

scale is the diagonal matrix of the spreads of the data, so that m, S and floor have no units.
Features that vary together given z, such as neighbours in an image, need no dimension of z for it.
Without a floor, the density of a feature that the decoder predicts exactly grows without bound.

Rows: vectors of real numbers, correlated given the code.

Source: Dorta et al. (2018), Structured uncertainty prediction networks, section 3,
arXiv:1802.07079 (there with a sparse precision matrix in place of the low rank).
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP, check_sizes, expanded


class FullCovarianceModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z.
        rank: Columns of F, the directions in which features vary together given z.
        decoder: Network (..., latents) -> (..., (2 + rank) features) that gives m, v and the
            columns of F, one after the other; one hidden layer if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.
        floor: Lower bound of the noise's standard deviation, as a fraction of ``scale``.

    Example:
        >>> model = FullCovarianceModel(features=3, latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 3))
        >>> trace.nodes["x"]["fn"].covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int,
        latents: int = 8,
        rank: int = 2,
        decoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        floor: float = 0.01,
    ) -> None:
        super().__init__()
        check_sizes(features=features, latents=latents, rank=rank)
        self.features, self.latents, self.rank = features, latents, rank
        self.floor = float(expanded("floor", floor, (), least=0))
        self.decoder = decoder or MLP(latents, (2 + rank) * features)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean, v, *columns = self.decoder(z).chunk(2 + self.rank, -1)  # (..., rows, features)
            factor = self.scale[:, None] * torch.stack(columns, -1)  # (..., rows, features, rank)
            noise = self.scale**2 * (v.exp() + self.floor**2)
            mean = self.loc + self.scale * mean
            pyro.sample("x", dist.LowRankMultivariateNormal(mean, factor, noise), obs=x)
