"""Counts with more zeros than a negative binomial has, from a Gaussian latent code.

    z ~ Normal(0, I)                                    z: (latents,)
    a, b = decoder(z)                                   (features,) each
    mean = size rate exp(a)                             (features,), counts
    y ~ NegativeBinomial(theta, mean / (mean + theta))  Var[y] = mean + mean^2 / theta given z
    x = 0 with probability sigmoid(b - 3), else y       x: (features,), each 0, 1, 2, ...

theta, the dispersion, is learned for each feature, up to 8,100 (see ``NegativeBinomialModel``).
``size`` is what the counts of a row are proportional to, such as the molecules counted in a cell;
1 in data without the field.

Rows: counts that are 0 for two reasons, such as genes of cells that are silent or were missed.

Source: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics, methods,
Nature Methods 15.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded, make_decoder


class ZeroInflatedModel(PyroModule):
    """p(x, z given size). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., 2 features) that gives a and b, for images on the
            channels; one hidden layer for vectors, convolutions for images, if ``None``.
        rate: Counts for each unit of size, a positive number or (features,).

    Example:
        >>> model = ZeroInflatedModel(features=3, latents=2, rate=10.0)
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
        self.decoder = decoder or make_decoder(latents, features, heads=2)
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
            log_ratio, gate = self.decoder(z).chunk(2, 1 - x.dim())  # (..., rows, features)
            log_theta = self.log_theta.clamp(max=9.0)
            logits = rate.log() + log_ratio - log_theta
            likelihood = dist.ZeroInflatedNegativeBinomial(
                log_theta.exp(), logits=logits, gate_logits=gate - 3
            )
            pyro.sample("x", likelihood.to_event(x.dim() - 1), obs=x)
