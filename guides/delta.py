"""Point guide: a network gives every row one code, without a distribution around it.

    m = encoder((x - loc) / scale)       m: (latents,); x: (features,), data's units
    z ~ Delta(m)                         z: (latents,); z is m

A pair with this guide is the deterministic autoencoder: it maximizes log p(x given m) + log p(m).
For a Gaussian likelihood of standard deviation sigma and the prior Normal(0, I) that is a constant
minus the squared error by 2 sigma^2 minus the regularizer |m|^2 / 2. ``fit(..., kl_weight=0)``
leaves the regularizer out: the plain autoencoder.

The objective is a log joint density: no bound on log p(x), and not comparable with the ELBO of
another guide, because the density of a point is infinite. ``log_likelihood`` refuses a point. For a
likelihood, freeze the model (``model.requires_grad_(False)``) and fit a normal guide to it.

Source: Hinton & Salakhutdinov (2006), Science 313, pages 504 to 507 (the autoencoder); Kingma &
Welling (2014), section 2.3, arXiv:1312.6114 (what a distribution around the code adds).
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Standardize, check_sizes, make_encoder


class DeltaGuide(PyroModule):
    """A point for q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model.
        encoder: Network (..., features) -> (..., latents) that gives m; it reads rows of about unit
            size. One hidden layer for vectors, convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> import torch
        >>> guide = DeltaGuide(features=16, latents=2)
        >>> z = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16)).nodes["z"]
        >>> z["value"].shape, bool((z["value"] == guide.encoder(torch.zeros(5, 16))).all())
        (torch.Size([5, 2]), True)
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, latents)

    def forward(self, x: Tensor) -> None:
        """Give codes to rows x, (rows, features), in the data's units."""
        code = self.encoder(self.standardize(x))  # (rows, latents)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(code, event_dim=1))
