"""Counts of categories, with a total of its own for each row: the words of documents.

    x ~ Multinomial(total, softmax(logits))      x: (categories,), whole numbers that sum to total
    log p(x) = log(total!) - sum_i log(x_i!) + sum_i x_i log softmax(logits)_i

Pyro's ``Multinomial`` draws rows of one total only. Here a draw divides the total between two
halves of the categories by one binomial variable, then each half between its own halves, and so on:
log2(categories) steps for all rows together, and memory for the counts alone, however large the
totals are.

Source: Johnson, Kotz & Balakrishnan (1997), Discrete multivariate distributions, chapter 35 (sums
of counts are binomial given the total).
"""

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import pad


class Multinomial(dist.TorchDistribution):
    """Counts of categories that sum to a total, which is given for each row.

    A value is scored given its own total, whatever ``total`` is: the total matters to draws and
    moments alone. A row without any count has the log-probability 0.

    Args:
        total: Sum of the counts, any shape that broadcasts with the logits' (...).
        logits: Logits of the categories, (..., categories); they need not be normalized.

    Example:
        >>> words = Multinomial(torch.tensor([3.0, 7.0]), torch.zeros(2, 5))
        >>> words.sample().sum(-1)
        tensor([3., 7.])
        >>> words.log_prob(torch.zeros(2, 5))
        tensor([0., 0.])
        >>> words.probs[0]
        tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000])
    """

    arg_constraints = {  # noqa: RUF012
        "total": constraints.nonnegative_integer,
        "logits": constraints.real_vector,
    }
    support: Any = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, total: Any, logits: Tensor, validate_args: bool | None = None) -> None:
        total = torch.as_tensor(total, dtype=logits.dtype, device=logits.device)
        shape = torch.broadcast_shapes(total.shape, logits.shape[:-1])
        self.total, self.logits = total.expand(shape), logits.expand(*shape, -1)
        super().__init__(shape, logits.shape[-1:], validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution with another batch shape."""
        total = self.total.expand(batch_shape)
        return Multinomial(total, self.logits.expand(*batch_shape, -1), self._validate_args)

    @property
    def probs(self) -> Tensor:
        """Probabilities of the categories, (..., categories)."""
        return self.logits.softmax(-1)

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of counts, (..., categories), given their total, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        ways = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
        log_probs = self.logits.log_softmax(-1).masked_fill(value == 0, 0.0)  # 0 log 0 = 0
        return ways + (value * log_probs).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return counts, (..., categories), whole numbers as floats."""
        with torch.no_grad():
            levels = [self._padded()]
            while levels[-1].shape[-1] > 1:  # probabilities of pairs, of pairs of pairs, ...
                levels.append(levels[-1].unflatten(-1, (-1, 2)).sum(-1))
            shape = self._extended_shape(sample_shape)[:-1]
            counts = self.total.expand(shape)[..., None].contiguous()
            for whole, halves in zip(levels[:0:-1], levels[-2::-1], strict=True):
                share = (halves[..., ::2] / whole).nan_to_num(0.0).clamp(0, 1)
                left = torch.binomial(counts, share.expand_as(counts).contiguous())
                counts = torch.stack([left, counts - left], -1).flatten(-2)
            return counts[..., : self.logits.shape[-1]]

    def _padded(self) -> Tensor:
        """Return the probabilities and as many zeros as make their number a power of 2."""
        probs = self.probs
        size = probs.shape[-1]
        return pad(probs, (0, 2 ** math.ceil(math.log2(size)) - size))

    @property
    def mean(self) -> Any:
        """The expectation, (..., categories)."""
        return self.total[..., None] * self.probs

    @property
    def variance(self) -> Any:
        """The variance of each count, (..., categories)."""
        return self.mean * (1 - self.probs)
