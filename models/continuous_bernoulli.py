"""Pixels between 0 and 1 from a Gaussian latent code.

    z ~ Normal(0, I)                                   z: (latents,)
    l = decoder(z)                                     l: (features,), logits
    x ~ ContinuousBernoulli(logits=l)                  x: (features,), each in [0, 1]

    log p(x given z) = l x - log((exp(l) - 1) / l)     a density: it integrates to 1 over [0, 1]

Rows: vectors or images of gray values between 0 and 1 (8-bit pixels divided by 255).

``BernoulliModel`` scores 0 and 1 only: on gray values its formula lacks the second term.

Source: Loaiza-Ganem & Cunningham (2019), sections 2 and 3, arXiv:1907.06845.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import ContinuousBernoulli
from ppl_vae.nn import check_sizes, make_decoder


class ContinuousBernoulliModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., features) that gives the logit of each feature;
            one hidden layer for vectors, convolutions for images, if ``None``.

    Example:
        >>> model = ContinuousBernoulliModel(features=16, latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.rand(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.decoder = decoder or make_decoder(latents, features)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), between 0 and 1."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", ContinuousBernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
