"""Mean-field guide: a normal for every number that all rows share, a network for each row's code.

    w ~ Normal(a, b)                     each shared number of its own; a and b are parameters
    m, v = encoder((x - loc) / scale)    (latents,) each; x: (features,), data's units
    z ~ Normal(m, exp(v / 2))            z: (latents,)

The shared latents are the model's sites outside the plate, such as the weights of a Bayesian
decoder. They are found by running the model on the first batch, and begin at a draw of their prior,
as the weights of a network do. A shared latent with bounds is the normal's, mapped into them.

Source: Blundell et al. (2015), section 3.2, arXiv:1505.05424; Kingma & Welling (2014), appendix F,
arXiv:1312.6114.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoNormal, init_to_sample
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Standardize, check_sizes, make_encoder


class MeanFieldGuide(PyroModule):
    """q(w) q(z given x). Plate "data"; in it "z", outside it every latent that the model has there.

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        model: The model that the guide is fitted with, such as ``BayesianDecoderModel``.
        latents: Size of the latent code z, as in the model.
        encoder: Network (..., features) -> (..., 2 latents) that gives m and v, the mean and the
            log-variance; it reads rows of about unit size. One hidden layer for vectors,
            convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> import torch
        >>> from ppl_vae.models.bayesian_decoder import BayesianDecoderModel
        >>> guide = MeanFieldGuide(4, BayesianDecoderModel(4, latents=2), latents=2)
        >>> trace = poutine.trace(guide).get_trace(torch.zeros(5, 4))
        >>> trace.nodes["weights1"]["value"].shape, trace.nodes["z"]["value"].shape
        (torch.Size([4, 3]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        features: int | Sequence[int],
        model: Callable[..., Any],
        latents: int = 8,
        encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(latents=latents)
        self.features, self.latents = features, latents
        shared = poutine.block(model, _of_rows)
        self.shared = AutoNormal(shared, init_loc_fn=init_to_sample, init_scale=0.01)
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, 2 * latents)

    def forward(self, x: Tensor, *others: Tensor, **fields: Tensor) -> None:
        """Draw shared latents, and codes for rows x, (rows, features), in the data's units."""
        if not self.shared(x, *others, **fields):
            raise ValueError(
                'model: expected a latent outside the plate "data", got none; use guides/normal.py'
            )
        mean, log_variance = self.encoder(self.standardize(x)).chunk(2, -1)  # (rows, latents) each
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))


def _of_rows(site: Any) -> bool:
    """Return whether a site is observed or stands in the row plate: no latent that rows share."""
    return site["is_observed"] or any(f.name == "data" for f in site["cond_indep_stack"])
