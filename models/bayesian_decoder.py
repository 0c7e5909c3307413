"""Real features from a Gaussian code through a decoder whose weights are random, with a prior.

    W ~ Normal(0, I / latents)                       W: (features, latents), one for all rows
    z ~ Normal(0, I)                                 z: (latents,)
    x ~ Normal(loc + scale (W z), scale sigma)       x: (features,), data's units

W stands outside the plate: N rows tell about it together, and its posterior narrows as N grows.
Its guide is ``guides/mean_field.py``. The noise has one sigma, learned or given.

Rows: vectors of real numbers, few enough that the decoder's own uncertainty matters.

Source: Bishop (1999), section 3, Advances in Neural Information Processing Systems 11.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn


class BayesianDecoderModel(PyroModule):
    """p(x, z, W). Plate "data"; latent sites "weights" and, in the plate, "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z.
        sigma: Standard deviation of the noise by ``scale``, a positive number; learned if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> model = BayesianDecoderModel(features=3, latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(10, 3))
        >>> trace.nodes["weights"]["value"].shape
        torch.Size([3, 2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int,
        latents: int = 8,
        sigma: float | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.features, self.latents = features, latents
        self.register_buffer("loc", torch.as_tensor(loc).expand(features).clone())
        self.register_buffer("scale", torch.as_tensor(scale).expand(features).clone())
        start = torch.tensor(1.0 if sigma is None else sigma).log()
        self.log_sigma = nn.Parameter(start, requires_grad=sigma is None)

    def forward(self, x: Tensor) -> None:
        """Draw weights and codes and score rows x, (rows, features), in the data's units."""
        x = x.to(torch.get_default_dtype())
        zeros = x.new_zeros(self.features, self.latents)
        weights = pyro.sample("weights", dist.Normal(zeros, self.latents**-0.5).to_event(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean = self.loc + self.scale * (weights @ z.unsqueeze(-1)).squeeze(-1)
            pyro.sample(
                "x", dist.Normal(mean, self.scale * self.log_sigma.exp()).to_event(1), obs=x
            )
