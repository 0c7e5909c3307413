"""KL divergences in closed form that torch and Pyro lack, registered where torch looks for them.

    KL(N(m, S), N(a, diag(b^2))) = 1/2 sum_i ((S_ii + (m_i - a_i)^2) / b_i^2 + log b_i^2)
                                   - 1/2 (log det S + d)

With a = 0 and b = 1 this is 1/2 (tr S + m^T m - log det S - d), the divergence of a normal guide
with a full covariance from the usual prior. Pyro has the divergence of a diagonal normal
distribution from a full one, and not this. ``TraceMeanField_ELBO`` and ``elbo_terms`` ask torch's
register, so that a line in it serves every pair, and plain Pyro in the same process.

Source: Kingma & Welling (2014), appendix B, arXiv:1312.6114 (for a diagonal S).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl


def full_from_diagonal(p: MultivariateNormal, q: Independent[Any]) -> Tensor:
    """Return the KL divergence of a normal distribution from a diagonal one, in nats.

    Args:
        p: Batch shape (...), event shape (d,).
        q: ``Normal(a, b).to_event(1)`` of the same shapes.

    Returns:
        The divergence, of the batch shape.

    Raises:
        NotImplementedError: If q is not made of normal distributions.

    Example:
        >>> import torch
        >>> q = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> full_from_diagonal(MultivariateNormal(torch.ones(2), torch.eye(2)), q)
        tensor(1.)
    """
    base = q.base_dist
    if not isinstance(base, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    variances = p.scale_tril.square().sum(-1)  # S_ii, (..., d)
    log_det = 2 * p.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    squares = (variances + (p.loc - base.loc).square()) / base.variance
    total: Tensor = (squares + base.variance.log() - 1).sum(-1) - log_det
    return total / 2


register_kl(MultivariateNormal, Independent)(full_from_diagonal)
