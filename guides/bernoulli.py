"""Guide of binary latents: networks give the probabilities of every row's latents, upwards.

    z_1 ~ Bernoulli(sigmoid(encoder((x - loc) / scale)))    z_1: (latents[0],), each 0 or 1
    z_l ~ Bernoulli(sigmoid(A_l z_(l-1) + a_l))             z_l: (latents[l - 1],)

The latents are drawn, and the gradient is estimated by the score function; or they are enumerated,
all 2^latents configurations of them, and the gradient is exact.

Source: Mnih & Gregor (2014), arXiv:1402.0030 (score function, baselines); Obermeyer et al. (2019),
arXiv:1902.03210 (enumeration).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import BernoulliVector
from ppl_vae.nn import Standardize, check_sizes, make_encoder


class BernoulliGuide(PyroModule):
    """q(z_1, ..., z_L given x). Plate "data"; latent sites "z1", "z2", ..., or "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Number of latents at site "z"; or the sizes of several layers, as in the model.
        encoder: Network (..., features) -> (..., latents[0]) that gives the first layer's logits;
            it reads rows of about unit size. One hidden layer for vectors, convolutions for images,
            if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.
        enumerated: Whether the latents are summed over all configurations instead of drawn.
        baseline: Network (..., features) -> (..., 1) that predicts a row's bound where the latents
            are drawn: the score function's gradient gets less noisy.

    Example:
        >>> import torch
        >>> guide = BernoulliGuide(features=16, latents=(4, 2))
        >>> pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16)).nodes["z2"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int | Sequence[int], latents: int | Sequence[int] = 8,
        encoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
        enumerated: bool = False, baseline: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = tuple(latents) if isinstance(latents, Sequence) else (latents,)
        for size in sizes or (0,):
            check_sizes(latents=size)
        self.features, self.latents = features, latents
        self.enumerated, self.baseline = enumerated, baseline
        self.names = ["z"] if len(sizes) == 1 else [f"z{i}" for i in range(1, len(sizes) + 1)]
        self.standardize = Standardize(loc, scale)
        upwards = [nn.Linear(below, above) for below, above in pairwise(sizes)]
        self.layers = nn.ModuleList([encoder or make_encoder(features, sizes[0]), *upwards])

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        below = x = self.standardize(x)
        infer: Any = {"enumerate": "parallel"} if self.enumerated else {}
        if self.baseline is not None and not self.enumerated:
            squeezed = lambda rows: self.baseline(rows).squeeze(-1)  # noqa: E731
            infer = {"baseline": {"nn_baseline": squeezed, "nn_baseline_input": x}}
        with pyro.plate("data", len(x)):
            for name, layer in zip(self.names, self.layers, strict=True):
                below = pyro.sample(name, BernoulliVector(layer(below)), infer=infer.copy())
