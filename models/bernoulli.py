"""Binary features from a Gaussian latent code.

    z ~ Normal(0, I)                     z: (latents,)
    x ~ Bernoulli(logits=decoder(z))     x: (features,), each 0 or 1

Source: Kingma & Welling (2014), appendix C.1, arXiv:1312.6114.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP


class BernoulliModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Width of a row.
        latents: Width of the code.
        decoder: (..., latents) -> (..., features), the logits; a small MLP by default.
    """

    def __init__(self, features: int, latents: int = 8, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.features, self.latents = features, latents
        self.decoder = decoder or MLP(latents, features)

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, features)."""
        x = x.to(torch.get_default_dtype())  # integers and booleans too
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)
