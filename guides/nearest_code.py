"""Nearest-code guide: a network gives every row a vector at each position, and so a code of a book.

    e = encoder((x - loc) / scale)                 e: (positions, size), each row of mean square 1
    k_i ~ Delta(argmin_j |e_i - c_j|^2)            c: (codes, size), the codebook of the model
    z ~ Delta(e)                                   z: (positions, size)

The objective is a log joint density, log p(x, z, k), at these points: no bound on log p(x), as the
density of a point z is infinite. ``log_likelihood`` refuses it. ``encode`` has the codes k.

Vectors of one length keep encoder and codebook on one scale, which the two could shrink otherwise
to make the distance between them small, and codes that are drawn around that sphere come into use.

Source: van den Oord, Vinyals & Kavukcuoglu (2017), section 3.1, arXiv:1711.00937; Yu et al. (2022),
section 3.2, arXiv:2110.04627 (vectors of one length).
"""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import normalize

from ppl_vae.nn import Standardize, check_row, make_code_encoder, nearest_code


class NearestCodeGuide(PyroModule):
    """A point for q(z, k given x). Plate "data"; latent sites "k" and "z".

    Args:
        features: Number of features in a row, or (channels, height, width) of an image.
        model: The partner, a ``VectorQuantizedModel`` or a model with its ``positions`` and its
            ``codebook``, (codes, size).
        encoder: Network (..., features) -> (..., positions * size) that gives e before its vectors
            get their length; it reads rows of about unit size. One hidden layer for vectors,
            convolutions for images, if ``None``.
        loc: Center of the data, a number or (features,), in the data's units.
        scale: Spread of the data, a positive number or (features,), in the data's units.

    Example:
        >>> import torch
        >>> from ppl_vae.models.vector_quantized import VectorQuantizedModel
        >>> guide = NearestCodeGuide(16, VectorQuantizedModel(16, positions=2))
        >>> pyro.poutine.trace(guide).get_trace(torch.zeros(5, 16)).nodes["k"]["value"].shape
        torch.Size([5, 2])
    """

    def __init__(
        self, features: int | Sequence[int], model: Any, encoder: nn.Module | None = None,
        loc: float | Tensor = 0.0, scale: float | Tensor = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_row(features)
        if not (hasattr(model, "codebook") and hasattr(model, "positions")):
            raise ValueError(
                f"model: expected a codebook and positions, got {type(model).__name__}"
            )
        self.features, self.model = features, model
        size = model.codebook.shape[-1]
        self.standardize = Standardize(loc, scale)
        self.encoder = encoder or make_code_encoder(features, model.positions, size)

    def forward(self, x: Tensor) -> None:
        """Give codes to rows x, (rows, features), in the data's units."""
        out, codebook = self.encoder(self.standardize(x)), self.model.codebook
        shape = self.model.positions, codebook.shape[-1]
        if out.shape[-1] != shape[0] * shape[1]:
            need = f"expected {shape[0]} positions of the model x {shape[1]} numbers of a code"
            raise ValueError(f"encoder: {need}, got {out.shape[-1]} outputs; change its outputs")
        e = normalize(out.unflatten(-1, shape), dim=-1) * shape[1] ** 0.5  # (rows, *shape)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Delta(nearest_code(e, codebook), event_dim=1))
            pyro.sample("z", dist.Delta(e, event_dim=2))
