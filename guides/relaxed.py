"""Relaxed guide of discrete latents: training draws have gradients, all others are discrete.

    l = encoder((x - loc) / scale)                  (latents, states), or (latents,) of two states
    z_i = softmax((l_i + G_i) / t), G = -log(-log U)         in train mode: Gumbel-softmax
    z_i = sigmoid((l_i + log U - log(1 - U)) / t)            or binary concrete, of two states
    z_i ~ Categorical(softmax(l_i)), Bernoulli(sigmoid(l_i)) in evaluation mode

What is trained is no bound: the history has it as ``objective``, beside the ELBO of discrete draws.
A low temperature t is nearer to the discrete latent and has noisier gradients. A callback lowers
the buffer ``temperature``: ``lambda row, model, guide: guide.temperature.mul_(0.99).item() < 0.1``.

Source: Jang, Gu & Poole (2017), arXiv:1611.01144; Maddison, Mnih & Teh (2017), arXiv:1611.00712.
"""

from collections.abc import Sequence

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import (
    BernoulliVector,
    CategoricalVector,
    RelaxedBernoulliVector,
    RelaxedCategoricalVector,
)
from ppl_vae.nn import Standardize, check_sizes, make_encoder


class RelaxedGuide(PyroModule):
    """q(z given x), relaxed in train mode. Plate "data"; latent site "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Number of latents, as in the model.
        states: Number of values of each latent, as in the model; 2 makes them numbers 0 and 1.
        encoder: Network (..., features) -> (..., latents * states), or (..., latents) for two
            states, that gives the logits; it reads rows of about unit size. One hidden layer for
            vectors, convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.
        temperature: t, where training begins, a positive number.
        straight_through: Whether training draws are discrete, with the relaxed draws' gradients.

    Example:
        >>> guide = RelaxedGuide(features=16, latents=2, states=3).eval()
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z"]["value"].unique()
        tensor([0., 1.])
    """

    temperature: Tensor

    def __init__(
        self, features: int | Sequence[int], latents: int = 8, states: int = 3,
        encoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
        temperature: float = 0.5, straight_through: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, states=states)
        if states < 2 or not temperature > 0:
            need = "states, temperature: expected 2 or more and a positive number"
            raise ValueError(f"{need}, got {states} and {temperature}")
        self.features, self.latents, self.states = features, latents, states
        self.straight_through = straight_through
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, latents * (1 if states == 2 else states))

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        logits = self.encoder(self.standardize(x))
        discrete, relaxed = BernoulliVector, RelaxedBernoulliVector
        if self.states > 2:
            logits = logits.unflatten(-1, (self.latents, self.states))
            discrete, relaxed = CategoricalVector, RelaxedCategoricalVector
        how = self.temperature, self.straight_through
        with pyro.plate("data", len(x)):
            pyro.sample("z", relaxed(logits, *how) if self.training else discrete(logits))
