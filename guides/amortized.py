"""Guide of any family whose draws have gradients: a network gives the family's parameters.

    a_1, ..., a_k = encoder((x - loc) / scale)    (latents,) each; k parameters of the family
    p_i = transform_i(a_i)                        (latents,); real numbers onto what p_i may be
    z ~ family(p_1, ..., p_k)                     z: (latents,), a vector or numbers by themselves

Draws have gradients where z = g(noise, p): with location and scale (Normal, Laplace, StudentT,
Logistic, Uniform by loc and width), by an inverse CDF (Exponential, Cauchy, Weibull, Pareto,
Gumbel), or composed (LogNormal, Gamma, Dirichlet, Beta, Chi2). Parameters are in alphabetical
order. The family needs the support of the model's prior. Its tails must not be too heavy for it:
under a normal prior, the ELBO of Cauchy draws, or of StudentT draws with df up to 2, is minus
infinity, whatever an estimate says. At a_1 = 0, df is 10, from where a fit can raise or lower it.

Source: Kingma & Welling (2014), section 2.4, arXiv:1312.6114; Figurnov et al. (2018),
arXiv:1805.08498 (Gamma, Beta, Dirichlet, StudentT).
"""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import find_family, parameter_transforms
from ppl_vae.nn import Standardize, check_sizes, make_encoder


class AmortizedGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model.
        family: Class of ``pyro.distributions``, or its name.
        encoder: Network (..., features) -> (..., k latents) that gives a_1, ..., a_k; it reads rows
            of about unit size. One hidden layer for vectors, convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.
        positive: ``"exp"`` or ``"softplus"``, which makes positive parameters.

    Example:
        >>> import torch
        >>> guide = AmortizedGuide(features=16, latents=2, family=dist.Gamma)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16))
        >>> list(guide.transforms), trace.nodes["z"]["value"].shape
        (['concentration', 'rate'], torch.Size([5, 2]))
    """

    def __init__(
        self, features: int | Sequence[int], latents: int = 8, family: Any = dist.Laplace,
        encoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
        positive: str = "exp",
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents, self.family = features, latents, find_family(family)
        self.transforms = parameter_transforms(self.family, positive)
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, len(self.transforms) * latents)

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        outputs = self.encoder(self.standardize(x)).chunk(len(self.transforms), -1)
        pairs = zip(self.transforms.items(), outputs, strict=True)
        parameters = {name: transform(output) for (name, transform), output in pairs}
        with pyro.plate("data", len(x)):
            fn = self.family(**parameters)
            pyro.sample("z", fn.to_event(1 - len(fn.event_shape)))
