"""Real-valued features from a Gaussian latent code, each with a mean and a variance of its own.

    z ~ Normal(0, I)                                             z: (latents,)
    m, v = decoder(z)                                            (features,) each, unit size
    x ~ Normal(loc + scale m, sqrt(scale^2 exp(v) + floor^2))    x: (features,), data's units

Source: Kingma & Welling (2014), appendix C.2, arXiv:1312.6114 (one tanh layer, two heads). The
floor keeps the likelihood of a feature that the code predicts exactly from growing without end.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP


class GaussianModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Width of a row.
        latents: Width of the code.
        decoder: (..., latents) -> (..., 2 features): mean and log-variance, without units.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, likewise.
        floor: Smallest standard deviation, in the data's units; 0.01 of ``scale`` by default.
    """

    loc: Tensor
    scale: Tensor
    floor: Tensor

    def __init__(
        self,
        features: int,
        latents: int = 8,
        decoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        floor: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.features, self.latents = features, latents
        self.decoder = decoder or MLP(latents, 2 * features)
        self.register_buffer("loc", torch.as_tensor(loc).expand(features).clone())
        self.register_buffer("scale", torch.as_tensor(scale).expand(features).clone())
        floor = 0.01 * self.scale if floor is None else torch.as_tensor(floor)
        self.register_buffer("floor", floor.expand(features).clone())

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, features)."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean, log_variance = self.decoder(z).chunk(2, -1)  # (..., rows, features) each
            mean = self.loc + self.scale * mean
            sd = (self.scale**2 * log_variance.exp() + self.floor**2).sqrt()
            pyro.sample("x", dist.Normal(mean, sd).to_event(1), obs=x)
