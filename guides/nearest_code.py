"""Nearest code."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Standardize, make_encoder, nearest_code


class NearestCodeGuide(PyroModule):
    def __init__(
        self, features: int | Sequence[int], model: Any, encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.model = features, model
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(features, model.positions * model.size)

    def forward(self, x: Tensor) -> None:
        e = self.encoder(self.standardize(x))
        z = e.unflatten(-1, (self.model.positions, self.model.size))
        z = z * (z.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Delta(nearest_code(z, self.model.codebook), event_dim=1))
            pyro.sample("z", dist.Delta(z, event_dim=2))
