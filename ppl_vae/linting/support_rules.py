"""The linter's rule on supports: what the guide draws against what the model's prior allows.

    support of q within the support of p        else log p(z) of some draws is minus infinity
    support of p within the support of q        else no draw is where the posterior may be, too

Where one is discrete and the other is not, a probability would be divided by a density: an error.
So it is where one has shares that sum to 1 and the other has not: a density of d - 1 numbers would
be divided by one of d numbers.
Otherwise only the first is an error. A posterior may have a smaller support than the prior, and the
ELBO of a smaller support is still a bound; but importance sampling then misses the rest, and no
weight of a draw can show what is never drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.distributions import constraints

from ppl_vae.core import sites
from ppl_vae.core.supports import reaches_outside, support_of, support_text
from ppl_vae.linting.inspection import Finding, Inspection, site_error, warning


def unequal_supports(inspection: Inspection) -> Iterator[Finding]:
    """Find latents whose draws can be outside the prior's support, or only in a part of it."""
    for name, (in_model, in_guide) in inspection.shared_latents().items():
        prior, guide = in_model["fn"], in_guide["fn"]
        supports = [support_text(support_of(fn)) for fn in (prior, guide)]
        if _one_is_discrete(in_model, in_guide):
            yield site_error(
                name,
                f"expected a guide that draws values of the model's prior ({supports[0]}), got one "
                f"that draws {supports[1] or 'others'}: the ELBO would divide a probability by a "
                "density",
                "give the guide a family of the prior's support; for discrete latents as in "
                "guides/categorical.py, bernoulli.py or relaxed.py",
            )
        elif _one_sums_to_one(prior, guide) or reaches_outside(guide, prior):
            yield site_error(
                name,
                f"expected draws of the guide in the support of the model's prior ({supports[0]}), "
                f"got a guide that draws {supports[1]}",
                "give the guide a family of the prior's support, or map its draws into it "
                "(dist.TransformedDistribution)",
            )
        elif reaches_outside(prior, guide):
            yield warning(
                f'site "{name}"',
                f"expected a guide that can draw all values of the model's prior ({supports[0]}), "
                f"got one that draws {supports[1]}: log_likelihood leaves out the rest and is too "
                "low, whatever k-hat says, unless the posterior is 0 there",
                "give the guide a family of the prior's support",
            )


def _one_sums_to_one(prior: Any, guide: Any) -> bool:
    """Return whether just one of prior and guide has vectors that sum to 1; a point may be one."""
    supports = support_of(prior), support_of(guide)
    if None in supports or sites.point_of(guide) is not None:
        return False
    prior_does, guide_does = (isinstance(s, type(constraints.simplex)) for s in supports)
    return prior_does != guide_does


def _one_is_discrete(in_model: sites.Site, in_guide: sites.Site) -> bool:
    """Return whether just one of prior and guide draws discrete values; a point may be either."""
    prior_is = sites.is_discrete(in_model)
    if sites.point_of(in_guide["fn"]) is not None:
        support = support_of(in_model["fn"])
        assert support is not None
        return prior_is and not bool(torch.as_tensor(support.check(in_guide["value"])).all())
    guide_support = support_of(in_guide["fn"])
    return guide_support is not None and prior_is != sites.is_discrete(in_guide)
