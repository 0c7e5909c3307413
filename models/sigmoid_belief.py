"""Sigmoid belief network: binary features from layers of binary latents, linear in between.

    z_L,i ~ Bernoulli(sigmoid(l_i))                     z_L: (latents[-1],), the top; l: learned
    z_l ~ Bernoulli(sigmoid(W_l z_(l+1) + b_l))         z_l: (latents[l - 1],)
    x ~ Bernoulli(sigmoid(W_0 z_1 + b_0))               x: (features,), each 0 or 1

Rows: vectors of 0 and 1.

Its guides are ``bernoulli``, with as many layers, and ``relaxed``, for one.

Source: Neal (1992), doi:10.1016/0004-3702(92)90065-6; Mnih & Gregor (2014), section 4.1,
arXiv:1402.0030.
"""

from collections.abc import Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import BernoulliVector
from ppl_vae.nn import check_sizes


class SigmoidBeliefModel(PyroModule):
    """p(x, z_1, ..., z_L). Plate "data"; latent sites "z1", "z2", ...; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the only layer, whose site is "z"; or the sizes of several layers, from the
            layer next to the data to the top.

    Example:
        >>> model = SigmoidBeliefModel(features=16, latents=(4, 2))
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z1"]["value"].shape, trace.nodes["z2"]["value"].shape
        (torch.Size([5, 4]), torch.Size([5, 2]))
    """

    def __init__(self, features: int, latents: int | Sequence[int] = 8) -> None:
        super().__init__()
        sizes = tuple(latents) if isinstance(latents, Sequence) else (latents,)
        for size in sizes or (0,):
            check_sizes(features=features, latents=size)
        self.features, self.latents = features, latents
        self.names = ["z"] if len(sizes) == 1 else [f"z{i}" for i in range(1, len(sizes) + 1)]
        self.prior_logits = nn.Parameter(torch.zeros(sizes[-1]))
        # layers[l] maps the layer above to what lies below it: layers[0] gives the features
        self.layers = nn.ModuleList(
            nn.Linear(above, below) for below, above in pairwise((features, *sizes))
        )

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            logits = self.prior_logits
            for name, layer in zip(reversed(self.names), reversed(self.layers), strict=True):
                z = pyro.sample(name, BernoulliVector(logits))
                logits = layer(z)  # (..., rows, size of what lies below): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)
