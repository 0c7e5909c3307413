"""Real features with an exact density: invertible layers turn a normal vector into a row.

    u ~ Normal(0, I)                                   u: (features,), no units
    u <- (a, m + exp(s) b)[order], layer by layer      a, b: halves of u; m, s = network(a)
    x = loc + scale u, after the last layer            x: (features,), data's units
    log p(x) = log Normal(u; 0, I) - sum of s over all layers - sum of log(scale)

Rows: vectors of real numbers, by their exact density: nothing is latent.

A layer is inverted by (b - m) exp(-s), with the same m and s. So scoring and drawing take one pass
of each network; of autoregressive layers, one of the two would take a pass for every feature.

Source: Dinh, Sohl-Dickstein & Bengio (2017), Real NVP, section 3, arXiv:1605.08803.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as tf
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import CouplingNetwork, check_sizes, expanded


class FlowModel(PyroModule):
    """p(x). Plate "data"; observed site "x". The guide is ``None``.

    Args:
        features: Number of features in a row; the density of a single feature is normal.
        layers: Number of layers; the first two change every feature, and so on.
        hidden: Sizes of the hidden layers of each layer's network.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> model = FlowModel(features=3, loc=100.0, scale=30.0)
        >>> model.density().log_prob(torch.full((5, 3), 100.0)).shape
        torch.Size([5])
    """

    loc: Tensor
    scale: Tensor
    orders: Tensor

    def __init__(
        self,
        features: int,
        layers: int = 8,
        hidden: Sequence[int] = (64,),
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(features=features, layers=layers, hidden=hidden)
        self.features, self.first = features, features // 2
        sizes = (self.first, features - self.first, 0, hidden)
        self.networks = nn.ModuleList(CouplingNetwork(*sizes) for _ in range(layers))
        swap = torch.arange(features).flip(0)
        orders = [torch.randperm(features) if i % 2 else swap for i in range(layers)]
        self.register_buffer("orders", torch.stack(orders))
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, features), in the data's units."""
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.density(), obs=x.to(torch.get_default_dtype()))

    def density(self) -> dist.TransformedDistribution:
        """Return p(x). Its transforms are new ones, so that no tensor stays in their caches."""
        chain: list[tf.Transform] = []
        for network, order in zip(self.networks, self.orders, strict=True):
            chain += [tf.AffineCoupling(self.first, network), tf.Permute(order)]
        chain.append(tf.AffineTransform(self.loc, self.scale, event_dim=1))
        return dist.TransformedDistribution(dist.Normal(0 * self.loc, 1.0).to_event(1), chain)
