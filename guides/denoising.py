"""Denoising guide: any guide, that reads corrupted rows in training; the model scores clean ones.

    y = (x - loc) / scale                     x, y: (features,); x in the data's units
    z ~ q(z given loc + scale corruption(y))  in train mode
    z ~ q(z given x)                          in every evaluation, such as a held-out ELBO

The mean of the ELBO over corruptions is trained, which is a bound on log p(x), too.

Source: Vincent et al. (2010), section 3, Journal of Machine Learning Research 11; Im et al. (2017),
section 3, arXiv:1511.06406 (the bound).
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import (
    MaskingNoise,
    Standardize,
    check_reads_rows,
    check_row,
    check_sizes,
    fields_read,
    make_encoder,
)


class DenoisingGuide(PyroModule):
    """q(z given a corrupted x). Plate "data"; the latent sites are those of the guide inside.

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model; not used where ``guide`` is given.
        guide: The guide inside, whose first argument is the row, which it must read; a diagonal
            normal of the site "z", with the default network, if ``None``.
        corruption: Module that returns rows of about unit size corrupted in train mode, and
            unchanged in evaluation mode; ``MaskingNoise()`` if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> guide = DenoisingGuide(features=16, latents=2, corruption=MaskingNoise(share=0.5))
        >>> guide.corrupted(torch.ones(5, 16)).unique()
        tensor([0., 1.])
    """

    def __init__(
        self, features: int | Sequence[int], latents: int = 8,
        guide: Callable[..., Any] | None = None, corruption: nn.Module | None = None,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_row(features)
        check_reads_rows(guide)
        check_sizes(latents=latents)
        self.features, self.latents, self.guide = features, latents, guide
        self.standardize, self.corruption = Standardize(loc, scale), corruption or MaskingNoise()
        self.encoder: Any = make_encoder(features, 2 * latents) if guide is None else None

    def corrupted(self, x: Tensor) -> Tensor:
        """Return rows x, (rows, features), corrupted; missing cells (NaN) stay missing."""
        clean = self.standardize(x)
        noisy = self.corruption(clean)
        moved = self.standardize.loc + self.standardize.scale * noisy
        return torch.where((noisy != clean) & ~clean.isnan(), moved, x)

    def forward(self, x: Tensor, *others: Tensor, **fields: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        seen = self.corrupted(x) if self.training else x
        if self.guide is not None:
            self.guide(seen, *others, **fields_read(self.guide, fields))
            return
        mean, log_variance = self.encoder(self.standardize(seen)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
