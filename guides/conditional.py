"""Diagonal normal guide that reads the row and its condition, a label or covariates.

    h = encoder((x - loc) / scale)          h: (hidden,); x: (features,), data's units
    m, v = joint(tanh(h), y)                (latents,) each; y: (conditions,)
    z ~ Normal(m, exp(v / 2))               z: (latents,)

The exact posterior of a conditional model depends on y as well as on x. The encoder reads the row
alone, so that rows may be images; a second network reads what it gives beside the condition.

Source: Sohn, Lee & Yan (2015), section 4.1, Advances in Neural Information Processing Systems 28.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP, Condition, Standardize, check_sizes, make_encoder


class ConditionalGuide(PyroModule):
    """q(z given x, y). Plate "data"; latent site "z"; field "y" is given.

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model.
        conditions: Number of labels, or of covariates.
        hidden: Size of h, and of the hidden layer that reads h and y.
        encoder: Network (..., features) -> (..., hidden) that reads rows of about unit size; one
            hidden layer for vectors, convolutions for images, if ``None``.
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
        features: int | Sequence[int],
        latents: int = 8,
        conditions: int = 2,
        hidden: int = 64,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents, conditions=conditions, hidden=(hidden,))
        self.features, self.latents, self.conditions = features, latents, conditions
        self.standardize = Standardize(loc, scale)
        self.condition = Condition(conditions)
        self.encoder = encoder or make_encoder(features, hidden)
        self.joint = MLP(hidden + conditions, 2 * latents, (hidden,))

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Draw codes for rows x, (rows, features), given y: (rows,) or (rows, conditions)."""
        h = self.encoder(self.standardize(x)).tanh()  # (rows, hidden)
        mean, log_variance = self.joint(self.condition(h, y)).chunk(2, -1)  # (rows, latents) each
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
