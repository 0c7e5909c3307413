"""Binary features from a code of several discrete latents, with a learned prior.

    z_i ~ Categorical(softmax(l_i))      z: (latents, states), one-hot;  l: learned, likewise
    z_i ~ Bernoulli(sigmoid(l_i))        z: (latents,), each 0 or 1, where there are two states
    x ~ Bernoulli(logits=decoder(z))     x: (features,), each 0 or 1; it reads two states as -1, 1

Rows: vectors or images of 0 and 1.

The guide decides how the gradient is estimated: the latents are drawn or enumerated
(``categorical``, ``bernoulli``), or relaxed (``relaxed``).

Source: Jang, Gu & Poole (2017), section 4.2, arXiv:1611.01144; Mnih & Gregor (2014),
arXiv:1402.0030.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import BernoulliVector, CategoricalVector
from ppl_vae.nn import check_sizes, make_decoder


class DiscreteModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Number of latents.
        states: Number of values of each latent; 2 makes them numbers 0 and 1.
        decoder: Network (..., latents * states), or (..., latents) for two states, -> (...,
            features) that gives the logit of each feature; one hidden layer for vectors,
            convolutions for images, if ``None``.

    Example:
        >>> model = DiscreteModel(features=16, latents=2, states=3)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        states: int = 3,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents, states=states)
        if states < 2:
            raise ValueError(f"states: expected 2 or more, got {states}")
        self.features, self.latents, self.states = features, latents, states
        shape = (latents,) if states == 2 else (latents, states)
        self.prior_logits = nn.Parameter(torch.zeros(shape))
        self.decoder = decoder or make_decoder(self.prior_logits.numel(), features)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        vector = BernoulliVector if self.states == 2 else CategoricalVector
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", vector(self.prior_logits))
            code = 2 * z - 1 if self.states == 2 else z.flatten(-2)
            logits = self.decoder(code)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
