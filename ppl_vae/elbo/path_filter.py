"""Sequential Monte Carlo over the states of sequences: a particle filter with the guide's steps.

    z_t^p ~ q(z_t given z_(t-1)^p)                                      p = 1 ... P particles
    v_t^p = p(z_t^p given z_(t-1)^p) p(x_t given z_t^p) / q(z_t^p given z_(t-1)^p)
    Z_t   = sum over p of W_(t-1)^p v_t^p                estimates p(x_t given x_1 ... x_(t-1))
    W_t^p = W_(t-1)^p v_t^p / Z_t
    where 1 / sum over p of (W_t^p)^2 < P / 2:  draw P particles anew with shares W_t, W_t^p = 1/P

The product of the Z_t is an unbiased estimate of p(x), at any number of particles.

Particles are drawn anew (resampled) only where their weights have become unequal. A guide that has
read the whole sequence proposes states that suit the future; to draw them anew at every step, by
weights that know the past alone, would throw such states away before the future speaks for them.
A guide that is the exact posterior of the path then rarely needs it. The draws are systematic: one
uniform number decides them all, which adds the least noise.

Islands are filters of their own: their estimates are independent, so that their spread says how far
the mean of all can be trusted.

Sources: Doucet & Johansen (2011), A tutorial on particle filtering and smoothing, sections 3.5 and
4.1; Del Moral, Doucet & Jasra (2012), On adaptive resampling strategies (unbiased where it is
adaptive); Maddison et al. (2017), arXiv:1705.09279 (with the guide as proposal).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_vae.core.blocks import ELEMENTS, block_rows
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.state_paths import PathsOfRows, StepTerms, check_sums

FEWEST_EFFECTIVE = 0.5
"""Share of the particles that must count effectively; below it, they are drawn anew."""


@dataclass(frozen=True)
class Filtered:
    """What a particle filter found for some rows.

    Attributes:
        log_steps: log Z_t of each island, (steps, islands, rows), in nats; 0 after the end of a
            row. The steps go up to the longest row.
        ess: Effective number of particles after each step, (steps, islands, rows); 0 where no
            particle explains the step.
        states: The states at the last step of each row, (islands, particles, rows, *event).
        log_weights: Their weights in each island, (islands, particles, rows), normalized.
        lengths: Steps of each row, (rows,).
    """

    log_steps: Tensor
    ess: Tensor
    states: Tensor
    log_weights: Tensor
    lengths: Tensor


def filtered(
    paths: PathsOfRows,
    islands: int,
    particles: int,
    *,
    kl_weight: Tensor | None = None,
    check: bool = True,
    steps: int | None = None,
) -> Filtered:
    """Run independent particle filters for each row.

    One more particle follows the path that the guide drew for the row (``PathsOfRows.drawn``). It
    belongs to no island: its terms, summed over all steps, are compared with those of the whole
    path (``elbo.state_paths``).

    Args:
        paths: The rows.
        islands: Filters of each row.
        particles: Particles of each filter.
        kl_weight: Factor on log p(z_t given z_(t-1)) - log q(z_t given z_(t-1)); ``None`` is 1.
        check: Whether to compare.
        steps: Steps to filter; up to the longest row by default.

    Raises:
        ValueError: If the comparison fails, so that the filter's numbers would be wrong.
    """
    steps = int(paths.lengths.max()) if steps is None else steps
    shape, total = (islands, particles, paths.rows), islands * particles
    log_weights = torch.full(
        shape, -math.log(particles), dtype=torch.double, device=paths.drawn.device
    )
    states: Tensor | None = None
    sums = torch.zeros(4, paths.rows, dtype=torch.double, device=log_weights.device)
    log_steps, ess = [], []
    for t in range(steps):
        inside = t < paths.lengths
        if states is not None:
            log_weights, own = _renewed(log_weights, states[:total].unflatten(0, shape[:2]), inside)
            states = torch.cat([own.flatten(0, 1), states[total:]])
        states, terms = _step(paths, t, states, total, inside)
        sums[:3] += terms[:, total].detach()
        sums[3] += terms[:, total].detach().abs().sum(0)
        observed, prior, proposal = terms[:, :total].unflatten(1, shape[:2])
        weight = 1.0 if kl_weight is None else kl_weight
        log_weights = log_weights + observed + weight * (prior - proposal)
        log_step = log_weights.logsumexp(1)
        possible = log_step > -torch.inf  # else no particle explains x_t, and all count the same
        log_weights = torch.where(
            (possible | log_step.isnan())[:, None], log_weights - log_step[:, None],
            -math.log(particles),
        )  # fmt: skip
        log_steps.append(log_step)
        effective = 1 / log_weights.detach().exp().square().sum(1)
        ess.append(torch.where(possible, effective, torch.where(log_step.isnan(), effective, 0.0)))
    if check:
        check_sums(StepTerms(*sums[:3]), paths.whole_terms(), sums[3], paths.paths.site)
    assert states is not None
    own = states[:total].unflatten(0, shape[:2])
    return Filtered(torch.stack(log_steps), torch.stack(ess), own, log_weights, paths.lengths)


def rows_of_filter(rows: Rows, steps: int, particles: int) -> int:
    """Return the rows of a block: a filter holds all particles of one step, and one whole path.

    Args:
        rows: The data.
        steps: Steps of the padded data.
        particles: Particles of each row.
    """
    shapes = (field.array.shape[1:] for field in rows.fields)
    width = sum(
        max(1, math.prod(shape[1:] if shape and shape[0] == steps else shape)) for shape in shapes
    )
    return max(1, min(block_rows(rows, 2), ELEMENTS // (width * particles)))


def systematic(log_weights: Tensor) -> Tensor:
    """Return which particles are drawn, (islands, particles, rows) of int64, by their weights.

    Particle p is drawn floor(P W^p) or ceil(P W^p) times.

    Args:
        log_weights: Normalized, (islands, particles, rows), in nats.

    Example:
        >>> systematic(torch.tensor([0.0, 0.5, 0.5, 0.0]).log()[None, :, None]).flatten().tolist()
        [1, 1, 2, 2]
    """
    particles = log_weights.shape[1]
    bounds = log_weights.exp().cumsum(1).movedim(1, -1).contiguous()
    bounds = bounds / bounds[..., -1:]
    offset = torch.rand(*bounds.shape[:-1], 1, dtype=bounds.dtype, device=bounds.device)
    places = (torch.arange(particles, device=bounds.device) + offset) / particles
    drawn = torch.searchsorted(bounds, places, right=True)  # one of weight 0 is never drawn
    return drawn.clamp_max(particles - 1).movedim(-1, 1)


def _renewed(log_weights: Tensor, states: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and states, drawn anew in the filters whose particles count unequally.

    Args:
        log_weights: Normalized, (islands, particles, rows).
        states: (islands, particles, rows, *event).
        inside: Which rows go on, (rows,).
    """
    particles = log_weights.shape[1]
    with torch.no_grad():
        few = log_weights.exp().square().sum(1) * FEWEST_EFFECTIVE * particles > 1
        renew = (few & inside)[:, None]  # (islands, 1, rows)
        kept = torch.arange(particles, device=states.device)[:, None]
        drawn = torch.where(renew, systematic(log_weights), kept)
    index = drawn.reshape(*drawn.shape, *(1 for _ in states.shape[3:]))
    equal = torch.full_like(log_weights, -math.log(particles))
    return torch.where(renew, equal, log_weights), states.take_along_dim(index, 1)


