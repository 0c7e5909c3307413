"""Guide of rows with missing cells: a code from the cells that are there, and the model's cells.

    r = (x - loc) / scale where seen, else 0    r: (features,); x: data's units
    m, v = encoder(r, seen)                     (latents,) each
    z ~ Normal(m, exp(v / 2))                   z: (latents,)
    missing ~ p(x given z)                      of the model, in the cells that are missing

The density of the missing cells stands above and below the fraction of an importance weight, so
that it cancels: a weight tells how well the code explains what was observed.

Source: Ipsen, Mattei & Frellsen (2021), section 3.1, arXiv:2006.12871 (not-MIWAE).
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import Standardize, check_sizes, make_encoder


class MissingCellsGuide(PyroModule):
    """q(z, missing given x, seen). Plate "data"; latent sites "z" and "missing".

    Args:
        features: Number of features in a row.
        model: The partner, a ``NotMissingAtRandomModel`` or a model with its ``latents``, the size
            of the code, and its ``cells``, which gives p(x given z) cell by cell.
        encoder: Network (..., 2 features) -> (..., 2 latents) that reads r and seen side by side
            and gives m and v; one hidden layer if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> from ppl_vae.models.not_missing_at_random import NotMissingAtRandomModel
        >>> guide = MissingCellsGuide(3, NotMissingAtRandomModel(3, latents=2))
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 3), torch.eye(5, 3))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int, model: Any, encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features)
        if not (hasattr(model, "cells") and hasattr(model, "latents")):
            need = "expected the cells and latents of NotMissingAtRandomModel"
            raise ValueError(f"model: {need}, got {type(model).__name__}")
        self.features, self.model = features, model
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_encoder(2 * features, 2 * model.latents)

    def forward(self, x: Tensor, seen: Tensor) -> None:
        """Draw codes and missing cells of rows x, (rows, features), in the data's units."""
        there = seen.bool()
        read = torch.where(there, self.standardize(x), 0.0)  # NaN where cells are missing
        mean, log_variance = self.encoder(torch.cat([read, there.to(read.dtype)], -1)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
            pyro.sample("missing", self.model.cells(z).mask(~there).to_event(1))
