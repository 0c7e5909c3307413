"""Guide of categorical latents: a network gives the probabilities of every row's latents.

    l_1, ..., l_L = encoder((x - loc) / scale)    (states,) each; x: (features,), data's units
    z_i ~ Categorical(softmax(l_i))               z: (latents, states), one-hot

The latents are drawn, and the gradient is estimated by the score function; or they are enumerated,
all states^latents configurations of them, and the gradient is exact.

Source: Mnih & Gregor (2014), arXiv:1402.0030 (score function, baselines); Obermeyer et al. (2019),
arXiv:1902.03210 (enumeration).
"""

from collections.abc import Sequence
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import CategoricalVector
from ppl_vae.nn import Standardize, check_sizes, make_encoder


class CategoricalGuide(PyroModule):
    """q(z given x). Plate "data"; latent site "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        latents: Number of latents, as in the model.
        states: Number of values of each latent, 3 or more, as in the model.
        encoder: Network (..., features) -> (..., latents * states) that gives the logits; it reads
            rows of about unit size. One hidden layer for vectors, convolutions for images, if
            ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.
        enumerated: Whether the latents are summed over all configurations instead of drawn.
        baseline: Network (..., features) -> (..., 1) that predicts a row's bound where the latents
            are drawn: the score function's gradient gets less noisy.

    Example:
        >>> import torch
        >>> guide = CategoricalGuide(features=16, latents=2, states=3)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self, features: int | Sequence[int], latents: int = 8, states: int = 3,
        encoder: nn.Module | None = None, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
        enumerated: bool = False, baseline: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, states=states)
        if states < 3:
            raise ValueError(f"states: expected 3 or more, got {states}; use BernoulliGuide for 2")
        self.features, self.latents, self.states = features, latents, states
        self.enumerated, self.baseline = enumerated, baseline
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, latents * states)

    def forward(self, x: Tensor) -> None:
        """Draw codes for rows x, (rows, features), in the data's units."""
        x = self.standardize(x)
        logits = self.encoder(x).unflatten(-1, (self.latents, self.states))
        infer: Any = {"enumerate": "parallel"} if self.enumerated else {}
        if self.baseline is not None and not self.enumerated:
            squeezed = lambda rows: self.baseline(rows).squeeze(-1)  # noqa: E731
            infer = {"baseline": {"nn_baseline": squeezed, "nn_baseline_input": x}}
        with pyro.plate("data", len(x)):
            pyro.sample("z", CategoricalVector(logits), infer=infer)
