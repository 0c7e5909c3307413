"""Guide for sequences with a state at each step: it has read the sequence from its end.

    h_t = GRU((x_t - loc) / scale, h_(t+1))         h_t: (hidden,); x_t: (features,), data's units
    c_t = (tanh(U z_(t-1)) + h_t) / 2               c_t: (hidden,)
    m_t, v_t = V c_t + (B z_(t-1), 0)               (latents,) each
    u_t ~ Normal(m_t, softplus(v_t))                t = 1 ... length; z_0: learned
    z_t = layers(u_t; h_t)                          with flows=k, k autoregressive layers; else u_t

The posterior of a Markov model's path is such a chain: z_t depends on z_(t-1) and x_t ... x_length
(smoothing). B z lets m_t follow z_(t-1) without bounds. A missing cell is read as its center.

Source: Krishnan, Shalit & Sontag (2017), section 4 (DKS), arXiv:1609.09869; Kingma et al. (2016),
section 3, arXiv:1606.04934 (the layers).
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import MarkovPath
from ppl_vae.nn import PathFlow, Recurrent, Standardize, check_sizes, seen_cells


class SmoothingGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z", (steps, latents).

    Args:
        features: Number of features at each step.
        latents: Size of a state, as in the model.
        hidden: Size of the states h_t of the network.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.
        encoder: Network (x, lengths) -> h, (rows, steps, hidden); a GRU from the end if ``None``.
        flows: Number of layers that bend each state; 0 for a normal.

    Example:
        >>> guide = SmoothingGuide(features=3, latents=2)
        >>> pyro.poutine.trace(guide).get_trace(torch.zeros(5, 7, 3)).nodes["z"]["value"].shape
        torch.Size([5, 7, 2])
    """

    def __init__(
        self, features: int, latents: int = 8, hidden: int = 64,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0, encoder: nn.Module | None = None,
        flows: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents, hidden=(hidden,))
        self.features, self.latents, self.hidden = features, latents, hidden
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or Recurrent(features, hidden, backwards=True)
        self.before = nn.Linear(latents, hidden + latents)  # U and B
        self.head = nn.Linear(hidden, 2 * latents)  # V
        self.start = nn.Parameter(torch.zeros(latents))  # z_0
        self.flow = PathFlow(latents, hidden, flows, hidden) if flows else None

    def after(self, z: Tensor, h: Tensor) -> dist.Distribution:
        """Return the distribution of the draws u_t that follow z, (..., latents), given h_t."""
        inner, skip = self.before(z).split([self.hidden, self.latents], -1)
        mean, scale = self.head((inner.tanh() + h) / 2).chunk(2, -1)
        return dist.Independent(dist.Normal(mean + skip, nn.functional.softplus(scale)), 1)

    def step(self, u: Tensor, states: Tensor) -> dist.Distribution:
        """Return the distribution of the u_t after u_(t-1), given h_t, with flows h_(t-1) too."""
        if self.flow is None:
            return self.after(u, states)
        before, h = states.chunk(2, -1)
        return self.after(self.flow.states(u, before), h)

    def forward(self, x: Tensor, lengths: Tensor | None = None, seen: Tensor | None = None) -> None:
        """Draw paths for sequences x, (rows, steps, features); lengths (rows,), seen like x."""
        x, mask = seen_cells(x, lengths, seen)
        h = self.encoder(torch.where(mask, self.standardize(x), 0.0), lengths)
        states = h if self.flow is None else torch.cat([h.roll(1, 1), h], -1)
        path = MarkovPath(self.after(self.start, h[:, 0]), self.step, x.shape[1], lengths, states)
        bends = [] if self.flow is None else [self.flow(h, lengths)]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(path, bends) if bends else path)
