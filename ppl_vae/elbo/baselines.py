"""Score-function gradients for draws without gradients of their own, and baselines for them.

    d/dphi E[f] = E[df/dphi + sum_p (f_p - b_p) dlog q(z_p given x)/dphi]

f_p is what particle p of a row contributes to: its term of the ELBO, or the whole bound of the row
where the particles stand inside one logarithm. The baseline b_p is any number that does not depend
on z_p: the score has expectation 0, so that the gradient stays unbiased, and the nearer b_p is to
f_p the less noisy it is. All numbers are of one row, and no baseline has a memory, so that batches
may have any sizes.

    leave_one_out   ELBO: the mean of f over the row's other particles (RLOO); IWAE: the bound with
                    w_p replaced by the geometric mean of the others (VIMCO)
    average         the mean of f over the batch's other rows; rows are independent given the
                    parameters, and it is as new as the gradient, which a running average is not
    a network       ``infer={"baseline": {"nn_baseline": net, "nn_baseline_input": x}}`` at a site
                    of the guide, as in Pyro: net(x), (rows,), is trained to be f in the same step

Sources: Williams (1992), doi:10.1007/BF00992696; Mnih & Gregor (2014), section 2.3, arXiv:1402.0030
(networks); Mnih & Rezende (2016), section 3, arXiv:1602.06725 (VIMCO); Kool, van Hoof & Welling
(2019), Buy 4 REINFORCE samples, get a baseline for free (RLOO).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ppl_vae.core.sites import Site
from ppl_vae.elbo.importance_weights import Draw


def score_term(
    draws: list[Draw], bounds: Tensor, baseline: str | None, others: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return terms whose gradient is the score-function part of the gradient of a bound.

    Args:
        draws: The runs of the pair that draw all particles.
        bounds: f, (particles, rows), in nats.
        baseline: ``"leave_one_out"``, ``"average"`` or ``None``.
        others: b under ``"leave_one_out"``, (particles, rows); by default the mean of f over the
            row's other particles.

    Returns:
        (f_p - b_p) log q(z_p given x), (particles, rows), of which only the gradient means
        something; and a scalar, the squared errors of the guide's networks that predict f, summed
        over rows and averaged over particles. Zeros where every draw has a gradient.
    """
    bounds = bounds.detach()
    score, fits = torch.zeros_like(bounds), bounds.new_zeros(())
    if not torch.is_grad_enabled():
        return score, fits
    runs = [draw.without_gradient() for draw in draws]
    for name in runs[0]:
        log_prob = torch.cat([d.log_prob_of(run[name]) for d, run in zip(draws, runs, strict=True)])
        if baseline == "leave_one_out":
            signal = bounds - (_other_particles(bounds) if others is None else others.detach())
        else:
            predicted = _predicted(name, runs[0][name], bounds)
            fits = fits + (bounds - predicted).square().mean(0).sum()
            signal = bounds - predicted.detach()
            signal = signal - _other_rows(signal) if baseline == "average" else signal
        score = score + signal * log_prob
    return score, fits


def without_particle(log_weights: Tensor) -> Tensor:
    """Return the bound of every row without one of its particles, (particles, rows), in nats.

    The particle's weight is replaced by the geometric mean of the others.

    Args:
        log_weights: Log-weights of two particles or more, (particles, rows).

    Example:
        >>> without_particle(torch.tensor([[0.0], [2.0], [2.0]]))[0]
        tensor([2.])
    """
    particles = len(log_weights)
    log_weights = log_weights.detach()
    own = torch.eye(particles, dtype=torch.bool, device=log_weights.device)[..., None]
    replaced = torch.where(own, _other_particles(log_weights)[:, None], log_weights[None])
    return replaced.logsumexp(1) - math.log(particles)


def _other_particles(values: Tensor) -> Tensor:
    """Return the mean over a row's other particles, (particles, rows)."""
    return (values.sum(0) - values) / (len(values) - 1)


def _other_rows(values: Tensor) -> Tensor:
    """Return the mean over the batch's other rows and all particles, (rows,); 0 for a lone row."""
    by_row = values.mean(0)
    return (by_row.sum() - by_row) / max(1, len(by_row) - 1)


def _predicted(name: str, site: Site, bounds: Tensor) -> Tensor:
    """Return what the guide's own baselines say of f, (rows,) or (particles, rows).

    Raises:
        ValueError: If the site asks for Pyro's running average, or a baseline has another shape.
    """
    given: dict[str, Any] = site["infer"].get("baseline", {})
    if given.get("use_decaying_avg_baseline"):
        raise ValueError(
            f'site "{name}": expected no use_decaying_avg_baseline, whose average has the shape of '
            'a batch; choose baseline="average" of the bound'
        )
    total = bounds.new_zeros(())
    if "nn_baseline" in given:
        total = total + given["nn_baseline"](given["nn_baseline_input"].detach())
    if "baseline_value" in given:
        total = total + given["baseline_value"]
    if (total.shape and total.shape[-1] != bounds.shape[-1]) or total.dim() > 2:
        raise ValueError(
            f'site "{name}": expected a baseline of shape ({bounds.shape[-1]},), one number for '
            f"each row, got {tuple(total.shape)}; squeeze the network's output"
        )
    return total.expand(bounds.shape[-1]) if total.dim() < 2 else total
