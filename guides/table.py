"""Diagonal normal guide for tables: a network reads the cells that are there, and which they are.

    h = numbers and indicators of the cells that are seen, 0 for the others; and seen itself
    m, v = encoder(h, y)          (latents,) each
    z ~ Normal(m, exp(v / 2))     z: (latents,); Normal(0, 1) for a row of which nothing is seen

While it is trained, the encoder is shown only a part of the cells that are there, a random share of
them for each row, so that it learns rows with any gaps, those that the data do not have as well.

Source: Mattei & Frellsen (2019), MIWAE, section 3, arXiv:1812.02633; Ma et al. (2019), EDDI,
section 3.2 (parts of the cells at random), arXiv:1809.11142.
"""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import MLP, TableInputs, cells_there, check_sizes, with_covariates


class TableGuide(PyroModule):
    """q(z given x, seen). Plate "data"; latent site "z".

    Args:
        columns: The columns, as ``build`` reads them from a table (``ppl_vae.nn.column_groups``).
        latents: Size of the latent code z, as in the model.
        hidden: Sizes of the encoder's hidden layers.
        conditions: Number of covariates, the field y; 0 for none.
        hide: The largest share of cells that is hidden in training; 0 hides none.
        encoder: Network (..., numbers + conditions) -> (..., 2 latents) that gives m and v.

    Example:
        >>> real = {"kind": "real", "loc": 0.0, "scale": 1.0, "categories": 0, "atoms": []}
        >>> guide = TableGuide([real, real], latents=2)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.tensor([[0.5, torch.nan]]))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([1, 2])
    """

    def __init__(
        self, columns: Sequence[Any], latents: int = 8, hidden: Sequence[int] = (128,),
        conditions: int = 0, hide: float = 0.0, encoder: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, hidden=hidden, conditions=conditions or 1)
        if isinstance(hide, bool) or not isinstance(hide, int | float) or not 0 <= hide <= 1:
            raise ValueError(f"hide: expected a share of the cells, from 0 to 1, got {hide!r}")
        self.inputs = TableInputs(columns)
        self.latents, self.conditions, self.columns = latents, conditions, len(columns)
        self.hide = hide
        self.encoder = encoder or MLP(self.inputs.size + conditions, 2 * latents, hidden)

    def forward(self, x: Tensor, seen: Tensor | None = None, y: Tensor | None = None) -> None:
        """Draw codes for rows x, (rows, columns), of which some cells are seen."""
        x, seen = cells_there(x, seen, self.columns)
        if self.training and self.hide:
            share = self.hide * torch.rand_like(x[:, :1])
            seen = seen & (torch.rand_like(x) >= share)
        read = self.inputs(x, seen)
        numbers = self.encoder(with_covariates(read, y, self.conditions))
        # Where nothing is seen of a row, its posterior is the prior, whatever its covariates.
        mean, log_variance = (numbers * seen.any(-1, keepdim=True)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, (log_variance / 2).exp()).to_event(1))
