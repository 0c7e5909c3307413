"""Sequences of real numbers from one code each, by a recurrent network.

    z ~ Normal(0, I)                                               z: (latents,)
    h_t = GRU(z, h_(t-1))                                          h_t: (hidden,); h_0 = 0
    m_t, s_t = head(h_t)                                           (features,) each
    x_t ~ Normal(loc + scale m_t, scale sqrt(exp(2 s_t) + 0.01^2))    t = 1 ... length; data's units

The code says all about a sequence that its features at different steps have in common. What each
step adds of its own is noise: for states that move at random, see models/deep_markov.py.

Rows: sequences of vectors of real numbers, of any lengths; cells may be missing.

Source: Fabius & van Amersfoort (2015), section 2.2, arXiv:1412.6581; Srivastava, Mansimov &
Salakhutdinov (2015), section 2.3 (a decoder that is not fed the data), arXiv:1502.04681.
"""

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Recurrent, check_sizes, expanded, seen_cells


class SequenceModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features at each step.
        latents: Size of the latent code z.
        hidden: Size of the states h_t.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> model = SequenceModel(features=3, latents=2)
        >>> lengths = torch.tensor([7, 7, 1, 3, 2])
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 7, 3), lengths)
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, features: int, latents: int = 8, hidden: int = 64,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents, hidden=(hidden,))
        self.features, self.latents = features, latents
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        self.decoder = Recurrent(latents, hidden)
        self.head = nn.Linear(hidden, 2 * features)

    def forward(self, x: Tensor, lengths: Tensor | None = None, seen: Tensor | None = None) -> None:
        """Score sequences x, (rows, steps, features); lengths (rows,), seen like x."""
        x, mask = seen_cells(x, lengths, seen)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            given = z[..., None, :].expand(*z.shape[:-1], x.shape[1], self.latents)
            mean, log_sd = self.head(self.decoder(given)).chunk(2, -1)
            sd = self.scale * ((2 * log_sd).exp() + 1e-4).sqrt()
            each = dist.Normal(self.loc + self.scale * mean, sd)  # (..., rows, steps, features)
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)