def _step(
    paths: PathsOfRows, t: int, before: Tensor | None, total: int, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the states of a step and their terms.

    Args:
        paths: The rows.
        t: The step, from 0.
        before: The states before it, (particles + 1, rows, *event); ``None`` at step 0.
        total: Particles in all. The last state is that of the drawn path.
        inside: Which rows go on, (rows,).

    Returns:
        The states, (particles + 1, rows, *event), and log p(x_t given z_t), log p(z_t) and
        log q(z_t), (3, particles + 1, rows), in nats; zeros in rows that have ended.
    """
    shape = torch.Size([total + 1, paths.rows])
    proposal = paths.guide.following(before, t)
    proposal = proposal if proposal.batch_shape == shape else proposal.expand(shape)
    new = proposal.rsample() if proposal.has_rsample else proposal.sample()
    new = torch.cat([new[:total], paths.drawn[:, t][None].to(new.dtype)])
    if before is not None:
        new = torch.where(inside.reshape(-1, *(1 for _ in new.shape[2:])), new, before)
    terms = torch.stack(
        [
            each.double().expand(shape)
            for each in (
                paths.log_likelihoods(t, new),
                paths.model.following(before, t).log_prob(new),
                proposal.log_prob(new),
            )
        ]
    )
    return new, torch.where(inside, terms, 0.0)
