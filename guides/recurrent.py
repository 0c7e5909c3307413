"""Guide for sequences with one code each: a recurrent network reads the sequence.

    h_t = GRU((x_t - loc) / scale, h_(t+1))    h_t: (hidden,); x_t: (features,), data's units
    m, v = head(h_1)                           (latents,) each; the sequence is read from its end
    z ~ Normal(m, exp(v / 2))                  z: (latents,)

A cell that is missing is read as the center of its feature.

Source: Fabius & van Amersfoort (2015), section 2.1, arXiv:1412.6581.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Recurrent, Standardize, check_sizes, seen_cells


class RecurrentGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features at each step.
        latents: Size of the latent code z, as in the model.
        hidden: Size of the states h_t.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> guide = RecurrentGuide(features=3, latents=2)
        >>> lengths = torch.tensor([7, 7, 1, 3, 2])
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 7, 3), lengths)
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int, latents: int = 8, hidden: int = 64,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents, hidden=(hidden,))
        self.features, self.latents = features, latents
        self.standardize = Standardize(loc, scale)
        # read backwards and turned round again, so that the last state stands at the first step
        self.encoder = Recurrent(features, hidden, backwards=True)
        self.head = nn.Linear(hidden, 2 * latents)

    def forward(self, x: Tensor, lengths: Tensor | None = None, seen: Tensor | None = None) -> None:
        """Draw codes for sequences x, (rows, steps, features); lengths (rows,), seen like x."""
        x, mask = seen_cells(x, lengths, seen)
        read = torch.where(mask, self.standardize(x), 0.0)
        mean, log_variance = self.head(self.encoder(read, lengths)[:, 0]).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
