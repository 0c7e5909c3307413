"""Binary features given a label or covariates: the code holds what the condition does not say.

    z ~ Normal(0, I)                                z: (latents,)
    x ~ Bernoulli(logits=decoder(z, y))             x: (features,), each 0 or 1; y: (conditions,)

A label is an integer 0, 1, ..., conditions - 1 and enters as one of so many indicators; covariates
are (conditions,) floats of about unit size. The decoder reads code and condition as one vector, so
that rows may be images. Rows of one condition come from
``generate(model, guide, data, given={"y": y})``.

Rows: vectors or images of 0 and 1, each with a label or covariates y.

Source: Kingma et al. (2014), section 2, model M2, arXiv:1406.5298; Sohn, Lee & Yan (2015),
section 4.1, Advances in Neural Information Processing Systems 28, with a prior free of y.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Condition, check_sizes, make_decoder


class ConditionalModel(PyroModule):
    """p(x, z given y). Plate "data"; latent site "z"; observed site "x"; field "y" is given.

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        conditions: Number of labels, or of covariates.
        decoder: Network (..., latents + conditions) -> (..., features) that gives the logit of
            each feature; one hidden layer for vectors, convolutions for images, if ``None``.

    Example:
        >>> model = ConditionalModel(features=16, latents=2, conditions=3)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(2, 16), torch.tensor([0, 2]))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int = 8,
        conditions: int = 2,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents, conditions=conditions)
        self.features, self.latents, self.conditions = features, latents, conditions
        self.condition = Condition(conditions)
        self.decoder = decoder or make_decoder(latents + conditions, features)

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Score rows x, (rows, features), given y: labels (rows,), or (rows, conditions)."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            logits = self.decoder(self.condition(z, y))  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
