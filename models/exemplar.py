"""Real features from a code whose prior stands around the codes of some rows of the data.

    c_k = mean of q(z given e_k)               e_k: (features,), an exemplar: a row of the data
    p(z) = 1/K sum_k Normal(z; c_k, s)         s: (latents,), learned, one for all exemplars
    m, v = decoder(z)                          m: (features,), v: (), no units
    x ~ Normal(loc + scale m, scale t)         x: (features,), data's units; t = softplus(v) + floor

Far from all exemplars the prior has no probability: holes between clusters stay empty. The features
of a row share its noise t, or features with one value in most rows became precise alone and decided
log p(x). floor is half a feature's part in the mean distance between nearest exemplars.

Rows: vectors of real numbers, to be scored as anomalies. Its guide is a partner of the model.

Source: Norouzi, Fleet & Norouzi (2020), Exemplar VAE, section 3, arXiv:2004.04795.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.distributions import MixtureSameFamily, code_mean
from ppl_vae.nn import MLP, check_reads_rows, check_sizes, expanded, spacing


class ExemplarModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        guide: The guide that the model is fitted with, a module whose latent site is "z".
        exemplars: Rows of the data, (K, features), in the data's units, two at least.
        latents: Size of the latent code z, as in the guide.
        decoder: Network (..., latents) -> (..., features + 1) that gives m and v; two hidden
            layers if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> model = ExemplarModel(3, NormalGuide(3, 2), torch.randn(20, 3), latents=2)
        >>> model.prior().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int, guide: nn.Module, exemplars: Tensor, latents: int = 8,
        decoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_reads_rows(guide)
        check_sizes(features=features, latents=latents)
        self.features, self.latents, self.guide = features, latents, guide
        self.decoder = decoder or MLP(latents, features + 1, (128, 128), nn.SiLU)
        self.log_spread = nn.Parameter(torch.full((latents,), -1.0))
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        self.register_buffer("floor", spacing(exemplars, self.scale, features) / 2)
        self.register_buffer("exemplars", exemplars.to(self.loc))

    def prior(self) -> MixtureSameFamily:
        """Return p(z) of one row. Call it outside the row plate, which the guide opens, too."""
        with poutine.block(expose_types=["param"]):
            trace = poutine.trace(self.guide).get_trace(self.exemplars)
        centers = code_mean(trace, self.latents)  # (exemplars, latents)
        each = dist.Normal(centers, self.log_spread.exp()).to_event(1)
        equal = dist.Categorical(logits=centers.new_zeros(len(centers)))
        return MixtureSameFamily(equal, each)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x, prior = x.to(torch.get_default_dtype()), self.prior()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            mean, v = self.decoder(z).split([self.features, 1], -1)  # (..., rows, features)
            sd = self.scale * (softplus(v) + self.floor)
            pyro.sample("x", dist.Normal(self.loc + self.scale * mean, sd).to_event(1), obs=x)
