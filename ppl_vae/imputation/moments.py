"""What a site says of its missing cells at one draw of the latents, and its weighted average.

    mean          E[m_s],  m_s the site's own mean at draw s        the weights are w_s / sum w
    variance      E[v_s] + Var[m_s]
    probability   E[p_s], of each category

The average over m_s has less noise than one over draws of the cell (Rao-Blackwell). Where a site
does not know its mean, or a latent holds the cell, the draw stands for m_s and 0 for v_s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from torch import Tensor
from torch.distributions import Categorical, constraints
from torch.nn.functional import one_hot

from ppl_vae.core.supports import is_discrete, support_of
from ppl_vae.predictive.moments import known_moments

Kind = Literal["category", "one-hot", "binary", "count", "positive", "real"]

BOUNDS = ("lower_bound", "upper_bound")

OfCells = Callable[..., Tensor]


@dataclass(frozen=True)
class Moments:
    """Moments of missing cells at some draws of the latents.

    Attributes:
        kind: What the cells hold: "category", "one-hot", "binary", "count", "positive" or "real".
        mean: (samples, cells); for categories (samples, cells, categories), their probabilities.
        variance: (samples, cells); for categories, zeros.
        categories: Length of a one-hot vector, whose cells are neighbours; else 0.
    """

    kind: Kind
    mean: Tensor
    variance: Tensor
    categories: int = 0


def moments_of(fn: Any, values: Tensor, of_cells: OfCells, *, held: bool) -> Moments:
    """Return the moments of the missing cells of a site.

    Args:
        fn: The site's distribution, or that of the latent that holds the cells.
        values: Draws of the site, (samples, ..., rows, event).
        of_cells: Picks the missing cells of a tensor, (samples, cells, ...); its second argument is
            the number of dimensions behind the event.
        held: Whether a latent holds the cells, so that only its draws count.
    """
    kind, known = kind_of(fn), None if held else known_moments(fn)
    if kind == "category":
        count = _categories(fn)
        probabilities = (
            one_hot(values.long(), count).to(torch.get_default_dtype())
            if known is None
            else known[0].expand(*values.shape, -1)
        )
        mean = of_cells(probabilities, 1)
        return Moments(kind, mean, torch.zeros_like(mean))
    mean, variance = known or (values.to(torch.get_default_dtype()), torch.zeros(()))
    mean, variance = (of_cells(each.expand(values.shape)) for each in (mean, variance))
    return Moments(kind, mean, variance, values.shape[-1] if kind == "one-hot" else 0)


def kind_of(fn: Any) -> Kind:
    """Return what a distribution's values are.

    Whole numbers between bounds are categories where the distribution has no mean. Numbers with a
    lower bound and no upper one are called positive, wherever the bound is.

    Example:
        >>> import pyro.distributions as dist
        >>> kind_of(dist.Poisson(torch.ones(3)).to_event(1)), kind_of(dist.Bernoulli(0.5))
        ('count', 'binary')
        >>> kind_of(dist.LogNormal(0.0, 1.0)), kind_of(dist.StudentT(2.0)), kind_of(dist.Beta(1, 1))
        ('positive', 'real', 'real')
    """
    support = support_of(fn)
    if isinstance(support, type(constraints.boolean)):
        return "binary"
    if isinstance(support, type(constraints.one_hot)):
        return "one-hot"
    bounded = isinstance(support, constraints.integer_interval)
    if isinstance(_base(fn), Categorical) or (bounded and not _has_mean(fn)):
        return "category"
    if is_discrete(fn):
        return "count"
    support = getattr(support, "support", support)  # of a distribution with atoms, that of its base
    is_bounded = [getattr(support, name, None) is not None for name in BOUNDS]
    return "positive" if is_bounded == [True, False] else "real"


def _base(fn: Any) -> Any:
    """Return a distribution without the wrappers around it."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def _has_mean(fn: Any) -> bool:
    """Return whether a distribution knows its mean."""
    try:
        return isinstance(fn.mean, Tensor)
    except (NotImplementedError, AttributeError):
        return False


def _categories(fn: Any) -> int:
    """Return the number of categories of a distribution."""
    base = _base(fn)
    if isinstance(base, Categorical):
        return int(base.logits.shape[-1])
    return int(torch.as_tensor(support_of(fn).upper_bound).max()) + 1  # type: ignore[union-attr]


class RunningRows:
    """The weights of a block's rows, updated part by part: what a part is worth, of all so far.

    Args:
        rows: Rows of the block.

    Attributes:
        total: log sum w so far, (rows,), in nats.
    """

    def __init__(self, rows: int) -> None:
        self.total = torch.full((rows,), -math.inf, dtype=torch.double)

    def add(self, log_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Add a part; return its share of the weights so far, (rows,), and those within it.

        Args:
            log_weights: (samples, rows), in nats.

        Returns:
            The share, and the weights of the part's draws, (samples, rows), which sum to 1.
        """
        values = log_weights.detach().to("cpu", torch.double)
        part = values.logsumexp(0)
        self.total = torch.logaddexp(self.total, part)
        share = (part - self.total).exp().nan_to_num(0.0)  # NaN where all weights are 0 so far
        return share, values.softmax(0).nan_to_num(1 / len(values))


class RunningMoments:
    """Weighted mean and variance of missing cells, updated part by part in constant memory.

    Attributes:
        mean: (cells,), or (cells, categories).
    """

    def __init__(self) -> None:
        self.mean = self._variance = torch.zeros((), dtype=torch.double)

    def add(self, moments: Moments, share: Tensor, weights: Tensor) -> None:
        """Add a part of the draws.

        Args:
            moments: The moments at these draws.
            share: Weight of the part among all draws so far, (cells,).
            weights: Weights of the draws within the part, (samples, cells).
        """
        mean, variance = (e.to("cpu", torch.double) for e in (moments.mean, moments.variance))
        if mean.ndim > weights.ndim:
            share, weights = share[:, None], weights[..., None]
        part = (weights * mean).sum(0)
        within = (weights * (variance + (mean - part) ** 2)).sum(0)
        shift = part - self.mean
        self._variance = (1 - share) * self._variance + share * (within + (1 - share) * shift**2)
        self.mean = self.mean + share * shift

    @property
    def sd(self) -> Tensor:
        """Standard deviation, (cells,)."""
        return self._variance.sqrt()
