"""Real features of which some rows have a label: the label is latent in the others.

    y ~ Categorical(softmax(logits))                             y: 0 ... classes - 1
    z ~ Normal(0, I)                                             z: (latents,)
    label ~ the category y, but for e^-100                       observed where the row has one
    m, v = decoder(z, y)                                         (features,) each, no units
    x ~ Normal(loc + scale m, sqrt(scale^2 exp(v) + floor^2))    x: (features,), data's units

The logits are learned. The decoder reads code and indicators of the label as one vector, so that
rows may be images. The field ``y`` holds labels, and -1 or NaN where there is none.

Rows: vectors or images of real numbers, of which some have a label.

Source: Kingma et al. (2014), section 2, model M2, arXiv:1406.5298.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import Label
from ppl_vae.nn import beside, check_sizes, expanded, make_decoder, seen_labels

NEVER = -100.0  # log-probability, finite: times a probability of 0 it is 0


class SemisupervisedGaussianModel(PyroModule):
    """p(x, label, y, z). Plate "data"; latent sites "y", "z"; observed sites "label", "x".

    Its guide is ``guides/classifier.py``, which sums the label out. Without the floor, the density
    of a feature that the decoder predicts exactly grows without bound.

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z.
        classes: Number of labels.
        decoder: Network (..., latents + classes) -> (..., 2 features) that gives m and v, for
            images on the channels; one hidden layer for vectors, convolutions, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.
        floor: Lower bound of the standard deviation, as ``loc``; ``0.1 * scale`` if ``None``.

    Example:
        >>> model = SemisupervisedGaussianModel(features=16, latents=2, classes=3)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(2, 16), torch.tensor([2, -1]))
        >>> trace.nodes["label"]["value"]
        tensor([ 2, -1])
    """

    def __init__(
        self, features: int | Sequence[int], latents: int = 8, classes: int = 2,
        decoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
        floor: float | Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, classes=classes)
        self.features, self.latents, self.classes = features, latents, classes
        self.prior_logits = nn.Parameter(torch.zeros(classes))
        self.decoder = decoder or make_decoder(latents + classes, features, heads=2)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        floor = 0.1 * self.scale if floor is None else floor
        self.register_buffer("floor", expanded("floor", floor, features, least=0))

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Score rows x, (rows, features), and their labels y, (rows,), where they have one."""
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            drawn = pyro.sample("y", dist.Categorical(logits=self.prior_logits))
            one_hot = nn.functional.one_hot(drawn, self.classes)  # (..., rows, classes)
            pyro.sample("label", Label(NEVER * (1.0 - one_hot)).mask(seen_labels(y)[1]), obs=y)
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            mean, log_variance = self.decoder(beside(z, one_hot)).chunk(2, 1 - x.dim())
            sd = (self.scale**2 * log_variance.exp() + self.floor**2).sqrt()
            each = dist.Normal(self.loc + self.scale * mean, sd)
            pyro.sample("x", each.to_event(x.dim() - 1), obs=x)
