"""Binary features from a code whose prior is the guide's answer to learned pseudo-inputs.

    p(z) = 1/K sum_k q(z given u_k)      u_k: (features,), learned, between 0 and 1
    x ~ Bernoulli(logits=decoder(z))     x: (features,), each 0 or 1

The best prior for the ELBO is the mean of q(z given x) over the data. The VampPrior takes K
learned rows, the pseudo-inputs, in place of the data. So the model has its guide as a partner, and
the guide's parameters are trained through the prior as well. The model runs the guide on the
pseudo-inputs alone: the guide's sample statements are no sites of the model.

Rows: vectors or images of 0 and 1.

Source: Tomczak & Welling (2018), section 3, arXiv:1705.07120.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import MixtureSameFamily, code_distribution
from ppl_vae.nn import check_reads_rows, check_sizes, expanded, make_decoder


class VampPriorModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        guide: The guide that the model is fitted with, a module whose latent site is "z"; of a
            denoising guide the guide inside, so that no pseudo-input is corrupted.
        latents: Size of the latent code z, as in the guide.
        pseudo_inputs: Number K of pseudo-inputs.
        decoder: Network (..., latents) -> (..., features) that gives the logit of each feature;
            one hidden layer for vectors, convolutions for images, if ``None``.
        loc: Mean of each feature, a number or (features,): where the pseudo-inputs begin.

    Example:
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> model = VampPriorModel(16, NormalGuide(16, 2), latents=2, pseudo_inputs=3)
        >>> model.prior().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int | Sequence[int], guide: nn.Module, latents: int = 8,
        pseudo_inputs: int = 100, decoder: nn.Module | None = None, loc: float | Tensor = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(guide, nn.Module):
            raise ValueError(f"guide: expected a module with a site z, got {type(guide).__name__}")
        check_reads_rows(guide)
        check_sizes(latents=latents, pseudo_inputs=pseudo_inputs)
        self.features, self.latents, self.guide = features, latents, guide
        self.decoder = decoder or make_decoder(latents, features)
        start = expanded("loc", loc, features).clamp(0.02, 0.98).logit()
        self.pseudo_logits = nn.Parameter(start + torch.randn(pseudo_inputs, *start.shape))

    def prior(self) -> MixtureSameFamily:
        """Return p(z) of one row. Call it outside the row plate, which the guide opens, too."""
        with poutine.block(expose_types=["param"]):
            trace = poutine.trace(self.guide).get_trace(self.pseudo_logits.sigmoid())
        each = code_distribution(trace, self.latents)  # batch (pseudo_inputs,), event (latents,)
        equal = dist.Categorical(logits=self.pseudo_logits.new_zeros(len(self.pseudo_logits)))
        return MixtureSameFamily(equal, each)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), of any dtype that holds 0 and 1."""
        x, prior = x.to(torch.get_default_dtype()), self.prior()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            logits = self.decoder(z)  # (..., rows, features): particles lead
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)
