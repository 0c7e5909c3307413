"""Flow guide: the amortized normal, bent by layers that read the row as well.

    h = tanh(encoder((x - loc) / scale))  h: (hidden,); x: (features,), data's units
    m, v = normal(h)                      (latents,) each, linear in h
    u ~ Normal(0, I)                      u: (latents,); no site, drawn with z
    u <- layer(u; h), layer by layer
    z = m + exp(v / 2) u                  z: (latents,)
    log q(z given x) = log Normal(u; 0, I) - log-determinants of the layers - sum of v / 2

    flow="planar"            u + a tanh(w.u + b)    a, w, b: linear in h
    flow="autoregressive"    m_i + exp(s_i) u_i     m_i, s_i = network(u_1 ... u_(i-1), h)
    flow="spline"            m_i + exp(s_i) g_i(u_i)    the knots of the spline g_i likewise

The direction: a fit scores no codes but those that the guide has drawn just before. So the map from
u to z must be cheap; u is known, and nothing is inverted. In these layers a draw is one pass. The
inverse, that the density of a given z needs, is a pass for every latent, or a search. Rows that are
given are the opposite case: models/flow.py.

Source: Rezende & Mohamed (2015), section 4, arXiv:1505.05770; Kingma et al. (2016), section 3,
arXiv:1606.04934; Durkan et al. (2019), section 3, arXiv:1906.04032.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Standardize, check_sizes, make_encoder, make_flow


class FlowGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model.
        flow: Kind of the layers: "planar", "autoregressive" or "spline".
        layers: Number of layers. A planar one bends across one plane; take more of those.
        hidden: Size of h.
        encoder: Network (..., features) -> (..., hidden) that reads rows of about unit size; one
            hidden layer for vectors, convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> guide = FlowGuide(features=16, latents=2, flow="spline")
        >>> pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16)).nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int | Sequence[int], latents: int = 8, flow: str = "autoregressive",
        layers: int = 4, hidden: int = 64, encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, layers=layers, hidden=(hidden,))
        self.features, self.latents = features, latents
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, hidden)
        self.normal = nn.Linear(hidden, 2 * latents)
        self.flow = make_flow(flow, latents, hidden, layers, hidden)

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        h = self.encoder(self.standardize(x)).tanh()  # (rows, hidden)
        mean, log_variance = self.normal(h).chunk(2, -1)  # (rows, latents) each
        start = dist.Normal(torch.zeros_like(mean), 1.0).to_event(1)
        end = AffineTransform(mean, (log_variance / 2).exp(), event_dim=1, cache_size=1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(start, [*self.flow(h), end]))
