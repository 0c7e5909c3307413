"""Real features from a few vectors of a codebook: the vector-quantized autoencoder (VQ-VAE).

    k_i ~ p(k_i given k_0 ... k_(i-1))           k: (positions,), each 0 ... codes - 1
    z_i ~ Normal(c_(k_i), spread)                z: (positions, size);  c: (codes, size), learned
    x ~ Normal(loc + scale decoder(c_k), sigma scale)        x: (features,), data's units
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ppl_vae.distributions import AutoregressiveCategorical
from ppl_vae.nn import CodeLogits, check_sizes, expanded, make_decoder, straight_through


class VectorQuantizedModel(PyroModule):
    loc: Tensor
    scale: Tensor

    def __init__(
        self, features: int | Sequence[int], positions: int = 8, codes: int = 64, size: int = 8,
        decoder: nn.Module | None = None, prior: nn.Module | None = None, sigma: float = 0.5,
        code_sigma: float = 0.5, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(positions=positions, codes=codes, size=size)
        self.features, self.positions, self.codes, self.size = features, positions, codes, size
        self.sigma, self.code_sigma = sigma, code_sigma
        self.codebook = nn.Parameter(torch.randn(codes, size))
        self.decoder = decoder or make_decoder(positions * size, features)
        self.prior = (prior or CodeLogits(positions, codes)).requires_grad_(False)
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))

    def forward(self, x: Tensor) -> None:
        x = x.to(torch.get_default_dtype())
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", AutoregressiveCategorical(self.prior, self.positions, self.codes))
            code = self.codebook[k]  # (..., rows, positions, size): particles lead
            z = pyro.sample("z", dist.Normal(code, self.code_sigma).to_event(2))
            mean = self.loc + self.scale * self.decoder(straight_through(code, z).flatten(-2))
            each = dist.Normal(mean, self.sigma * self.scale)
            pyro.sample("x", each.to_event(x.dim() - 1), obs=x)

    @pyro_method
    def code_prior(self, k: Tensor) -> None:
        with pyro.plate("data", len(k)):
            prior = AutoregressiveCategorical(self.prior, self.positions, self.codes)
            pyro.sample("k", prior, obs=k)
