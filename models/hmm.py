"""Sequences of real numbers from a state that moves step by step: a hidden Markov model.

    z_0 ~ Categorical(softmax(initial))                       z_t: 0 ... states - 1
    z_t ~ Categorical(softmax(transition[z_(t-1)]))           t = 1 ... steps - 1
    x_t ~ Normal(loc + scale c_k, scale sqrt(exp(2 s_k) + 0.01^2)),  k = z_t     data's units

Centers c and spreads s, (states, features), initial and transition are learned. All paths z are
summed out, with no guide: ``fit(model, None, x)``, or, faster, ``fit(model.marginal, None, x)``.

Rows: sequences of vectors of real numbers, of one length, (steps, features).

Source: Rabiner (1989), A tutorial on hidden Markov models, sections II and III.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded


class HMMModel(PyroModule):
    """p(x, z). Plate "data"; latent sites "z_0", "z_1", ...; observed sites "x_0", "x_1", ....

    Args:
        steps: Number of steps of every row.
        features: Number of features at each step.
        states: Number of states.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> from ppl_vae import encode
        >>> path = encode(HMMModel(7, features=2), None, torch.randn(5, 7, 2), joint=True)
        >>> path["z"]["mode"].shape  # the most probable state of every row at every step
        (5, 7)
    """

    def __init__(
        self, steps: int, features: int, states: int = 4, loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(steps=steps, features=features, states=states)
        self.steps, self.features, self.states = steps, features, states
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        self.centers = nn.Parameter(torch.randn(states, features))
        sizes = (states, features), (states,), (states, states)
        start = (nn.Parameter(torch.zeros(size)) for size in sizes)
        self.log_spreads, self.initial, self.transition = start

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of x_t in each state, (states, features) each."""
        loc, scale = self.get_buffer("loc"), self.get_buffer("scale")
        return loc + scale * self.centers, scale * ((2 * self.log_spreads).exp() + 1e-4).sqrt()

    def forward(self, x: Tensor) -> None:
        """Score rows x, (rows, steps, features), in the data's units."""
        if x.shape[1] != self.steps:
            raise ValueError(f"x: expected {self.steps} steps, got {x.shape[1]}; build a new model")
        mean, sd = self.moments()
        chances = dist.Categorical(logits=self.initial)
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(self.steps)):
                z = pyro.sample(f"z_{t}", chances, infer={"enumerate": "parallel"})
                each = dist.Normal(mean[z], sd[z]).to_event(1)  # (states, 1, features)
                pyro.sample(f"x_{t}", each, obs=x[:, t].to(mean.dtype))
                chances = dist.Categorical(logits=self.transition[z])

    @pyro_method
    def marginal(self, x: Tensor) -> None:
        """Score rows x with all paths summed out in one distribution, at one site "x"."""
        start = self.initial.expand(1, self.states, -1)  # from whatever was before the first step
        chances = torch.cat([start, self.transition.expand(self.steps - 1, -1, -1)])
        with pyro.plate("data", len(x)):
            hmm = dist.DiscreteHMM(self.initial, chances, dist.Normal(*self.moments()).to_event(1))
            pyro.sample("x", hmm, obs=x.to(self.centers.dtype))
