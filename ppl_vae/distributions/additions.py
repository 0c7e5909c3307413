"""Distributions that torch and Pyro lack, or have for a part of their parameters only.

    PaddedCategorical(logits=l)      categories, each column with a number of its own
    CenteredUniform(loc, width)      density 1 / width on [loc - width / 2, loc + width / 2]
    ContinuousBernoulli(logits=l)    density C(l) exp(l x) on [0, 1], at any l
    RoundedLogistic(loc, scale)      a logistic variable rounded and clamped to 0, 1, ..., 255
    MixtureSameFamily(c, each)       a mixture; of many normals, its density is a matrix product

A model states its likelihood with them as with those of Pyro.

Source: Loaiza-Ganem & Cunningham (2019), section 2, arXiv:1907.06845; Salimans et al. (2017),
section 2.1, arXiv:1701.05517.
"""

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid


def places_below(cumulative: Tensor, shape: torch.Size) -> Tensor:
    """Draw a place for each of some discrete distributions: (shape) of int64.

    Args:
        cumulative: Cumulative sums of the probabilities, (..., places), whose last is 1 or about 1.
        shape: Shape of the draws, to which (...) expands.
    """
    total = cumulative[..., -1]
    uniform = torch.rand(shape, dtype=total.dtype, device=total.device) * total
    uniform = torch.minimum(uniform, total * (1 - torch.finfo(total.dtype).eps))
    return (cumulative <= uniform[..., None]).sum(-1)


class PaddedCategorical(dist.Categorical):
    """Categories of columns that have different numbers of them.

    The logits of all columns are as long as those of the column with the most categories; a
    category that a column does not have has a logit of minus infinity, after those that it has.
    The support says so column by column. Torch's categorical takes every code below the length.

    Args:
        logits: Logits, (..., columns, most categories).

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 0.0, 0.0]])
        >>> PaddedCategorical(logits=logits).support.upper_bound
        tensor([1, 2])
    """

    @property
    def support(self) -> Any:
        """Whole numbers from 0 to the number of the column's categories minus 1."""
        categories = (self.logits != -torch.inf).sum(-1)
        return constraints.integer_interval(0, categories - 1)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws, by the inverse of the CDF: torch's ``multinomial`` takes ten times as long.

        The draw is the first category whose cumulative probability is above a uniform number.
        """
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            return places_below(self.probs.cumsum(-1), shape)


class CenteredUniform(dist.Uniform):
    """Uniform distribution by its center and its width, which may be any numbers of their kind.

    The ends of a ``Uniform`` depend on each other: the low end must be below the high end.

    Args:
        loc: Center of the interval, any shape.
        width: Width of the interval, positive.

    Example:
        >>> CenteredUniform(torch.tensor(1.0), torch.tensor(4.0)).support
        Interval(lower_bound=-1.0, upper_bound=3.0)
    """

    arg_constraints = {"loc": constraints.real, "width": constraints.positive}  # noqa: RUF012

    def __init__(self, loc: Any, width: Any, validate_args: bool | None = None) -> None:
        self.loc, self.width = torch.distributions.utils.broadcast_all(loc, width)
        super().__init__(self.loc - self.width / 2, self.loc + self.width / 2, validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution with another batch shape."""
        return CenteredUniform(
            self.loc.expand(batch_shape), self.width.expand(batch_shape), self._validate_args
        )


class ContinuousBernoulli(dist.ContinuousBernoulli):
    """Torch's continuous Bernoulli, right at any logit.

    Torch computes from probabilities that are clamped, in single precision at logits of 16: the
    density, the mean and the draws of a pixel that is always black would be those of a gray one.

    Args:
        logits: Logits l, any shape; the density is highest at 0 where l < 0, at 1 where l > 0.

    Example:
        >>> round(ContinuousBernoulli(logits=torch.tensor(-50.0)).mean.item(), 4)
        0.02
    """

    def _logits(self, least: float) -> Any:  # logits, and a mask of those too small to divide by
        small = self.logits.abs() < least
        return torch.where(small, torch.ones_like(self.logits), self.logits), small

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-density of values in [0, 1], in nats."""
        if self._validate_args:
            self._validate_sample(value)
        logits, small = self._logits(0.01)
        size = self.logits.abs()
        ratio = torch.where(small, 1 - size / 2 + size**2 / 6, -torch.expm1(-size) / logits.abs())
        return self.logits * value - (self.logits + size) / 2 - ratio.log()

    def cdf(self, value: Any) -> Any:
        """Return P(X <= value)."""
        logits, small = self._logits(1e-4)
        size = logits.abs()
        near = torch.where(logits > 0, 1 - value, value)  # from the end where the density is high
        share = torch.expm1(-size * near) / torch.expm1(-size)
        return torch.where(small, value, torch.where(logits > 0, 1 - share, share))

    def icdf(self, value: Any) -> Any:
        """Return x for which P(X <= x) is a value between 0 and 1."""
        logits, small = self._logits(1e-4)
        share = torch.where(logits > 0, 1 - value, value)
        near = -torch.log1p(share * torch.expm1(-logits.abs())) / logits.abs()
        return torch.where(small, value, torch.where(logits > 0, 1 - near, near)).clamp(0, 1)

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Return draws through which gradients reach the logits."""
        shape = self._extended_shape(sample_shape)
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))

    @property
    def mean(self) -> Any:
        """The expectation."""
        logits, small = self._logits(0.1)
        exact = -1 / torch.expm1(-logits) - 1 / logits
        return torch.where(small, 0.5 + self.logits / 12 - self.logits**3 / 720, exact)

    @property
    def variance(self) -> Any:
        """The variance."""
        logits, small = self._logits(0.5)
        square = self.logits**2
        exact = 1 / logits**2 - (2 * (logits / 2).sinh()) ** -2
        return torch.where(small, 1 / 12 - square / 240 + square**2 / 6048, exact)


