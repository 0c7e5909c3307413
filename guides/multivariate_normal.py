"""Normal guide with a full covariance: a network gives the mean and the covariance of every row.

    m, d, c = encoder((x - loc) / scale)      m, d: (latents,); c: (latents (latents - 1) / 2,)
    L = positive(d) on the diagonal, c below  L: (latents, latents); positive: exp or softplus
    z ~ MultivariateNormal(m, L L^T)          z: (latents,)

In the posterior, codes that explain the same features depend on each other. The KL divergence from
Normal(0, I) has a closed form: 1/2 (tr S + m^T m - log det S - latents), S = L L^T.

Source: Kingma & Welling (2019), section 2.5.1, arXiv:1906.02691.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import positive_transform
from ppl_vae.nn import Standardize, check_sizes, make_encoder


class MultivariateNormalGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model.
        encoder: Network (..., features) -> (..., latents (latents + 3) / 2) that gives m, d and c;
            it reads rows of about unit size. One hidden layer for vectors, convolutions for images,
            if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.
        positive: ``"exp"`` or ``"softplus"``, which makes the diagonal of L positive.

    Example:
        >>> guide = MultivariateNormalGuide(features=16, latents=2)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z"]["fn"].covariance_matrix.shape
        torch.Size([5, 2, 2])
    """

    below: Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        positive: str = "exp",
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, latents * (latents + 3) // 2)
        self.to_positive = positive_transform(positive)
        places = torch.tril_indices(latents, latents, -1)  # row and column of each number in c
        self.register_buffer("below", places, persistent=False)

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        sizes = self.latents, self.latents, self.below.shape[1]
        mean, diagonal, below = self.encoder(self.standardize(x)).split(sizes, -1)
        scale_tril = self.to_positive(diagonal).diag_embed()  # (rows, latents, latents)
        scale_tril[..., self.below[0], self.below[1]] = below
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=scale_tril))
