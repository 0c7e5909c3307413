"""Binary sequences from a state that moves by a network: the deep Markov model.

    z_1 ~ Normal(transition(start))           z_t: (latents,)
    z_t ~ Normal(transition(z_(t-1)))         t = 2 ... length
    x_t ~ Bernoulli(logits=emission(z_t))     x_t: (features,), each 0 or 1

The transition gives loc and scale, by a gate between a linear map and a network. For other data,
change the line of ``each``, with an emission of as many numbers as its parameters need:

    real numbers    dist.Normal(*emission(z).chunk(2, -1)) with .exp() of the second half
    counts          dist.Poisson(emission(z).exp())
    categories      dist.Categorical(logits=emission(z).unflatten(-1, (features, categories)))

Rows: sequences of vectors of 0 and 1, of any lengths; cells may be missing.

Source: Krishnan, Shalit & Sontag (2017), sections 2 and 3, arXiv:1609.09869.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import MarkovPath
from ppl_vae.nn import MLP, GatedTransition, check_sizes, seen_cells


class DeepMarkovModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z", (steps, latents); observed site "x".

    Args:
        features: Number of features at each step.
        latents: Size of a state.
        hidden: Size of the hidden layers.
        transition: Network (..., latents) -> (loc, scale), (..., latents) each; a gated one if
            ``None``.
        emission: Network (..., latents) -> (..., features) that gives the logits; two hidden layers
            if ``None``.

    Example:
        >>> model = DeepMarkovModel(features=3, latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 7, 3))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 7, 2])
        >>> model.step(torch.zeros(5, 2)).event_shape
        torch.Size([2])
    """

    def __init__(
        self, features: int, latents: int = 8, hidden: int = 64,
        transition: nn.Module | None = None, emission: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents, hidden=(hidden,))
        self.features, self.latents = features, latents
        self.transition = transition or GatedTransition(latents, hidden)
        self.emission = emission or MLP(latents, features, (hidden, hidden), nn.ReLU)
        self.start = nn.Parameter(torch.zeros(latents))

    def step(self, z: Tensor) -> dist.Distribution:
        """Return the distribution of the states that follow z, (..., latents)."""
        return dist.Independent(dist.Normal(*self.transition(z)), 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None, seen: Tensor | None = None) -> None:
        """Score sequences x, (rows, steps, features); lengths (rows,), seen like x."""
        x, mask = seen_cells(x, lengths, seen)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", MarkovPath(self.step(self.start), self.step, x.shape[1], lengths))
            each = dist.Bernoulli(logits=self.emission(z))  # (..., rows, steps, features)
            pyro.sample("x", each.mask(mask).to_event(2), obs=x)
