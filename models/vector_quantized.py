"""Real features from a few vectors of a codebook: the vector-quantized autoencoder (VQ-VAE).

    k ~ p(k), uniform until code_prior is fitted         k: (positions,), each 0 ... codes - 1
    z_i ~ Normal(c_(k_i), code_sigma)                    z: (positions, size);  c: (codes, size)
    x ~ Normal(loc + scale decoder(c_k), scale sigma)    x: (features,), data's units

With the guide's points, z = e of the encoder and the nearest k, the objective is log p(k) minus

    loss = |(x - loc) / scale - decoder(c_k)|^2 / (2 sigma^2) + |e - c_k|^2 / (2 code_sigma^2)

and a constant. The first gradient goes past c_k straight through to e. The second, of the site z,
is in c the codebook term, in e the commitment, with the weight beta = sigma^2 / code_sigma^2.

Rows: vectors or images of real numbers, to be stored or generated as a few whole numbers.

Source: van den Oord, Vinyals & Kavukcuoglu (2017), section 3, arXiv:1711.00937.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ppl_vae.distributions import AutoregressiveCategorical
from ppl_vae.nn import check_sizes, expanded, make_code_decoder, places_of, straight_through


class VectorQuantizedModel(PyroModule):
    """p(x, z, k). Plate "data"; latent sites "k" and "z"; observed site "x".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        positions: Codes of a row; 8, or of an image one for each 4 x 4 pixels, if ``None``.
        codes, size: Number of vectors in the codebook, and the size of each.
        decoder: Network (..., positions * size) -> (..., features); convolutions for images.
        sigma: Standard deviation of a feature given k, in units of ``scale``.
        code_sigma: Standard deviation of z around its code; the vectors e have mean square 1.
        loc, scale: Center and spread of the data, a number or (features,), in the data's units.

    Example:
        >>> VectorQuantizedModel(features=(1, 28, 28)).positions
        49
    """

    def __init__(
        self, features: int | Sequence[int], positions: int | None = None, codes: int = 64,
        size: int = 8, decoder: nn.Module | None = None, sigma: float = 0.5,
        code_sigma: float = 1.0, loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        positions = places_of(features) if positions is None else positions
        check_sizes(positions=positions, codes=codes, size=size)
        self.features, self.positions, self.codes, self.size = features, positions, codes, size
        self.codebook = nn.Parameter(torch.randn(codes, size))
        self.decoder = decoder or make_code_decoder(positions, size, features)
        uniform = AutoregressiveCategorical.uniform(positions, codes)
        self.prior = PyroModule[nn.ParameterDict](uniform).requires_grad_(False)
        for name, value in (("sigma", sigma), ("code_sigma", code_sigma)):
            self.register_buffer(name, expanded(name, value, (), positive=True))
        self.register_buffer("loc", expanded("loc", loc, features))
        self.register_buffer("scale", expanded("scale", scale, features, positive=True))

    def forward(self, x: Tensor) -> None:
        """Draw codes and score rows x, (rows, features), in the data's units."""
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", AutoregressiveCategorical(**self.prior))
            code = self.codebook[k]  # (..., rows, positions, size): particles lead
            z = pyro.sample("z", dist.Normal(code, self.code_sigma).to_event(2))
            mean = self.loc + self.scale * self.decoder(straight_through(code, z).flatten(-2))
            each = dist.Normal(mean, self.scale * self.sigma)
            pyro.sample("x", each.to_event(x.dim() - 1), obs=x.to(mean))

    @pyro_method
    def code_prior(self, codes: Tensor) -> None:
        """Score codes, (rows, positions); fit it alone, after ``model.prior.requires_grad_()``."""
        with pyro.plate("data", len(codes)):
            pyro.sample("k", AutoregressiveCategorical(**self.prior), obs=codes)
