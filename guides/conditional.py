"""Diagonal normal guide that reads the row and its condition, a label or covariates.

    m, v = encoder((x - loc) / scale, y)    (latents,) each; x: (features,), y: (conditions,)
    z ~ Normal(m, exp(v / 2))               z: (latents,)

The exact posterior of a conditional model depends on y as well as on x.

Source: Sohn, Lee & Yan (2015), section 4.1, Advances in Neural Information Processing Systems 28.
"""

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP, Condition, Standardize


class ConditionalGuide(PyroModule):
    """q(z given x, y). Plate "data"; latent site "z"; field "y" is given.

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z, as in the model.
        conditions: Number of labels, or of covariates.
        encoder: Network (..., features + conditions) -> (..., 2 latents) that gives m and v; an
            ``MLP`` with one hidden layer if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> import torch
        >>> guide = ConditionalGuide(features=16, latents=2, conditions=3)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(2, 16), torch.tensor([0, 2]))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        features: int,
        latents: int = 8,
        conditions: int = 2,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.features, self.latents, self.conditions = features, latents, conditions
        self.standardize = Standardize(loc, scale)
        self.condition = Condition(conditions)
        self.encoder = encoder or MLP(features + conditions, 2 * latents)

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Draw codes for rows x, (rows, features), given y: (rows,) or (rows, conditions)."""
        both = self.condition(self.standardize(x), y)  # (rows, features + conditions)
        mean, log_variance = self.encoder(both).chunk(2, -1)  # (rows, latents) each
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
