"""Binary features from a code whose prior is a learned flow.

    u ~ Normal(0, I)                                   u: (latents,); no site, drawn with z
    u <- (a, m + exp(s) b)[order], layer by layer      a, b: halves of u; m, s = network(a)
    z = u, after the last layer                        z: (latents,)
    x ~ Bernoulli(logits=decoder(z))                   x: (features,), each 0 or 1

Rows: vectors or images of 0 and 1.

The direction: fitting scores codes that the guide drew, so the map from z to u must be cheap. A
coupling layer is cheap both ways, so that drawing new rows is one pass of each network, too.

Source: Chen et al. (2017), section 3.2, arXiv:1611.02731 (a flow as prior); Dinh et al. (2017),
section 3, arXiv:1605.08803 (the layers).
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as tf
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import CouplingNetwork, check_sizes, make_decoder


class FlowPriorModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        layers: Number of layers; the first two change every latent, and so on.
        hidden: Sizes of the hidden layers of each layer's network.
        decoder: Network (..., latents) -> (..., features) that gives the logit of each feature;
            one hidden layer for vectors, convolutions for images, if ``None``.

    Example:
        >>> FlowPriorModel(features=16, latents=2).prior().sample((5,)).shape
        torch.Size([5, 2])
    """

    zeros: Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        layers: int = 4,
        hidden: Sequence[int] = (64,),
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents, layers=layers, hidden=hidden)
        self.features, self.latents, self.first = features, latents, latents // 2
        self.decoder = decoder or make_decoder(latents, features)
        sizes = (self.first, latents - self.first, 0, hidden)
        self.networks = nn.ModuleList(CouplingNetwork(*sizes) for _ in range(layers))
        self.register_buffer("zeros", torch.zeros(latents))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)

    def prior(self) -> dist.TransformedDistribution:
        """Return p(z) of one row. Its transforms are new ones: no tensor stays in their caches."""
        chain: list[tf.Transform] = []
        swap = torch.arange(self.latents, device=self.zeros.device).flip(0)
        for network in self.networks:
            chain += [tf.AffineCoupling(self.first, network), tf.Permute(swap)]
        return dist.TransformedDistribution(dist.Normal(self.zeros, 1.0).to_event(1), chain)
