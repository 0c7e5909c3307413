"""Real features from one of several groups, each with a mean and a variance: a Gaussian mixture.

    k ~ Categorical(softmax(logits))                                   k: 0 ... components - 1
    x ~ Normal(loc + scale c_k, sqrt(scale^2 exp(2 s_k) + floor^2))    x: (features,), data's units

Centers c and spreads s, (components, features) without units, and logits, (components,), are
learned. The component k is summed out, so that ``fit(model, None, x)`` needs no guide and
``encode(model, None, x)`` has the probability of each component for every row.

Rows: vectors of real numbers that fall into groups.

Source: Bishop (2006), Pattern recognition and machine learning, section 9.2.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded


class MixtureModel(PyroModule):
    """p(x, k). Plate "data"; latent site "k", summed out; observed site "x".

    The centers start near the middle of the data, so that every component begins with a share of
    all rows, and none is left with no row to learn from.

    Args:
        features: Number of features in a row.
        components: Number of components.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.
        floor: Lower bound of the standard deviations, a number or (features,), in the data's units;
            ``0.01 * scale`` if ``None``. Without one, a component on a single row has an infinite
            density.

    Example:
        >>> from ppl_vae import encode
        >>> model = MixtureModel(features=4, components=3)
        >>> encode(model, None, torch.randn(5, 4))["k"]["probability"].shape
        (5, 3)
    """

    loc: Tensor
    scale: Tensor
    floor: Tensor

    def __init__(
        self,
        features: int,
        components: int = 10,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
        floor: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        check_sizes(features=features, components=components)
        self.features, self.components = features, components
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        floor = 0.01 * self.scale if floor is None else floor
        self.register_buffer("floor", expanded("floor", floor, features, least=0))
        self.centers = nn.Parameter(torch.randn(components, features) / features**0.5)
        self.log_spreads = nn.Parameter(torch.zeros(components, features))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, features), in the data's units."""
        mean = self.loc + self.scale * self.centers  # (components, features)
        sd = (self.scale**2 * (2 * self.log_spreads).exp() + self.floor**2).sqrt()
        with pyro.plate("data", len(x)):
            components = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", components, infer={"enumerate": "parallel"})
            each = dist.Normal(mean[k], sd[k]).to_event(1)  # (components, 1, features)
            pyro.sample("x", each, obs=x.to(mean.dtype))