class RoundedLogistic(dist.Logistic):
    """A logistic variable rounded to a whole number and clamped to 0, 1, ..., 255.

    P(x) = F(x + 1/2) - F(x - 1/2), where F is the logistic CDF with F(-1/2) = 0 and
    F(255 + 1/2) = 1. Its logarithm is taken without the difference, which would be 0 in the tails.

    Args:
        loc: Center of the logistic variable, in levels, any shape.
        scale: Scale of the logistic variable, positive, in levels.

    Example:
        >>> levels = torch.arange(256.0)
        >>> fn = RoundedLogistic(torch.tensor(300.0), torch.tensor(9.0))
        >>> round(fn.log_prob(levels).exp().sum().item(), 4)
        1.0
    """

    support: Any = constraints.integer_interval(0, 255)
    has_rsample = False

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws: whole numbers as floats."""
        return self.rsample(sample_shape).detach().round().clamp(0, 255)

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of whole numbers from 0 to 255, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        a, b = ((value + half - self.loc) / self.scale for half in (-0.5, 0.5))
        # F(b) - F(a) = F(b) (1 - F(a)) (1 - exp(a - b)), of which nothing cancels
        inside = logsigmoid(b) + logsigmoid(-a) + (-torch.expm1(-1 / self.scale)).log()
        return inside.where(value > 0, logsigmoid(b)).where(value < 255, logsigmoid(-a))

    def cdf(self, value: Any) -> Any:
        """Return P(X <= value) for whole numbers from 0 to 255."""
        below = ((value + 0.5 - self.loc) / self.scale).sigmoid()
        return torch.where(value < 255, below, torch.ones_like(below))

    @property
    def mean(self) -> Any:
        """The expectation: the sum of P(X > k)."""
        return self._sum_of_tails(lambda k: 1)

    @property
    def variance(self) -> Any:
        """The variance, from E[X^2]: the sum of (2 k + 1) P(X > k)."""
        return self._sum_of_tails(lambda k: 2 * k + 1) - self.mean**2

    def _sum_of_tails(self, weight: Callable[[int], int]) -> Any:
        """Return the sum over k = 0, ..., 254 of weight(k) P(X > k)."""
        return sum(weight(k) * ((self.loc - k - 0.5) / self.scale).sigmoid() for k in range(255))


class MixtureSameFamily(dist.MixtureSameFamily):
    """Torch's mixture, with a density that costs little where independent normals are mixed.

    Torch computes (x - m)^2 / s^2 for every row, component and dimension, and holds all of them.
    Of one mixture for all rows, the sum over the dimensions is a matrix product here, in double
    precision, because it is a difference of large numbers. Every other mixture is as torch's.

    Args:
        mixture_distribution: Categorical distribution of the component, batch shape (...).
        component_distribution: Distribution of a value in each component, batch shape
            (..., components).

    Example:
        >>> each = dist.Normal(torch.randn(500, 40), torch.ones(500, 40)).to_event(1)
        >>> mixture = MixtureSameFamily(dist.Categorical(logits=torch.zeros(500)), each)
        >>> mixture.log_prob(torch.zeros(7, 40)).shape
        torch.Size([7])
    """

    unexpanded: "MixtureSameFamily | None" = None  # this mixture before ``expand``

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the mixture for a batch of values, whose density is still one mixture's."""
        new = super().expand(batch_shape, _instance)
        new.unexpanded = self.unexpanded or self
        return new

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-density of values, (..., dimensions), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        one = self.unexpanded or self
        each: Any = one.component_distribution
        normal: Any = getattr(each, "base_dist", None)
        plain = type(normal) is dist.Normal and normal.loc.dim() == 2 and len(each.event_shape) == 1
        if not plain or value.device.type == "mps":  # which has no double precision
            return super().log_prob(value)
        x, infinite = value.double(), value.isinf()
        x = x.masked_fill(infinite, 0.0)
        locs, precisions = normal.loc.double(), normal.scale.double() ** -2
        constants = (locs**2 * precisions - precisions.log() + math.log(2 * math.pi)).sum(-1)
        squares = x**2 @ precisions.T - 2 * x @ (locs * precisions).T + constants
        logits = one.mixture_distribution.logits.log_softmax(-1)
        density = (logits - squares / 2).logsumexp(-1).masked_fill(infinite.any(-1), -math.inf)
        density = density.to(torch.promote_types(value.dtype, normal.loc.dtype))
        return density.expand(torch.broadcast_shapes(density.shape, self.batch_shape))
