"""Softmax of independent normal variables, as a distribution on the simplex with its density.

    u ~ Normal(m, diag(s^2)),  z = softmax(u)        m, s, u, z: (d,)

A constant added to u leaves z as it is, so that the density of z is the integral over all constants
c of the density of u = log z + c, which is that of a normal variable in c:

    log q(z) = - sum_i log z_i - sum_i (log s_i + log(2 pi) / 2)
               + (log(2 pi) - log W) / 2 - sum_i w_i (log z_i - m_i + b)^2 / 2
    w_i = 1 / s_i^2,  W = sum_i w_i,  b = sum_i w_i (m_i - log z_i) / W

It is a density of z_1, ..., z_(d-1), as that of a Dirichlet variable. Torch's ``LogisticNormal``
breaks a stick instead, and its last components have other tails than the first ones.

Source: Aitchison & Shen (1980), Logistic-normal distributions, Biometrika 67, section 2 (the
density by log-ratios); Srivastava & Sutton (2017), section 3.2, arXiv:1703.01488 (the softmax).
"""

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

LEAST = 1e-30
"""The least component of a draw: 0 has no logarithm, and smaller numbers no finite gradient.

The density of a draw is computed from the logarithms before this bound. At the bound, it would be
as small as one likes, and the ELBO as large.
"""


class SoftmaxNormal(dist.TorchDistribution):
    """The distribution of softmax(u), where u has independent normal components.

    Args:
        loc: Mean of u, (..., d); a constant added to it changes nothing.
        scale: Standard deviation of u, (..., d), positive.

    Example:
        >>> shares = SoftmaxNormal(torch.zeros(5, 3), torch.ones(5, 3))
        >>> shares.log_prob(shares.rsample()).shape
        torch.Size([5])
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support: Any = constraints.simplex
    has_rsample = True
    _drawn: tuple[Tensor, Tensor] | None = None  # the last draw, and its logarithm in doubles

    def __init__(self, loc: Tensor, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.distributions.utils.broadcast_all(loc, scale)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution with another batch shape."""
        loc, scale = (t.expand(*batch_shape, -1) for t in (self.loc, self.scale))
        return SoftmaxNormal(loc, scale, self._validate_args)

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Return draws through which gradients reach ``loc`` and ``scale``, (..., d)."""
        noise = torch.randn(
            self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device
        )
        log_z = (_precise(self.loc) + _precise(self.scale) * noise).log_softmax(-1)
        z = log_z.exp().clamp_min(LEAST).to(noise.dtype)
        self._drawn = z, log_z
        return z

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-density of points of the simplex, (..., d), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        kept = self._drawn
        log_z = kept[1] if kept is not None and value is kept[0] else _precise(value).log()
        scale = _precise(self.scale)
        weight, distance = scale**-2, log_z - _precise(self.loc)
        total = weight.sum(-1)
        shift = (weight * distance).sum(-1, keepdim=True) / total[..., None]
        squares = (weight * (distance - shift) ** 2).sum(-1)
        constant = (value.shape[-1] - 1) * math.log(2 * math.pi)
        volumes = log_z.sum(-1) + scale.log().sum(-1)
        return (-volumes - (constant + total.log() + squares) / 2).to(value.dtype)


def _precise(numbers: Tensor) -> Tensor:
    """Return numbers in double precision, where the device has it.

    A density divides differences of logarithms by the scale: what a small scale leaves of their
    digits in single precision would raise the ELBO, and a fit would look for such scales.
    """
    return numbers if numbers.device.type == "mps" else numbers.double()
