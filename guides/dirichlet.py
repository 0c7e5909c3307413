"""Dirichlet guide: shares that sum to 1, whose concentrations a network finds in counts.

    z ~ Dirichlet(encoder(x))        z: (latents,), shares; x: (features,), counts

Under a prior Dirichlet(alpha) the posterior of shares given draws from them is Dirichlet(alpha +
counts of the draws). How many words of a document each topic has is not observed: ``TopicCounts``,
the network by default, estimates it. The more words, the surer are the shares. A row of zeros has
the floor alone, which a fit moves to the prior's alpha.

Source: Blei, Ng & Jordan (2003), Journal of Machine Learning Research 3, section 5.2 (the family);
Figurnov et al. (2018), arXiv:1805.08498 (draws with gradients).
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import TopicCounts, check_sizes


class DirichletGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z", a point of the simplex.

    Args:
        features: Number of features in a row.
        latents: Number of shares, as in the model.
        encoder: Network (..., features) -> (..., latents) from counts to positive numbers, as one
            that ends in ``torch.nn.Softplus()``; ``TopicCounts`` if ``None``.

    Example:
        >>> guide = DirichletGuide(features=16, latents=2)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.ones(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(self, features: int, latents: int = 8, encoder: nn.Module | None = None) -> None:
        super().__init__()
        check_sizes(features=features, latents=latents)
        self.features, self.latents = features, latents
        self.encoder = encoder or TopicCounts(features, latents)

    def forward(self, x: Tensor) -> None:
        """Draw shares for rows x, (rows, features), of counts."""
        concentrations = self.encoder(x.to(torch.get_default_dtype()))  # (rows, latents)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(concentrations))
