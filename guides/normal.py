"""Diagonal normal guide: one network gives every row's posterior.

    m, v = encoder((x - loc) / scale)    (latents,) each
    z ~ Normal(m, exp(v / 2))            z: (latents,)

Source: Kingma & Welling (2014), appendix C.2, arXiv:1312.6114.
"""

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP, Standardize


class NormalGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Width of a row.
        latents: Width of the code.
        encoder: (..., features) -> (..., 2 latents): mean and log-variance; a small MLP by default.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, likewise.
    """

    def __init__(
        self,
        features: int,
        latents: int = 8,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.features, self.latents, self.loc, self.scale = features, latents, loc, scale
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or MLP(features, 2 * latents)

    def forward(self, x: Tensor) -> None:
        """Propose codes for rows x, (rows, features)."""
        mean, log_variance = self.encoder(self.standardize(x)).chunk(2, -1)  # (rows, latents) each
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
