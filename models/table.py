"""Rows of columns of mixed kinds from one Gaussian code: a likelihood for each kind, with gaps.

    z ~ Normal(0, I)                        z: (latents,)
    numbers = decoder(z, y)                 for each column as many as its likelihood takes
    x_d ~ LIKELIHOODS[kind of d](numbers)   in the data's units; masked where the cell is missing

One site a kind, with its columns side by side. Values that repeat far more often than those beside
them, the atoms, have probabilities of their own. A new likelihood is a line of LIKELIHOODS.

Rows: tables of numbers, counts, categories and dates with gaps, read by ``ppl_vae.table``.

Source: Nazabal et al. (2020), section 2, arXiv:1807.03653; Mattei & Frellsen (2019), section 2 (the
mask), arXiv:1812.02633.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import PaddedCategorical, WholeLogistic
from ppl_vae.nn import MLP, cells_there, check_sizes, column_groups, with_covariates

# For each kind: the numbers that a column takes (0: a logit a category), and what they make.
LIKELIHOODS: Mapping[str, tuple[int, Any]] = {
    "real": (2, lambda c, m, v: dist.Normal(c.loc + c.scale * m, c.deviation(v))),
    "positive": (2, lambda c, m, v: dist.LogNormal(c.loc + c.scale * m, c.deviation(v))),
    "count": (2, lambda c, m, v: WholeLogistic(c.loc + c.scale * m, c.scale * v.exp() + 0.05)),
    "binary": (1, lambda c, logit: dist.Bernoulli(logits=logit)),
    "categorical": (0, lambda c, logits: PaddedCategorical(logits=logits)),
    "ordinal": (1, lambda c, m: PaddedCategorical(logits=c.ordered_logits(m))),
}  # fmt: skip


class TableModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; an observed site for each kind of column.

    Args:
        columns: The columns, as ``build`` reads them from a table (``ppl_vae.nn.column_groups``).
        latents: Size of the latent code z.
        hidden: Sizes of the decoder's hidden layers.
        conditions: Number of covariates y.
        decoder: Network (..., latents + conditions) -> (..., numbers of all kinds).

    Example:
        >>> real = {"kind": "real", "loc": 0.0, "scale": 1.0, "categories": 0, "atoms": []}
        >>> model = TableModel([real, real], latents=2)
        >>> trace = pyro.poutine.trace(model).get_trace(torch.tensor([[0.5, torch.nan]]))
        >>> trace.nodes["real"]["fn"].mean.shape
        torch.Size([1, 2])
    """

    def __init__(
        self, columns: Sequence[Any], latents: int = 8, hidden: Sequence[int] = (128,),
        conditions: int = 0, decoder: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(latents=latents, hidden=hidden, conditions=conditions or 1)
        groups = column_groups(columns, LIKELIHOODS)
        self.latents, self.conditions, self.columns = latents, conditions, len(columns)
        self.groups: Any = nn.ModuleList(groups)
        self.sizes = [group.outputs(LIKELIHOODS[group.kind][0]) for group in groups]
        self.decoder = decoder or MLP(latents + conditions, sum(self.sizes), hidden)

    def forward(self, x: Tensor, seen: Tensor | None = None, y: Tensor | None = None) -> None:
        """Score rows x, (rows, columns), where cells are seen."""
        x, seen = cells_there(x, seen, self.columns)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            given = with_covariates(z, y, self.conditions)
            parts = self.decoder(given).split(self.sizes, -1)
            for group, part in zip(self.groups, parts, strict=True):
                numbers, likelihood = LIKELIHOODS[group.kind]
                each = likelihood(group, *group.parameters_of(part, numbers))
                each = group.with_atoms(each, part).mask(seen[:, group.columns])
                pyro.sample(group.kind, each.to_event(1), obs=x[:, group.columns])
