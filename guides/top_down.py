"""Top-down guide for layers of codes: what the row says meets the prior given the layer above.

    d_1 = tanh(encoder((x - loc) / scale)), d_l = tanh(A_l d_(l-1) + a_l)   upwards, (hidden,)
    m_l, v_l = B_l d_l + b_l                      (latents_l,) each: what the row says of z_l
    p_l, s_l = the model's mean and standard deviation of z_l given z_(l+1)
    z_L ~ Normal(m_L, exp(v_L / 2))               z_l: (latents_l,), downwards from the top
    z_l ~ Normal(p_l / t_l + m_l s_l / sqrt(t_l), s_l / sqrt(t_l)),  t_l = 1 + exp(v_l)

The last line is the prior times a Gaussian factor of the row, given by the precision that it adds,
exp(v_l) prior precisions, and by how far it moves the mean, m_l, in standard deviations of the
product. A factor given by its own mean and variance has no say while it is vague, and may stay so.
The networks of the model are trained through both halves.

Source: Sønderby et al. (2016), section 2, arXiv:1602.02282.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.nn import Standardize, check_sizes, make_encoder


class TopDownGuide(PyroModule):
    """q(z_1, ..., z_L given x). Plate "data"; latent sites "z1", "z2", ....

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        model: The partner, a ``HierarchicalModel`` or a model with its ``latents``, the sizes of
            the layers, and its ``given_above``, which gives p_l and 2 log s_l.
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
        self, features: int | Sequence[int], model: Any, hidden: int = 64,
        encoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not hasattr(model, "given_above"):
            raise ValueError(f"model: expected layers as of HierarchicalModel, got {type(model)}")
        check_sizes(hidden=(hidden,))
        self.features, self.model = features, model
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, hidden)
        self.upwards = nn.ModuleList(nn.Linear(hidden, hidden) for _ in pairwise(model.latents))
        self.evidence = nn.ModuleList(nn.Linear(hidden, 2 * size) for size in model.latents)

    def forward(self, x: Tensor) -> None:
        """Draw the codes of rows x, (rows, features), in the data's units, from the top down."""
        layers, z = [self.encoder(self.standardize(x)).tanh()], None  # (rows, hidden) each
        for upwards in self.upwards:
            layers.append(upwards(layers[-1]).tanh())
        with pyro.plate("data", len(x)):
            for layer in range(len(layers), 0, -1):
                m, v = self.evidence[layer - 1](layers[layer - 1]).chunk(2, -1)
                if z is None:
                    mean, log_sd = m, v / 2
                else:
                    prior_mean, prior_log_variance = self.model.given_above(layer, z)
                    log_t = softplus(v)
                    log_sd = (prior_log_variance - log_t) / 2
                    mean = prior_mean * (-log_t).exp() + m * log_sd.exp()
                z = pyro.sample(f"z{layer}", dist.Normal(mean, log_sd.exp()).to_event(1))
