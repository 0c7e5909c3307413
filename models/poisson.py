"""Counts from a Gaussian latent code, each with a rate from the decoder.

    z ~ Normal(0, I)                               z: (latents,)
    mean = size rate exp(decoder(z))               (features,), counts
    x ~ Poisson(mean)                              x: (features,), each 0, 1, 2, ...

The size of a row is what its counts are proportional to: hours, area, molecules counted in a cell.
It is given, not modelled, and is 1 in data without the field ``size``.

Rows: counts whose variance is their mean, given the code.

Source: Salakhutdinov & Hinton (2009), Semantic hashing, section 2.1 (rates given the length of
a document).
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded, make_decoder


class PoissonModel(PyroModule):
    """p(x, z given size). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        decoder: Network (..., latents) -> (..., features) that gives the logarithm of how far
            each mean is above its rate; one hidden layer for vectors, convolutions for images,
            if ``None``.
        rate: Counts for each unit of size, a positive number or (features,).

    Example:
        >>> model = PoissonModel(features=3, latents=2, rate=10.0)
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

    def forward(self, x: Tensor, size: Tensor | None = None) -> None:
        """Draw codes and score rows x, (rows, features), of whole numbers; size is (rows,)."""
        x = x.to(torch.get_default_dtype())
        rate = self.rate  # (features,)
        if size is not None:
            rate = rate * size.reshape(len(x), *(1 for _ in x.shape[1:]))  # (rows, features)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean = rate * self.decoder(z).exp()  # (..., rows, features)
            pyro.sample("x", dist.Poisson(mean).to_event(x.dim() - 1), obs=x)
