"""Binary features from a latent code with clusters: the prior is a mixture of normals.

    p(z) = sum_k w_k Normal(z; c_k, s_k)     w: (components,), sum 1; c_k, s_k: (latents,)
    x ~ Bernoulli(logits=decoder(z))         x: (features,), each 0 or 1

Weights w, centers c and spreads s (standard deviations) are learned. No cluster is drawn: the sum
over the components is the prior's density. Given a code, ``cluster`` has their probabilities.

Rows: vectors or images of 0 and 1 that fall into groups.

Source: Jiang et al. (2017), Variational deep embedding, section 3.1, arXiv:1611.05148.
"""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import MixtureSameFamily
from ppl_vae.nn import check_sizes, make_decoder


class MixturePriorModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        components: Number of components of the prior.
        decoder: Network (..., latents) -> (..., features) that gives the logit of each feature;
            one hidden layer for vectors, convolutions for images, if ``None``.

    Example:
        >>> model = MixturePriorModel(features=16, latents=2, components=3)
        >>> model.cluster(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
        >>> model.prior().event_shape
        torch.Size([2])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        components: int = 10,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents, components=components)
        self.features, self.latents, self.components = features, latents, components
        self.decoder = decoder or make_decoder(latents, features)
        self.centers = nn.Parameter(torch.randn(components, latents))
        start = torch.full((components, latents), -1.0)  # narrow: clusters that overlap would merge
        self.log_spreads = nn.Parameter(start)
        self.logits = nn.Parameter(torch.zeros(components))

    def prior(self) -> MixtureSameFamily:
        """Return p(z) of one row."""
        each = dist.Normal(self.centers, self.log_spreads.exp()).to_event(1)
        return MixtureSameFamily(dist.Categorical(logits=self.logits), each)

    @torch.no_grad()
    def cluster(self, z: Any) -> Tensor:
        """Return each component's probability, (..., components), given codes: tensor or frame."""
        codes = z if isinstance(z, Tensor) else torch.tensor(getattr(z, "values", z))
        codes = codes.to(self.centers).unsqueeze(-2)
        each: Tensor = self.prior().component_distribution.log_prob(codes)
        return (each + self.logits.log_softmax(-1)).softmax(-1)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
