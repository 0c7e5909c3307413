"""Binary features from several layers of Gaussian codes, each drawn given the layer above it.

    z_L ~ Normal(0, I)                                      z_L: (latents[-1],), the top
    m, v = network_l(z_(l+1)),  z_l ~ Normal(m, exp(v/2))   z_l: (latents[l - 1],)
    x ~ Bernoulli(logits=decoder(z_1))                      x: (features,), each 0 or 1

Rows: vectors or images of 0 and 1, with a code of several layers.

Source: Sønderby et al. (2016), section 2, arXiv:1602.02282.
"""

from collections.abc import Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP, check_sizes, make_decoder


class HierarchicalModel(PyroModule):
    """p(x, z_1, ..., z_L). Plate "data"; latent sites "z1", "z2", ...; observed site "x".

    Its guide is ``guides/top_down.py``, which reads the networks between the layers.

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Sizes of the layers of the code, one or more, from the layer next to the data to
            the top; a number stands for two layers of this size.
        hidden: Width of the hidden layer of each network between two layers.
        decoder: Network (..., latents[0]) -> (..., features) that gives the logit of each feature;
            one hidden layer for vectors, convolutions for images, if ``None``.

    Example:
        >>> model = HierarchicalModel(features=16, latents=(4, 2))
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z1"]["value"].shape, trace.nodes["z2"]["value"].shape
        (torch.Size([5, 4]), torch.Size([5, 2]))
        >>> model.given_above(1, torch.zeros(5, 2))[0].shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int | Sequence[int] = (8, 4),
        hidden: int = 64,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.latents = tuple(latents) if isinstance(latents, Sequence) else (latents, latents)
        for size in self.latents or (0,):
            check_sizes(latents=size, hidden=(hidden,))
        self.decoder = decoder or make_decoder(self.latents[0], features)
        self.networks = nn.ModuleList(  # networks[l - 1] gives z_l from z_(l+1)
            MLP(above, 2 * below, (hidden,)) for below, above in pairwise(self.latents)
        )

    def given_above(self, layer: int, above: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of z_layer, (..., latents[layer - 1]), given z_(layer+1)."""
        mean, log_variance = self.networks[layer - 1](above).chunk(2, -1)
        return mean, log_variance

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            top = len(self.latents)
            z = pyro.sample(f"z{top}", dist.Normal(x.new_zeros(self.latents[-1]), 1.0).to_event(1))
            for layer in range(top - 1, 0, -1):
                mean, log_variance = self.given_above(layer, z)
                sd = (log_variance / 2).exp()
                z = pyro.sample(f"z{layer}", dist.Normal(mean, sd).to_event(1))
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
