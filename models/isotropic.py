"""Real features from a Gaussian latent code, with one variance for all features of all rows.

    z ~ Normal(0, I)                             z: (latents,)
    m = decoder(z)                               m: (features,), no units
    x ~ Normal(loc + scale m, sigma)             x: (features,), data's units

The covariance given z is sigma^2 I. With sigma = 1, the identity, log p(x given z) is a constant
minus half the squared distance of x from its mean. sigma has the data's units: where it is many
times the spread of the data, x says nothing of z, and the fit is as good without a code. Then give
the noise's own size, or learn it (``learn_sigma=True``).

Rows: vectors or images of real numbers in one unit, with noise of one size.

Source: Kingma & Welling (2019), An introduction to variational autoencoders, arXiv:1906.02691.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded, make_decoder


class IsotropicModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., features) that gives m, the mean without units;
            one hidden layer for vectors, convolutions for images, if ``None``.
        sigma: Standard deviation of every feature given z, in the data's units, below their spread.
        learn_sigma: Whether sigma is trained; ``sigma`` is then where training begins.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> model = IsotropicModel(features=3, latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 3))
        >>> trace.nodes["x"]["fn"].variance[0].tolist()
        [1.0, 1.0, 1.0]
    """

    loc: Tensor
    scale: Tensor
    log_sigma: Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        decoder: nn.Module | None = None,
        sigma: float = 1.0,
        learn_sigma: bool = False,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.decoder = decoder or make_decoder(latents, features)
        log_sigma = expanded("sigma", sigma, (), positive=True).log()
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=learn_sigma)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean = self.loc + self.scale * self.decoder(z)  # (..., rows, features)
            pyro.sample("x", dist.Normal(mean, self.log_sigma.exp()).to_event(x.dim() - 1), obs=x)
