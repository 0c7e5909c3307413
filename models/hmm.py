"""Sequences from a hidden state that moves from step to step: a hidden Markov model.

    z_0 ~ Categorical(softmax(initial))                              z_t: 0 ... states - 1
    z_t ~ Categorical(softmax(transition[z_(t-1)]))                  t = 1 ... steps - 1
    x_t ~ Normal(loc_t + scale_t c_(z_t), sqrt(scale_t^2 exp(2 s_(z_t)) + floor_t^2))

x: (steps,) or (steps, size), in the data's units; c and s, (states, size) without units, are
learned, as are the probabilities of states and transitions. Every z_t is summed out, at a cost that
grows with the number of steps, not with that of all paths: ``fit(model, None, x)`` needs no guide.
``encode(model, None, x, joint=True)`` has the most probable path of every row.

Rows: sequences of real numbers, or of vectors, all of one length.

Source: Rabiner (1989), A tutorial on hidden Markov models, sections II and IV.A.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded


class HMMModel(PyroModule):
    """p(x, z). Plate "data"; latent sites "z_0", "z_1", ..., summed out; observed "x_0", "x_1", ...

    Args:
        features: Number of steps of a sequence of numbers, or (steps, size) of vectors.
        states: Number of hidden states.
        loc: Center of the data, a number or of the shape of a row, in the data's units.
        scale: Spread of the data, a number or of the shape of a row, in the data's units.
        floor: Lower bound of the standard deviations, as ``scale``; ``0.01 * scale`` if ``None``.

    Example:
        >>> from ppl_vae import encode
        >>> model = HMMModel(features=(7, 2), states=3)
        >>> encode(model, None, torch.randn(5, 7, 2), joint=True)["z"]["mode"].shape
        (5, 7)
    """

    loc: Tensor
    scale: Tensor
    floor: Tensor

    def __init__(
        self, features: int | tuple[int, int], states: int = 4, loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0, floor: float | Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        given: Any = features
        steps, size = given if isinstance(given, tuple) and len(given) == 2 else (given, 1)
        check_sizes(features=steps, states=states)
        check_sizes(features=size)
        self.features, self.states, shape = features, states, (steps, size)
        self.register_buffer("loc", expanded("loc", loc, features).reshape(shape))
        spread = expanded("scale", scale, features, positive=True)
        self.register_buffer("scale", spread.reshape(shape))
        lowest = expanded("floor", 0.01 * spread if floor is None else floor, features, least=0)
        self.register_buffer("floor", lowest.reshape(shape))
        self.centers = nn.Parameter(torch.randn(states, size))
        self.log_spreads = nn.Parameter(torch.zeros(states, size))
        self.initial = nn.Parameter(torch.zeros(states))
        self.transition = nn.Parameter(torch.zeros(states, states))

    def forward(self, x: Tensor) -> None:
        """Score sequences x, (rows, steps) or (rows, steps, size), in the data's units."""
        x = x.to(self.loc.dtype).reshape(len(x), *self.loc.shape)
        logits: Tensor = self.initial
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(len(self.loc))):
                chances = dist.Categorical(logits=logits)
                z = pyro.sample(f"z_{t}", chances, infer={"enumerate": "parallel"})
                mean = (self.loc[t] + self.scale[t] * self.centers)[z]
                sd = (self.scale[t] ** 2 * (2 * self.log_spreads).exp() + self.floor[t] ** 2).sqrt()
                pyro.sample(f"x_{t}", dist.Normal(mean, sd[z]).to_event(1), obs=x[:, t])
                logits = self.transition[z]
