"""Binary features of rows that fall into clusters, each with codes of its own: a deep mixture.

    k ~ Categorical(softmax(logits))              k: 0 ... clusters - 1
    z ~ MultivariateNormal(center_k, S_k)         z: (latents,); S_k = L_k L_k^T, its covariance
    x ~ Bernoulli(logits=decoder(z))              x: (features,), each 0 or 1

Logits, centers and L_k are learned. The cluster is summed out: ``guides/normal.py`` is the guide.
Which clusters a fit finds depends on its start: fit ``models/bernoulli.py`` first, with the same
decoder and guide, and ``place`` the clusters of a Gaussian mixture of its codes.

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

from ppl_vae.nn import check_sizes, cholesky_factors, make_decoder, shaped


class DeepMixtureModel(PyroModule):
    """p(x, k, z). Plate "data"; latent sites "k", summed out, and "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        clusters: Number of clusters.
        decoder: Network (..., latents) -> (..., features) that gives the logit of each feature;
            one hidden layer for vectors, convolutions for images, if ``None``.

    Example:
        >>> model = DeepMixtureModel(features=16, latents=1, clusters=2)
        >>> model.place(weights=[0.5, 0.5], centers=[[-1.0], [1.0]], covariances=[[[0.1]], [[0.2]]])
        >>> model.code(1).mean.tolist()
        [1.0]
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
        """Set p(k), (clusters,), and means and full covariances of the clusters' codes."""
        weights = shaped("weights", weights, self.logits, positive=True)
        centers = shaped("centers", centers, self.centers)
        factors = cholesky_factors("covariances", covariances, self.factors)
        self.factors.copy_(factors.tril(-1) + factors.diagonal(0, -2, -1).log().diag_embed())
        self.logits.copy_(weights.log())
        self.centers.copy_(centers)

    def code(self, k: Any) -> dist.MultivariateNormal:
        """Return p(z given k), for whole numbers of any shape."""
        factors = self.factors.tril(-1) + self.factors.diagonal(0, -2, -1).exp().diag_embed()
        return dist.MultivariateNormal(self.centers[k], scale_tril=factors[k])

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            clusters = dist.Categorical(logits=self.logits)
            k = pyro.sample("k", clusters, infer={"enumerate": "parallel"})
            logits = self.decoder(pyro.sample("z", self.code(k)))  # (..., rows, features)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
