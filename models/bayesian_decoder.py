"""Real features from a Gaussian code through a decoder whose weights are random, with a prior.

    W_i ~ Normal(0, columns^(-1/2))                          W_i: (outputs, columns)
    z ~ Normal(0, I)                                         z: (latents,)
    h_0 = z,  h_i = tanh(W_i [h_(i-1), 1])                   h_i: (hidden_i,), i = 1, ..., n - 1
    x ~ Normal(loc + scale W_n [h_(n-1), 1], scale sigma)    x: (features,), data's units

The last column of W_i is the bias. The weights stand outside the plate: all rows tell about them
together. ``guides/mean_field.py`` is the guide. Without hidden layers this is a Bayesian PCA.

Rows: vectors of real numbers, few enough of them that the decoder itself is uncertain.

Source: Bishop (1999), Bayesian PCA, section 3; layers: Blundell et al. (2015), arXiv:1505.05424.
"""

from collections.abc import Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import check_sizes, expanded


class BayesianDecoderModel(PyroModule):
    """p(x, z, W). Plate "data"; latent sites "weights1", ... and, in it, "z"; observed site "x".

    Args:
        features: Number of features in a row.
        latents: Size of the latent code z.
        hidden: Sizes of the hidden layers; ``()`` makes the decoder linear.
        sigma: Standard deviation of the noise by ``scale``, a positive number; learned if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> import torch
        >>> model = BayesianDecoderModel(features=3, latents=2, hidden=(5,))
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(10, 3))
        >>> trace.nodes["weights2"]["value"].shape
        torch.Size([3, 6])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self, features: int, latents: int = 8, hidden: Sequence[int] = (),
        sigma: float | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, latents=latents, hidden=hidden)
        self.features, self.latents = features, latents
        self.sizes = (latents, *hidden, features)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        start = expanded("sigma", 1.0 if sigma is None else sigma, (), positive=True).log()
        self.log_sigma = nn.Parameter(start, requires_grad=sigma is None)

    def forward(self, x: Tensor) -> None:
        """Draw weights and codes and score rows x, (rows, features), in the data's units."""
        layers = []
        for i, (inputs, outputs) in enumerate(pairwise(self.sizes), 1):
            zeros = self.loc.new_zeros(outputs, inputs + 1)
            w = pyro.sample(f"weights{i}", dist.Normal(zeros, (inputs + 1) ** -0.5).to_event(2))
            layers.append(w.reshape(*w.shape[:-3], *w.shape[-2:]))  # particles: (..., 1, *zeros)
        with pyro.plate("data", len(x)):
            h = pyro.sample("z", dist.Normal(self.loc.new_zeros(self.latents), 1.0).to_event(1))
            for w in layers[:-1]:
                h = _linear(w, h).tanh()
            loc = self.loc + self.scale * _linear(layers[-1], h)
            noise = self.scale * self.log_sigma.exp()
            pyro.sample("x", dist.Normal(loc, noise).to_event(1), obs=x.to(self.loc.dtype))


def _linear(w: Tensor, h: Tensor) -> Tensor:
    """Return W [h, 1] of every row at once; W: (..., outputs, columns), h: (..., rows, inputs)."""
    return h @ w[..., :-1].mT + w[..., None, :, -1]
