"""Distributions of the columns of a table: whole numbers of any size, and values that repeat.

    WholeLogistic(loc, scale)     x = y rounded, 0 where y is below 0;   y ~ Logistic(loc, scale)
    WithAtoms(base, atoms, l)     x = a_j with probability w_j, else x ~ base
                                  w_0, w_1, ..., w_A = softmax(0, l_1, ..., l_A); w_0: of the base

Hours of work a week are 40 in half of the rows, capital gains are 0 in nine of ten: no smooth
density describes such a column. An atom is a value with a probability of its own. Beside a base
with a density, log p(a_j) is the log-probability of the atom, and log p(x) elsewhere is a
log-density; beside a base of whole numbers, both are log-probabilities.

Sources: Salimans et al. (2017), section 2.1, arXiv:1701.05517 (rounding); Cragg (1971), Some
statistical models for limited dependent variables, Econometrica 39 (a value with a probability
beside a density).
"""

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.nn.functional import logsigmoid

from ppl_vae.distributions.additions import places_below


class WholeLogistic(TorchDistribution):
    """A logistic variable rounded to a whole number, where numbers below 0 become 0.

    P(x) = F(x + 1/2) - F(x - 1/2), where F is the logistic CDF with F(-1/2) = 0. Counts of any
    spread have it, narrower than a Poisson variable too. The logarithm is taken without the
    difference, so that it holds its digits for large counts and in the tails.

    Args:
        loc: Center of the logistic variable, any shape.
        scale: Scale of the logistic variable, positive.

    Example:
        >>> fn = WholeLogistic(torch.tensor(3.0), torch.tensor(2.0))
        >>> round(fn.log_prob(torch.arange(100.0)).exp().sum().item(), 4)
        1.0
    """

    support: Any = constraints.nonnegative_integer
    arg_constraints: ClassVar[Any] = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution for a larger batch."""
        return type(self)(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), self._validate_args
        )

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws: whole numbers as floats."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            noise = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            finfo = torch.finfo(noise.dtype)
            y = self.loc + self.scale * torch.logit(noise.clamp(finfo.tiny, 1 - finfo.eps))
            return y.round().clamp_min(0.0)

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of whole numbers from 0, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        a, b = ((value + half - self.loc) / self.scale for half in (-0.5, 0.5))
        # F(b) - F(a) = F(b) (1 - F(a)) (1 - exp(a - b)), of which nothing cancels
        inside = logsigmoid(b) + logsigmoid(-a) + (-torch.expm1(-1 / self.scale)).log()
        return torch.where(value > 0, inside, logsigmoid(b))


class WithAtoms(TorchDistribution):
    """A distribution of numbers with values, the atoms, that have probabilities of their own.

    Args:
        base: Distribution of the other values, batch shape (..., columns), no event.
        atoms: The values, (columns, atoms); NaN where a column has fewer.
        logits: Of each atom beside the base, whose logit is 0: (..., columns, atoms).

    Example:
        >>> import pyro.distributions as dist
        >>> base = dist.Normal(torch.zeros(1), torch.ones(1))
        >>> fn = WithAtoms(base, torch.tensor([[0.0]]), torch.zeros(1, 1))
        >>> fn.log_prob(torch.zeros(1)).exp()
        tensor([0.5000])
    """

    arg_constraints: ClassVar[Any] = {}

    def __init__(
        self, base: Any, atoms: Tensor, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self.base, self.atoms = base, atoms
        held = logits.masked_fill(atoms.isnan(), -torch.inf)
        of_base = torch.zeros_like(held[..., :1])
        self.log_weights = torch.cat([of_base, held], -1).log_softmax(-1)
        shape = torch.broadcast_shapes(base.batch_shape, self.log_weights.shape[:-1])
        super().__init__(shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The values of the base, and the atoms."""
        return _OrAtoms(self.base.support, self.atoms)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution for a larger batch."""
        new = type(self).__new__(type(self))
        new.base, new.atoms = self.base.expand(batch_shape), self.atoms
        new.log_weights = self.log_weights.expand(*batch_shape, -1)
        super(WithAtoms, new).__init__(torch.Size(batch_shape), validate_args=self._validate_args)
        return new

    @property
    def mean(self) -> Any:
        """The expectation, where the base knows its own."""
        weights = self.log_weights.exp()
        atoms = (weights[..., 1:] * self.atoms.nan_to_num()).sum(-1)
        return weights[..., 0] * self.base.mean + atoms

    @property
    def variance(self) -> Any:
        """The variance, where the base knows its own."""
        weights, mean = self.log_weights.exp(), self.mean
        apart = (self.atoms.nan_to_num() - mean[..., None]) ** 2
        of_base = self.base.variance + (self.base.mean - mean) ** 2
        return weights[..., 0] * of_base + (weights[..., 1:] * apart).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws, without gradients."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            other = self.base.expand(self.batch_shape).sample(sample_shape)
            place = places_below(self.log_weights.exp().cumsum(-1), shape)  # 0: the base
            of_atoms = torch.cat([torch.zeros_like(self.atoms[:, :1]), self.atoms], -1)
            of_atoms = of_atoms.to(other.dtype).expand(*shape, -1)
            atom = of_atoms.gather(-1, place[..., None])[..., 0]
            return torch.where(place == 0, other, atom)

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of atoms, and the base's of other values, in nats."""
        at = value[..., None] == self.atoms  # (..., columns, atoms); NaN equals nothing
        of_atom = self.log_weights[..., 1:].masked_fill(~at, -torch.inf).logsumexp(-1)
        is_atom = at.any(-1)
        discrete = bool(getattr(self.base.support, "is_discrete", False))
        inside = value if discrete else value.masked_fill(is_atom, 1.0)  # in any support
        of_base = self.log_weights[..., 0] + self.base.log_prob(inside)
        if discrete:
            return torch.where(is_atom, torch.logaddexp(of_base, of_atom), of_base)
        return torch.where(is_atom, of_atom, of_base)


class _OrAtoms(constraints.Constraint):
    """Values of a support, and some more values.

    Args:
        support: The support.
        atoms: The values, (columns, atoms); NaN where a column has fewer.
    """

    def __init__(self, support: Any, atoms: Tensor) -> None:
        self.support, self.atoms = support, atoms
        self.is_discrete = bool(getattr(support, "is_discrete", False))
        super().__init__()

    def check(self, value: Any) -> Any:
        """Return whether each value, (..., columns), is in the support or an atom."""
        return self.support.check(value) | (value[..., None] == self.atoms).any(-1)
