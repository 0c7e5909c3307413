"""A distribution moved by free numbers, the offset, in the distribution's own coordinates.

    a normal            z = m + S e,   e ~ Normal(0, I)       moved: z = m + S (b + L e)
    a normal's image    z = t(u),      u a normal             moved: the normal, under the same t
    a softmax of it     z = softmax(m + S e), S diagonal      moved: softmax(m + S (b + exp(a) e))
    Dirichlet           of concentration k                    moved: of concentration k exp(a)
    any other           z = t(u),      u any real number      moved: z = t(c + s b + exp(a) (u - c))

with c and s the loc and the scale of a distribution over all reals that has them, else 0 and 1.
Shares that sum to 1 stay in their family: near the edge of the simplex, single precision cannot
tell how far a share is from 0 by what the others leave, as other coordinates would have to.

L is lower triangular with exp(a) on its diagonal, so that a normal with a diagonal covariance
becomes one with any covariance. The offset holds b, a and what stands below the diagonal of L,
times sqrt(d - 1) for d latents. At an offset of 0 the distribution is what it was. One unit of b is
one standard deviation of a normal, whatever its units, so that steps of one size suit all latents.
The factor sqrt(d - 1) makes steps suit any number of latents: up to d - 1 entries of L move the
same latent, and with steps as long as those of b their noise would outweigh the gain.

An offset is added to what a guide computes. Where the guide computes a latent's distribution from
earlier draws, the distribution still depends on them.

Source of the moved flow: Kim et al. (2018), section 3, arXiv:1802.02550 (parameters of each row,
improved from the encoder's answer).
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import ExpandedDistribution, MaskedDistribution, constraints
from pyro.distributions.transforms import AffineTransform
from torch import Tensor
from torch.distributions import biject_to

from ppl_vae.compat.of_torch import is_traced, mask_of
from ppl_vae.distributions import MarkovPath, SoftmaxNormal

WIDEST = 64  # most numbers of a latent that get all entries of L; wider ones have a diagonal L


def offset_size(fn: Any) -> int:
    """Return how many numbers the offset of a distribution has.

    Raises:
        NotImplementedError: If the distribution cannot be moved: a point, discrete values, a mask
            over single numbers of an event, paths of different lengths, or a support that no
            transform of the reals has.

    Example:
        >>> offset_size(dist.Normal(torch.zeros(2), 1.0).to_event(1))
        5
        >>> offset_size(dist.Gamma(torch.ones(2), 1.0).to_event(1))
        4
    """
    core = _core(fn)
    if _of_shares(core):
        shares: int = math.prod(core.event_shape)
        return shares if isinstance(_inside(core), dist.Dirichlet) else 2 * shares
    if core.event_dim == 1 and _is_normal(core) and core.event_shape[0] <= WIDEST:
        size: int = core.event_shape[0]
        return size * (size + 3) // 2
    shape = core.event_shape if _is_normal(core) else _unbounded_shape(core)
    return 2 * math.prod(shape)


def moved(fn: Any, offset: Tensor) -> Any:
    """Return a distribution moved by an offset, (..., ``offset_size(fn)``).

    The leading dimensions of the offset broadcast with the distribution's batch shape.

    Raises:
        NotImplementedError: As ``offset_size``.

    Example:
        >>> normal = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> moved(normal, torch.tensor([0.5, 0.0, 0.0, 0.0, 0.8])).covariance_matrix
        tensor([[1.0000, 0.8000],
                [0.8000, 1.6400]])
    """
    if isinstance(fn, MaskedDistribution):
        return moved(fn.base_dist, offset).mask(mask_of(fn))
    if isinstance(fn, ExpandedDistribution):
        return moved(fn.base_dist, offset).expand(fn.batch_shape)
    image = _image_of_a_normal(fn)
    if image is not None:
        normal, transforms = image
        return dist.TransformedDistribution(moved(normal, offset), transforms)
    if _of_shares(fn):
        return _moved_shares(fn, offset)
    return _moved_normal(fn, offset) if _is_normal(fn) else _moved_by_support(fn, offset)


def normal_of(fn: Any) -> Any | None:
    """Return the normal with a distribution's mean and sd; ``None`` where it has none over reals.

    Example:
        >>> normal_of(dist.Laplace(torch.zeros(3), 1.0).to_event(1)).base_dist.scale
        tensor([1.4142, 1.4142, 1.4142])
        >>> normal_of(dist.Gamma(torch.ones(3), 1.0)) is None
        True
    """
    try:
        mean, sd = fn.mean, fn.stddev
    except (NotImplementedError, AttributeError):
        return None
    inside = fn.base_dist if isinstance(fn, dist.Independent) else fn
    if isinstance(inside, MaskedDistribution | dist.Delta) or not _is_real(fn) or _is_normal(fn):
        return None
    if not is_traced() and not bool((mean.isfinite() & sd.isfinite()).all()):
        return None
    return dist.Normal(mean, sd).to_event(fn.event_dim)


def _core(fn: Any) -> Any:
    """Return the distribution that the offset belongs to, inside masks and transforms."""
    while isinstance(fn, MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    image = _image_of_a_normal(fn)
    return fn if image is None else _core(image[0])


def _is_normal(fn: Any) -> bool:
    """Return whether a distribution is a normal, of independent numbers or with a covariance."""
    base = _inside(fn)
    several = dist.MultivariateNormal | dist.LowRankMultivariateNormal
    return isinstance(base, dist.Normal) or isinstance(fn, several)


def _inside(fn: Any) -> Any:
    """Return the distribution whose independent copies ``fn`` consists of."""
    return _inside(fn.base_dist) if isinstance(fn, dist.Independent) else fn


def _of_shares(fn: Any) -> bool:
    """Return whether a distribution is of shares that sum to 1, in a family that it stays in."""
    return isinstance(_inside(fn), dist.Dirichlet | SoftmaxNormal)


def _image_of_a_normal(fn: Any) -> tuple[Any, list[Any]] | None:
    """Return the normal and the transforms that a distribution consists of, else ``None``."""
    count, inner = 0, fn
    if isinstance(fn, dist.Independent):
        count, inner = fn.reinterpreted_batch_ndims, fn.base_dist
    if not isinstance(inner, torch.distributions.TransformedDistribution):
        return None
    base: Any = inner.base_dist
    normal = base.to_event(count) if count else base
    invertible = all(transform.bijective for transform in inner.transforms)
    return (normal, inner.transforms) if invertible and _is_normal(_core(normal)) else None


def _moved_normal(fn: Any, offset: Tensor) -> Any:
    """Return a moved normal; by all of L for a vector that is not too wide, else its diagonal."""
    size, count = math.prod(fn.event_shape), fn.event_dim
    full = count == 1 and size <= WIDEST
    shape = (*offset.shape[:-1], *fn.event_shape)
    shift, log_diagonal = (offset[..., i * size : (i + 1) * size].reshape(shape) for i in (0, 1))
    if not full and not hasattr(fn, "scale_tril"):
        loc = fn.mean + fn.stddev * shift
        return dist.Normal(loc, fn.stddev * log_diagonal.exp()).to_event(count)
    factor = log_diagonal.exp().diag_embed()  # L
    if full and size > 1:
        row, column = torch.tril_indices(size, size, -1, device=offset.device)
        below = torch.zeros_like(factor)
        below[..., row, column] = offset[..., 2 * size :] / math.sqrt(size - 1)
        factor = factor + below
    if hasattr(fn, "scale_tril"):
        loc = fn.loc + (fn.scale_tril @ shift[..., None]).squeeze(-1)
        return dist.MultivariateNormal(loc, scale_tril=fn.scale_tril @ factor)
    loc, factor = fn.mean + fn.stddev * shift, fn.stddev[..., None] * factor
    return dist.MultivariateNormal(loc, scale_tril=factor)


def _moved_shares(fn: Any, offset: Tensor) -> Any:
    """Return a moved Dirichlet, or a moved softmax of a normal."""
    base, size = _inside(fn), math.prod(fn.event_shape)
    shape = (*offset.shape[:-1], *fn.event_shape)
    count = fn.event_dim - base.event_dim
    if isinstance(base, dist.Dirichlet):
        moved_base: Any = dist.Dirichlet(base.concentration * offset.reshape(shape).exp())
    else:
        shift, log_factor = (offset[..., i * size : (i + 1) * size].reshape(shape) for i in (0, 1))
        scale = base.scale * log_factor.exp()
        moved_base = SoftmaxNormal(base.loc + base.scale * shift, scale)
    return moved_base.to_event(count) if count else moved_base


def _moved_by_support(fn: Any, offset: Tensor) -> Any:
    """Return a distribution moved in the coordinates in which its support is all reals."""
    to_support = biject_to(fn.support)
    shape = (*offset.shape[:-1], *_unbounded_shape(fn))
    size = offset.shape[-1] // 2
    shift, log_factor = (offset[..., i * size : (i + 1) * size].reshape(shape) for i in (0, 1))
    center, scale = _center_and_scale(fn)
    factor = log_factor.exp()
    loc = center + scale * shift - factor * center
    affine = AffineTransform(loc, factor, event_dim=len(shape) - offset.ndim + 1)
    return dist.TransformedDistribution(fn, [to_support.inv, affine, to_support])


def _center_and_scale(fn: Any) -> tuple[Any, Any]:
    """Return ``loc`` and ``scale`` of a distribution over all reals that has them, else 0 and 1."""
    base = _inside(fn)
    known = _is_real(fn) and hasattr(base, "loc") and hasattr(base, "scale")
    return (base.loc, base.scale) if known else (0.0, 1.0)


def _is_real(fn: Any) -> bool:
    """Return whether the support of a distribution is all reals."""
    support = fn.support
    while hasattr(support, "base_constraint"):  # of independent numbers, of a mixture
        support = support.base_constraint
    return support is constraints.real or support is constraints.real_vector


def _unbounded_shape(fn: Any) -> tuple[int, ...]:
    """Return the shape of an event in the coordinates in which the support is all reals.

    Raises:
        NotImplementedError: If the distribution cannot be moved.
    """
    inside = _inside(fn)
    if isinstance(inside, MaskedDistribution | dist.Delta) or not fn.has_rsample:
        raise NotImplementedError(type(inside).__name__)
    while hasattr(inside, "base_dist"):  # a path may be bent by a flow
        inside = inside.base_dist
    if isinstance(inside, MarkovPath) and inside.lengths is not None:
        # a factor at a step after the end of a path would count in the density of what is no draw
        raise NotImplementedError("paths of different lengths")
    transform = biject_to(fn.support)
    shape = transform.inverse_shape(fn.batch_shape + fn.event_shape)
    return tuple(shape[len(fn.batch_shape) :])
