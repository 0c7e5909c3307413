"""The linter's rule on tails: draws of the guide that are too far out for the prior's log-density.

    E_q[log p(z)] = -infinity    where q has no finite variance and -log p(z) grows like z^2
                                 (Normal), or no finite mean and it grows like |z| (Laplace, Gamma)

The ELBO is then minus infinity, whatever an estimate from some draws says, and a fit meets a draw
that makes the parameters NaN. Under a prior with tails like those of Cauchy or StudentT, -log p(z)
grows like log |z|, and the ELBO is finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ppl_vae.core.sites import is_discrete
from ppl_vae.core.supports import basic_distribution, support_of
from ppl_vae.linting.inspection import Finding, Inspection, warning

FAR = 1e4  # standard deviations of the prior, beyond which its log-density is that of the tail


def heavy_tails(inspection: Inspection) -> Iterator[Finding]:
    """Find latents whose draws have no variance, or no mean, where the prior's density needs one.

    Families that do not say what their mean and their variance are, are left out.
    """
    for name, (in_model, in_guide) in inspection.shared_latents().items():
        prior, guide = in_model["fn"], in_guide["fn"]
        if is_discrete(in_guide):
            continue
        variance, mean = _moment(guide, "variance"), _moment(guide, "mean")
        if variance is None or mean is None:
            continue
        drawn = in_guide["value"].isfinite()  # a row with NaN in it has other faults
        if not bool((drawn & ~variance.isfinite()).any()):
            continue
        without_mean = bool((drawn & ~mean.isfinite()).any())
        needed, order = ("mean", 0.5) if without_mean else ("variance", 1.5)
        if _tail_order(prior) <= order:
            continue
        families = [type(basic_distribution(fn)).__name__.lstrip("_") for fn in (prior, guide)]
        yield warning(
            f'site "{name}"',
            f"expected draws of the guide with a finite {needed} under the model's prior "
            f"{families[0]}, got {families[1]} without one: the ELBO is minus infinity, whatever "
            "an estimate says",
            "give the guide a family with lighter tails, or keep the parameter large that makes "
            "its tails heavy (df above 2 for StudentT)",
        )


def _moment(fn: Any, name: str) -> Tensor | None:
    """Return a distribution's mean or variance; ``None`` where its family does not say."""
    try:
        moment: Tensor = getattr(fn, name)
    except (NotImplementedError, AttributeError):
        return None
    return moment


def _tail_order(prior: Any) -> float:
    """Return the power of z that a prior's -log p(z) grows like: 2 for Normal, 0 for Cauchy.

    It is the growth of -log p(z) from z = mean + ``FAR`` standard deviations to twice as far, the
    faster one of the two sides. Where the prior has no finite variance, or none that is known, or
    no density there, the result is 0.
    """
    mean, variance = _moment(prior, "mean"), _moment(prior, "variance")
    if mean is None or variance is None or not bool(variance.isfinite().all()):
        return 0.0
    order, support = 0.0, support_of(prior)
    for far in (FAR, -FAR):
        costs = []
        for z in (mean + far * variance.sqrt(), mean + 2 * far * variance.sqrt()):
            if support is None or not bool(support.check(z).all()):
                break
            costs.append(-float(prior.log_prob(z).sum()))
        if len(costs) == 2 and 0 < costs[0] < costs[1] < math.inf:
            order = max(order, math.log2(costs[1] / costs[0]))
    return order
