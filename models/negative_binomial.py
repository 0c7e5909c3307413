"""Counts that vary more than a Poisson's, from a Gaussian latent code.

    z ~ Normal(0, I)                                    z: (latents,)
    mean = size rate exp(decoder(z))                    (features,), counts
    x ~ NegativeBinomial(theta, mean / (mean + theta))  x: (features,), each 0, 1, 2, ...
    E[x] = mean,  Var[x] = mean + mean^2 / theta        given z

theta, the dispersion, is learned for each feature: the larger, the nearer x is to a Poisson's.
It is 8,100 at most: single precision loses a hundredth of a nat a cell there, and more above.
The size of a row is what its counts are proportional to: hours, area, molecules counted in a cell.
It is given, not modelled, and is 1 in data without the field ``size``.

Rows: counts whose variance is larger than their mean, given the code.

Source: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics, methods,
Nature Methods 15 (without the zero inflation).
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded, make_decoder


class NegativeBinomialModel(PyroModule):
    """p(x, z given size). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., features) that gives the logarithm of how far
            each mean is above its rate; one hidden layer for vectors, convolutions for images,
            if ``None``.
        rate: Counts for each unit of size, a positive number or (features,).

    Example:
        >>> model = NegativeBinomialModel(features=3, latents=2, rate=10.0)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.ones(5, 3), size=torch.ones(5))
        >>> trace.nodes["x"]["fn"].mean.shape
        torch.Size([5, 3])
    """

    rate: Tensor

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        decoder: nn.Module | None = None,
        rate: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.decoder = decoder or make_decoder(latents, features)
        self.register_buffer("rate", expanded("rate", rate, features, positive=True))
        self.log_theta = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor, size: Tensor | None = None) -> None:
        """Draw codes and score rows x, (rows, features), of whole numbers; size is (rows,)."""
        x = x.to(torch.get_default_dtype())
        rate = self.rate  # (features,)
        if size is not None:
            rate = rate * size.reshape(len(x), *(1 for _ in x.shape[1:]))  # (rows, features)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            log_mean = rate.log() + self.decoder(z)  # (..., rows, features)
            log_theta = self.log_theta.clamp(max=9.0)
            likelihood = dist.NegativeBinomial(log_theta.exp(), logits=log_mean - log_theta)
            pyro.sample("x", likelihood.to_event(x.dim() - 1), obs=x)
