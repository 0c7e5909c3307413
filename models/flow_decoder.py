"""Real features from a Gaussian latent code by a conditional flow: correlated, skewed, curved.

    z ~ Normal(0, I)                                z: (latents,)
    u ~ Normal(0, I)                                u: (features,), no units; no site, drawn with x
    u <- (a, m + exp(s) b)[order], layer by layer   a, b: halves of u; m, s = network(a, z)
    x = loc + scale u, after the last layer         x: (features,), data's units

Rows: vectors of real numbers whose features depend on each other in ways that no code explains.

The direction: fitting scores rows that are given, never draws them, so the map from x to u must be
cheap. In a coupling layer it is: m and s come from a half that x shows, one pass for all features.
Layers that are autoregressive in u (inverse autoregressive flow) would invert x one by one.

Source: Dinh et al. (2017), arXiv:1605.08803 (layers); Winkler et al. (2019), arXiv:1912.00042.
"""

from collections.abc import Sequence
from functools import partial

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as tf
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import CouplingNetwork, check_sizes, expanded


class FlowDecoderModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z.
        layers: Number of layers; the more, the less is left for the code to explain.
        hidden: Sizes of the hidden layers of each layer's network.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> FlowDecoderModel(features=3, latents=2).density(torch.zeros(5, 2)).sample().shape
        torch.Size([5, 3])
    """

    loc: Tensor
    scale: Tensor
    orders: Tensor

    def __init__(
        self, features: int, latents: int = 8, layers: int = 4, hidden: Sequence[int] = (64,),
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents, layers=layers, hidden=hidden)
        self.features, self.latents, self.first = features, latents, features // 2
        sizes = (self.first, features - self.first, latents, hidden)
        self.networks = nn.ModuleList(CouplingNetwork(*sizes) for _ in range(layers))
        swap = torch.arange(features).flip(0)
        orders = [torch.randperm(features) if i % 2 else swap for i in range(layers)]
        self.register_buffer("orders", torch.stack(orders))
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            pyro.sample("x", self.density(z), obs=x)

    def density(self, z: Tensor) -> dist.TransformedDistribution:
        """Return p(x given z) for codes z, (..., latents), with transforms of its own."""
        chain: list[tf.Transform] = []
        for network, order in zip(self.networks, self.orders, strict=True):
            heads = partial(network, context=z)
            chain += [tf.AffineCoupling(self.first, heads), tf.Permute(order)]
        loc = self.loc.expand(*z.shape[:-1], -1)  # brings the particles of z to x, too
        chain.append(tf.AffineTransform(loc, self.scale, event_dim=1))
        return dist.TransformedDistribution(dist.Normal(0 * loc, 1.0).to_event(1), chain)
