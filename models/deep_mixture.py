"""Binary features from one of several clusters, each with codes of its own: a deep mixture.

    k ~ Categorical(softmax(logits))               k: 0 ... clusters - 1
    z ~ Normal(loc_k, scale_k)                     z: (latents,)
    x ~ Bernoulli(logits=decoder(z))               x: (features,), each 0 or 1

Logits, loc and scale, (clusters, latents), are learned. ``encode`` has the probability of each
cluster for every row.

Rows: vectors or images of 0 and 1 that fall into groups.

Source: Dilokthanakul et al. (2016), section 3.1, arXiv:1611.02648, with one Gaussian code; Jiang et
al. (2017), arXiv:1611.05148.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, make_decoder


class DeepMixtureModel(PyroModule):
    """p(x, k, z). Plate "data"; latent sites "k", summed out, and "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        clusters: Number of clusters.
        decoder: Network (..., latents) -> (..., features) that gives the logit of each feature;
            one hidden layer for vectors, convolutions for images, if ``None``.

    Example:
        >>> model = DeepMixtureModel(features=16, latents=2, clusters=3)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        clusters: int = 10,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents, clusters=clusters)
        self.features, self.latents, self.clusters = features, latents, clusters
        self.logits = nn.Parameter(torch.zeros(clusters))
        self.centers = nn.Parameter(torch.randn(clusters, latents))
        self.log_scales = nn.Parameter(torch.zeros(clusters, latents))
        self.decoder = decoder or make_decoder(latents, features)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            clusters = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", clusters, infer={"enumerate": "parallel"})
            code = dist.Normal(self.centers[k], self.log_scales[k].exp()).to_event(1)
            z = pyro.sample("z", code)
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
