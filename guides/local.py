"""Guide without amortization: a mean and a variance for every row, found by the row's index.

    m_i, v_i                         (latents,) each: parameters of row i, of N rows
    z ~ Normal(m_i, exp(v_i / 2))    z: (latents,)

No network stands between a row and its posterior, so that no row pays for the answers to others;
and a row that was not fitted has no answer. ``refine(model, None, data)`` fits new rows, with the
model as it is. Rows that were not fitted, held-out ones too, are refused, and so are other rows at
the same indices: pass all rows to ``fit``, without ``validation=``.

Source: Jordan et al. (1999), section 4, Machine Learning 37 (variational parameters of each row);
Hoffman et al. (2013), section 2, arXiv:1206.7051.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.nn import KnownRows, check_sizes


class LocalGuide(PyroModule):
    """q(z given row i). Plate "data"; latent site "z"; field "index" is given: 0 to N - 1.

    Args:
        rows: N, the number of rows that the guide is fitted to.
        latents: Size of the latent code z, as in the model.

    Example:
        >>> guide = LocalGuide(rows=10, latents=2)
        >>> trace = pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16), torch.arange(5))
        >>> trace.nodes["z"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(self, rows: int, latents: int = 8) -> None:
        super().__init__()
        check_sizes(rows=rows, latents=latents)
        self.latents = latents
        self.mean = nn.Parameter(torch.zeros(rows, latents))
        self.log_variance = nn.Parameter(torch.zeros(rows, latents))
        self.known = KnownRows(rows)

    def forward(self, x: Tensor, index: Tensor) -> None:
        """Draw codes for rows x, (rows, features), at their indices in the data, (rows,)."""
        known = self.known(index, x)[:, None]
        mean = torch.where(known, self.mean[index], torch.nan)  # (rows, latents)
        sd = (self.log_variance[index] / 2).exp()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, sd).to_event(1))
