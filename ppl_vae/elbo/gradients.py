"""The gradient that reaches the guide through its draws alone, without the guide's own density.

    L(z_1, ..., z_n)         a bound, a function of the draws
    z_i = g_i(noise_i, z_1, ..., z_(i-1); phi)       reparameterized draws, in the guide's order
    wanted: sum_i c_i dL/dz_i dz_i/dphi              and not the direct derivative dL/dphi

The trick. While the guide runs, the handler ``DetachedDraws`` replaces each draw by a leaf: a copy
with the same value that autograd does not connect to the draw. The bound is computed from leaves,
so that dL/dz_i is simply the derivative by leaf i. The draws themselves are still connected to phi,
and to the leaves of earlier latents. A scalar sum_i slope_i z_i, with constant slopes, then has
exactly the wanted gradient by phi when slope_i = c_i dL/dz_i.

Why the loop runs backwards. In a chain z_1 -> z_2, phi reaches L through z_1 also by way of z_2.
As z_2 was made from the leaf of z_1, that way ends in the leaf. So the slope of z_1 must hold what
z_2 passes on, d(slope_2 z_2)/d(leaf_1), and it can be known only after the slope of z_2.

What would break this: a draw that is changed in place after it was recorded, or a latent whose
value the guide computes from the draw (not from the leaf) of an earlier latent.

Sources: Roeder, Wu & Duvenaud (2017), section 4, arXiv:1703.09194; Tucker et al. (2019), section 4,
arXiv:1810.04152.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_vae.core.handlers import DetachedDraws
from ppl_vae.core.sites import Site
from ppl_vae.elbo.importance_weights import Draw


def gradient_through_draws(
    bound: Tensor, detached: DetachedDraws, draw: Draw, factors: Tensor | None = None
) -> Tensor:
    """Return a scalar whose gradient by the guide's parameters flows through the draws alone.

    Only the gradient of the scalar means something; its value does not.

    Args:
        bound: A scalar, computed from the leaves.
        detached: The leaves and the draws, ``{site: (leaf, draw)}`` in the guide's order.
        draw: The run of the pair with all particles.
        factors: c, (particles, rows): multiplies the slope that reaches each draw directly;
            ``None`` is 1.
    """
    result = bound.new_zeros(())
    if not detached.draws:
        return result
    leaves = [leaf for leaf, _ in detached.draws.values()]
    slopes = torch.autograd.grad(bound, leaves, retain_graph=True, materialize_grads=True)
    latents = list(zip(detached.draws.items(), slopes, strict=True))
    for (name, (leaf, value)), own_slope in reversed(latents):
        slope = own_slope
        if factors is not None:
            site: Site = draw.guide_trace.nodes[name]
            slope = slope * _in_dimensions_of(leaf, factors, site["fn"].event_dim)
        if result.requires_grad:  # later latents were added, and pass something on to this one
            passed = torch.autograd.grad(result, leaf, retain_graph=True, materialize_grads=True)
            slope = slope + passed[0]
        result = result + (slope.detach() * value).sum()
    return result


def _in_dimensions_of(leaf: Tensor, factors: Tensor, event_dim: int) -> Tensor:
    """Return factors, (particles, rows), in the dimensions of a latent's values.

    The values are (particles, plates inside the rows..., rows, event...).
    """
    inner_plates = leaf.ndim - event_dim - 2
    particles, rows = factors.shape
    return factors.reshape(particles, *(1,) * inner_plates, rows, *(1,) * event_dim)
