"""Top-down guide for layers of codes: the row's evidence meets the prior given the layer above.

    d_1 = tanh(encoder(x)),  d_l = tanh(A_l d_(l-1))       d_l: (hidden,), upwards
    m_l, v_l = B_l d_l                                     (latents_l,) each: the row's evidence
    z_L ~ Normal(m_L, exp(v_L / 2))                        the top
    p_l, w_l = the model's mean and log-variance of z_l given z_(l+1)
    z_l ~ Normal((m_l e^-v_l + p_l e^-w_l) / t_l, t_l^(-1/2)),  t_l = e^-v_l + e^-w_l   downwards

The guide draws in the model's own order, from the top, and reads the model's networks: they are
one set of parameters, trained through both.

Source: Sonderby et al. (2016), section 2.1, arXiv:1602.02282.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Standardize, make_encoder


class TopDownGuide(PyroModule):
    """q(z_1, ..., z_L given x). Plate "data"; latent sites "z1", "z2", ....

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        model: The model that the guide is fitted with, such as ``HierarchicalModel``: it has
            ``latents``, the sizes of the layers, and ``given_above``.
        hidden: Width of the layers d_l.
        encoder: Network (..., features) -> (..., hidden) that reads rows of about unit size; one
            hidden layer for vectors, convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> from ppl_vae.models.hierarchical import HierarchicalModel
        >>> guide = TopDownGuide(16, HierarchicalModel(16, latents=(4, 2)))
        >>> pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16)).nodes["z1"]["value"].shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        model: Any,
        hidden: int = 64,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.features, self.model = features, model
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, hidden)
        self.upwards = nn.ModuleList(nn.Linear(hidden, hidden) for _ in pairwise(model.latents))
        self.evidence = nn.ModuleList(nn.Linear(hidden, 2 * size) for size in model.latents)

    def forward(self, x: Tensor) -> None:
        """Draw the codes of rows x, (rows, features), in the data's units, from the top down."""
        layers = [self.encoder(self.standardize(x)).tanh()]  # (rows, hidden) each
        for upwards in self.upwards:
            layers.append(upwards(layers[-1]).tanh())
        with pyro.plate("data", len(x)):
            z = None
            for layer in range(len(layers), 0, -1):
                mean, log_variance = self.evidence[layer - 1](layers[layer - 1]).chunk(2, -1)
                if z is not None:
                    prior_mean, prior_log_variance = self.model.given_above(layer, z)
                    total = torch.logaddexp(-log_variance, -prior_log_variance)  # log of t_l
                    weight = (-log_variance - total).exp()  # of the row's evidence, 0 to 1
                    mean = weight * mean + (1 - weight) * prior_mean
                    log_variance = -total
                sd = (log_variance / 2).exp()
                z = pyro.sample(f"z{layer}", dist.Normal(mean, sd).to_event(1))
