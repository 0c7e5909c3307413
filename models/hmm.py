"""Sequences of real numbers from a hidden state that moves from step to step: a hidden Markov model.

    z_0 ~ Categorical(softmax(initial))                              z_t: 0 ... states - 1
    z_t ~ Categorical(softmax(transition[z_(t-1)]))                  t = 1 ... steps - 1
    x_t ~ Normal(loc + scale c_(z_t), sqrt(scale^2 exp(2 s_(z_t)) + floor^2))

x: (steps, features), in the data's units; c and s, (states, features) without units, are learned,
as are the probabilities of states and transitions. Every z_t is summed out, at a cost that grows
with the number of steps, not with that of all paths: ``fit(model, None, x)`` needs no guide.

Rows: sequences of vectors of real numbers, all of one length.

Source: Rabiner (1989), A tutorial on hidden Markov models, sections II and IV.A.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded


class HMMModel(PyroModule):
    """p(x, z). Plate "data"; latent sites "z_0", "z_1", ...; observed sites "x_0", "x_1", ...

    Args:
        features: Number of features at a step.
        states: Number of states.
    """

    def __init__(self, features, states=4, loc=0.0, scale=1.0, floor=None):
        super().__init__()
        check_sizes(features=features, states=states)
        self.features, self.states = features, states
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        floor = 0.01 * self.scale if floor is None else floor
        self.register_buffer("floor", expanded("floor", floor, features, least=0))
        self.centers = nn.Parameter(torch.randn(states, features))
        self.log_spreads = nn.Parameter(torch.zeros(states, features))
        self.initial = nn.Parameter(torch.zeros(states))
        self.transition = nn.Parameter(torch.zeros(states, states))

    def forward(self, x: Tensor) -> None:
        x = x.to(self.loc.dtype)
        loc = self.loc + self.scale * self.centers
        sd = (self.scale**2 * (2 * self.log_spreads).exp() + self.floor**2).sqrt()
        logits = self.initial
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                z = pyro.sample(
                    f"z_{t}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"}
                )
                pyro.sample(f"x_{t}", dist.Normal(loc[z], sd[z]).to_event(1), obs=x[:, t])
                logits = self.transition[z]
