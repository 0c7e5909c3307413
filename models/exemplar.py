"""Real features from a code whose prior stands around the codes of some rows of the data.

    c_k = mean of q(z given e_k)                   e_k: (features,), an exemplar: a row of the data
    p(z) = 1/K sum_k Normal(z; c_k, s)             s: (latents,), learned, one for all exemplars
    x ~ Normal(loc + scale decoder(z), sd scale)   x: (features,), data's units

A prior of one normal gives probability to the holes between clusters; this one has none where no
exemplar is near. The noise sd is fixed, a bandwidth: a learned one would become so small in
features that hold one value in most rows that these alone decide log p(x). So log p(x) is smooth,
and says how strange a row is. The model has its guide as a partner, as the VampPrior has.

Rows: vectors of real numbers, for anomaly detection.

Source: Norouzi, Fleet & Norouzi (2020), Exemplar VAE, section 3, arXiv:2004.04795.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.distributions import MixtureSameFamily, code_distribution
from ppl_vae.nn import MLP, check_reads_rows, check_sizes, expanded


class ExemplarModel(PyroModule):
    """p(x, z). Plate "data"; latent site "z"; observed site "x".

    Args:
        features: Number of features in a row.
        guide: The guide that the model is fitted with, a module whose latent site is "z".
        exemplars: Rows of the data, (K, features), in the data's units.
        latents: Size of the latent code z, as in the guide.
        decoder: Network (..., latents) -> (..., features) that gives the mean without units; two
            hidden layers if ``None``.
        sd: Standard deviation of the noise without units.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a number or (features,), in the data's units.

    Example:
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> model = ExemplarModel(3, NormalGuide(3, 2), torch.randn(20, 3), latents=2)
        >>> model.prior().sample((5,)).shape
        torch.Size([5, 2])
    """

    exemplars: Tensor
    loc: Tensor
    scale: Tensor
    sd: Tensor

    def __init__(
        self, features: int, guide: nn.Module, exemplars: Tensor, latents: int = 8,
        decoder: nn.Module | None = None, sd: float = 0.2, loc: float | Tensor = 0.0,
        scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_reads_rows(guide)
        check_sizes(latents=latents)
        self.features, self.latents, self.guide = features, latents, guide
        self.decoder = decoder or MLP(latents, features, (128, 128))
        self.log_spread = nn.Parameter(torch.full((latents,), -1.0))
        self.register_buffer("exemplars", exemplars)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))
        self.register_buffer("sd", sd * self.scale)

    def prior(self) -> MixtureSameFamily:
        """Return p(z) of one row. Call it outside the row plate, which the guide opens, too."""
        with poutine.block(expose_types=["param"]):
            trace = poutine.trace(self.guide).get_trace(self.exemplars)
        centers = code_distribution(trace, self.latents).mean  # (exemplars, latents)
        each = dist.Normal(centers, self.log_spread.exp()).to_event(1)
        equal = dist.Categorical(logits=centers.new_zeros(len(centers)))
        return MixtureSameFamily(equal, each)

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        x, prior = x.to(torch.get_default_dtype()), self.prior()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            mean = self.loc + self.scale * self.decoder(z)  # (..., rows, features)
            pyro.sample("x", dist.Normal(mean, self.sd).to_event(1), obs=x)
