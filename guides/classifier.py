"""Guide of a label and a code: a network classifies the rows whose label is not known.

    c = classifier((x - loc) / scale)              (classes,); x: (features,), data's units
    y ~ Categorical(softmax(c))                    summed out; where the row has a label, that one
    h = encoder((x - loc) / scale)                 h: (hidden,)
    m, v = joint(tanh(h), y)                       (latents,) each
    z ~ Normal(m, exp(v / 2))                      z: (latents,)
    + weight log softmax(c)[label]                 in each row that has one, in training alone

The last line, a site of its own, teaches the classifier by the labels: the ELBO of a row whose
label is known does not read it. It is no part of the ELBO, in training neither.

Source: Kingma et al. (2014), section 3, arXiv:1406.5298; its weight is 0.1 rows / labels.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import Taught
from ppl_vae.nn import MLP, Standardize, beside, check_sizes, make_encoder, seen_labels


class ClassifierGuide(PyroModule):
    """q(y, z given x, label). Plate "data"; latent sites "y", "z"; site "classifier".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Size of the latent code z, as in the model.
        classes: Number of labels, as in the model.
        weight: Weight of a labelled row's term for the classifier; at least 0.
        hidden: Size of h, and of the hidden layer that reads h and y.
        classifier: Network (..., features) -> (..., classes) that gives the logits of the labels;
            one hidden layer for vectors, convolutions for images, if ``None``.
        encoder: Network (..., features) -> (..., hidden), likewise.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> guide = ClassifierGuide(features=16, latents=2, classes=3)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(2, 16), torch.tensor([2, -1]))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([2, 2])
    """

    def __init__(
        self, features: int | Sequence[int], latents: int = 8, classes: int = 2,
        weight: float = 50.0, hidden: int = 64, classifier: nn.Module | None = None,
        encoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, classes=classes, hidden=(hidden,))
        self.features, self.latents, self.classes = features, latents, classes
        self.weight = weight
        self.standardize = Standardize(loc, scale)
        self.classifier = classifier or make_encoder(features, classes)
        self.encoder = encoder or make_encoder(features, hidden)
        self.joint = MLP(hidden + classes, 2 * latents, (hidden,))

    def forward(self, x: Tensor, y: Tensor) -> None:
        """Draw label and code of rows x, (rows, features); y: (rows,), -1 or NaN for no label."""
        x = self.standardize(x)
        label, seen = seen_labels(y)
        logits = self.classifier(x)  # (rows, classes)
        known = nn.functional.one_hot(label, self.classes)
        with pyro.plate("data", len(x)):
            taught = Taught(dist.Categorical(logits=logits).mask(seen), self.weight)
            pyro.sample("classifier", taught, obs=label, infer={"is_auxiliary": True})
            q = dist.Categorical(logits=torch.where(seen[:, None], -100.0 * (1.0 - known), logits))
            drawn = pyro.sample("y", q, infer={"enumerate": "parallel"})
            given = beside(self.encoder(x).tanh(), nn.functional.one_hot(drawn, self.classes))
            mean, log_variance = self.joint(given).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
