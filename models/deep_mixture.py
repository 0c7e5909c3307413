"""Binary features of rows that fall into clusters, each with codes of its own: a deep mixture.

    k ~ Categorical(softmax(logits))              k: 0 ... clusters - 1
    z ~ MultivariateNormal(center_k, S_k)         z: (latents,); S_k = L_k L_k^T, its covariance
    x ~ Bernoulli(logits=decoder(z))              x: (features,), each 0 or 1

Logits, centers and L_k are learned. The cluster is summed out; its probabilities given a code need
no network, so that the guide has the code alone (``guides/normal.py``). ``encode`` has the
probability of each cluster for every row.

Where a fit begins decides which clusters it finds. To begin well, fit ``models/bernoulli.py`` with
the same decoder and guide, ``place`` the clusters where a Gaussian mixture finds them among the
codes, and fit again.

Rows: vectors or images of 0 and 1 that fall into groups.

Source: Jiang et al. (2017), Variational deep embedding, arXiv:1611.05148 (also the start);
Dilokthanakul et al. (2016), section 3, arXiv:1611.02648 (clusters that are not normal).
"""

from collections.abc import Sequence
from typing import Any

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
        >>> model = DeepMixtureModel(features=16, latents=2, clusters=2)
        >>> model.place([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [[[0.1, 0.0], [0.0, 0.1]]] * 2)
        >>> pyro.poutine.trace(model).get_trace(torch.zeros(5, 16)).nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int | Sequence[int], latents: int = 8, clusters: int = 10,
        decoder: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, clusters=clusters)
        self.features, self.latents, self.clusters = features, latents, clusters
        self.logits = nn.Parameter(torch.zeros(clusters))
        self.centers = nn.Parameter(torch.randn(clusters, latents))
        self.factors = nn.Parameter(-torch.eye(latents).repeat(clusters, 1, 1))  # log of diagonals
        self.decoder = decoder or make_decoder(latents, features)

    @torch.no_grad()
    def place(self, weights: Any, centers: Any, covariances: Any) -> None:
        """Set the clusters: (clusters,), (clusters, latents), (clusters, latents, latents)."""
        factors = torch.linalg.cholesky(torch.as_tensor(covariances))
        diagonals = factors.diagonal(dim1=-2, dim2=-1).log().diag_embed()
        self.logits.copy_(torch.as_tensor(weights).log())
        self.centers.copy_(torch.as_tensor(centers))
        self.factors.copy_(factors.tril(-1) + diagonals)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        factors = self.factors.tril(-1) + self.factors.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        with pyro.plate("data", len(x)):
            clusters = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", clusters, infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.MultivariateNormal(self.centers[k], scale_tril=factors[k]))
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
