"""Sequences of real numbers from a state that moves linearly: a linear-Gaussian state-space model.

    z_1 ~ Normal(start, diag(exp(s))^2)                 z_t: (latents,)
    z_t ~ Normal(A z_(t-1), I)                          t = 2 ... length
    x_t ~ Normal(loc + scale (W z_t + m), scale r)      x_t: (features,), data's units

scale and r have one number for each feature. ``log_prob`` integrates all paths z out.

Rows: sequences of vectors of real numbers, of any lengths; cells may be missing.

Source: Durbin & Koopman (2012), Time series analysis by state space methods, chapter 4.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import MarkovPath, kalman_log_prob
from ppl_vae.nn import check_sizes, expanded, seen_cells


class StateSpaceModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z", (steps, latents); observed site "x".

    Args:
        features: Number of features at each step.
        latents: Size of a state.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> model = StateSpaceModel(features=3, latents=2)
        >>> model.log_prob(torch.zeros(5, 7, 3), lengths=torch.tensor([7, 7, 1, 3, 2])).shape
        torch.Size([5])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, features: int, latents: int = 8, loc: float | Tensor = 0, scale: float | Tensor = 1
    ) -> None:
        super().__init__()
        check_sizes(features=features, latents=latents)
        self.features, self.latents = features, latents
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        self.transition = nn.Parameter(0.8 * torch.eye(latents))
        self.weight = nn.Parameter(0.5 * torch.randn(features, latents) / latents**0.5)
        zeros = (nn.Parameter(torch.zeros(size)) for size in 2 * (latents, features))
        self.start, self.shift, self.log_spread, self.log_sd = zeros  # log_spread: s; log_sd: log r

    def step(self, z: Tensor) -> dist.Distribution:
        """Return the distribution of the states that follow z, (..., latents)."""
        return dist.Normal(z @ self.transition.T, 1.0).to_event(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, lengths: Tensor | None = None, seen: Tensor | None = None) -> None:
        """Score sequences x, (rows, steps, features); lengths (rows,), seen like x."""
        x, mask = seen_cells(x, lengths, seen)
        first = dist.Normal(self.start, self.log_spread.exp()).to_event(1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", MarkovPath(first, self.step, x.shape[1], lengths))
            mean = self.loc + self.scale * (z @ self.weight.T + self.shift)
            each = dist.Normal(mean, self.scale * self.log_sd.exp())
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)

    def log_prob(
        self, x: Tensor, lengths: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        """Return the exact log p(x) of sequences x, (rows, steps, features), as (rows,) in nats."""
        x, mask = seen_cells(x, lengths, seen)
        return kalman_log_prob(
            x - self.loc, mask, start=self.start, spread=self.log_spread.exp(),
            transition=self.transition, noise=torch.ones_like(self.start),
            weight=self.scale[:, None] * self.weight, shift=self.scale * self.shift,
            sd=self.scale * self.log_sd.exp(),
        )  # fmt: skip
