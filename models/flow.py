"""Real features with an exact density: invertible layers turn a normal vector into a row.

    u ~ Normal(0, I)                                   u: (features,), no units
    u <- (a, m + exp(s) b)[order], layer by layer      a, b: halves of u; m, s = network(a)
    x = loc + scale u, after the last layer            x: (features,), data's units
    log p(x) = log Normal(u) - sum of s over all layers - sum of log(scale)

Rows: vectors of real numbers, by their exact density; nothing is latent.

Scoring and drawing both take one pass of each network; autoregressive layers draw in many.

Source: Dinh, Sohl-Dickstein & Bengio (2017), Real NVP, section 3, arXiv:1605.08803.
"""

from collections.abc import Sequence
from functools import partial

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as tf
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP


class FlowModel(PyroModule):
    """p(x). Plate "data"; observed site "x". The guide is ``None``.

    Args:
        features: Number of features in a row; a single feature has a normal density.
        layers: Number of layers; the first and the second change every feature, and so on.
        hidden: Sizes of the hidden layers of each layer's network.
        bound: Largest absolute s, so that the density of a constant feature is bounded, too.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> FlowModel(features=3, scale=30.0).density().log_prob(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    loc: Tensor
    scale: Tensor
    orders: Tensor

    def __init__(
        self, features: int, layers: int = 8, hidden: Sequence[int] = (64,), bound: float = 2.0,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.bound, self.inputs = features, bound, max(1, features // 2)
        sizes = (self.inputs, 2 * (features - features // 2), hidden)
        self.networks = nn.ModuleList(MLP(*sizes) for _ in range(layers))
        swap = torch.arange(features).flip(0)
        orders = [torch.randperm(features) if i % 2 else swap for i in range(layers)]
        self.register_buffer("orders", torch.stack(orders))
        self.register_buffer("loc", torch.as_tensor(loc).expand(features).clone())
        self.register_buffer("scale", torch.as_tensor(scale).expand(features).clone())

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, features), in the data's units."""
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.density(), obs=x.to(torch.get_default_dtype()))

    def density(self) -> dist.TransformedDistribution:
        """Return p(x). Its transforms are new ones, so that no tensor stays in their caches."""
        layers: list[tf.Transform] = []
        for network, order in zip(self.networks, self.orders, strict=True):
            heads = partial(self.shift_and_log_scale, network)
            layers += [tf.AffineCoupling(self.features // 2, heads), tf.Permute(order)]
        layers.append(tf.AffineTransform(self.loc, self.scale, event_dim=1))
        return dist.TransformedDistribution(dist.Normal(0 * self.loc, 1.0).to_event(1), layers)

    def shift_and_log_scale(self, network: nn.Module, half: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and s, (..., size of b); of a single feature, the network reads a 1."""
        half = nn.functional.pad(half, (0, self.inputs - half.shape[-1]), value=1.0)
        shift, log_scale = network(half).chunk(2, -1)
        return shift, self.bound * (log_scale / self.bound).tanh()
