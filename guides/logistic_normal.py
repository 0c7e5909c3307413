"""Logistic-normal guide: shares that sum to 1, as the softmax of a diagonal normal variable.

    m, v = encoder(log(1 + x))                  (latents,) each; x: (features,), counts
    z = softmax(u), u ~ Normal(m, exp(v / 2))   z: (latents,), shares

The density of z is that on the simplex, in closed form (``SoftmaxNormal``), so that the prior may
be a Dirichlet, or any other on the simplex. The logarithm of counts is of about unit size.

Source: Srivastava & Sutton (2017), section 3.2, arXiv:1703.01488 (which replaces the Dirichlet
prior by a normal one of u, as no density of z is needed then).
"""

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import SoftmaxNormal
from ppl_vae.nn import check_sizes, make_encoder


class LogisticNormalGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z", a point of the simplex.

    Args:
        features: Number of features in a row.
        latents: Number of shares, as in the model.
        encoder: Network (..., features) -> (..., 2 latents) that gives m and v; it reads log(1 +
            x); one hidden layer if ``None``.

    Example:
        >>> guide = LogisticNormalGuide(features=16, latents=2)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.ones(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(self, features: int, latents: int = 8, encoder: nn.Module | None = None) -> None:
        super().__init__()
        check_sizes(features=features, latents=latents)
        self.features, self.latents = features, latents
        self.encoder = encoder or make_encoder(features, 2 * latents)

    def forward(self, x: Tensor) -> None:
        """Draw shares for rows x, (rows, features), of counts."""
        m, v = self.encoder(x.to(torch.get_default_dtype()).log1p()).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", SoftmaxNormal(m, (v / 2).exp()))
