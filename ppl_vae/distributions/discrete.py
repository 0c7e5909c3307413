"""Vectors of discrete latents, and their relaxations through which gradients flow.

    CategoricalVector(l)       z_i one-hot, (K,);  log p(z) = sum_i sum_k z_ik log softmax(l_i)_k
    BernoulliVector(l)         z_i 0 or 1;         log p(z) = sum_i z_i l_i - log(1 + exp(l_i))
    RelaxedCategoricalVector   z_i = softmax((l_i + G_i) / t),  G = -log(-log U)
    RelaxedBernoulliVector     z_i = sigmoid((l_i + log U - log(1 - U)) / t)

A vector is one event, so that all its configurations can be enumerated at one site, K^L or 2^L of
them. Log-probabilities are linear in z. At the values of a relaxed draw they are no density, but
have a gradient, which a training loss can use; what an ELBO is needs discrete draws.

At a temperature t near 0 relaxed draws are nearly discrete (the Gumbel-max identity: the largest
l_k + G_k is at k with probability softmax(l)_k), and their gradients are large. A straight-through
draw is discrete forwards and relaxed backwards.

Sources: Jang, Gu & Poole (2017), section 2, arXiv:1611.01144; Maddison, Mnih & Teh (2017), section
2, arXiv:1611.00712; Bengio et al. (2013), section 3.4, arXiv:1308.3432 (straight-through).
"""

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import register_kl
from torch.nn.functional import logsigmoid, softplus

MOST_NUMBERS = 2**28
"""Most numbers in a table of configurations, which takes 1 GiB in single precision."""

TOLERANCE = 1e-4  # how far a relaxed value may lie outside the simplex, by rounding


class _OneHot(type(constraints.one_hot)):  # type: ignore[misc]
    """One-hot vectors, and vectors of the simplex, which a relaxed guide draws in their place."""

    def check(self, value: Any) -> Any:
        """Return whether each vector has numbers from 0 that sum to 1, up to rounding: (...)."""
        return (value >= -TOLERANCE).all(-1) & ((value.sum(-1) - 1).abs() < TOLERANCE)


class _ZeroOrOne(type(constraints.boolean)):  # type: ignore[misc]
    """0 and 1, and numbers between them, which a relaxed guide draws in their place."""

    def check(self, value: Any) -> Any:
        """Return whether each number is from 0 to 1, up to rounding: (...)."""
        return (value >= -TOLERANCE) & (value <= 1 + TOLERANCE)


class _Vector(TorchDistribution):
    """What vectors of discrete variables share: their logits, and their configurations.

    Args:
        logits: Logits, (..., *event).
        temperature: Of relaxed draws, a positive scalar; ``None`` for discrete draws.
        straight_through: Whether relaxed draws are discrete, with the relaxed draw's gradient.
        validate_args: Whether arguments and values are checked; as Pyro's settings say if ``None``.
    """

    has_enumerate_support = True
    event_dims: int
    temperature: Tensor

    def __init__(
        self,
        logits: Tensor,
        temperature: Tensor | None = None,
        straight_through: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        if logits.dim() < self.event_dims:
            names = ", ".join(("variables", "categories")[: self.event_dims])
            raise ValueError(f"logits: expected shape (..., {names}), got {tuple(logits.shape)}")
        self.logits, self.straight_through = logits, straight_through
        if temperature is not None:
            self.temperature = temperature
        split = logits.dim() - self.event_dims
        shapes = logits.shape[:split], logits.shape[split:]
        try:
            super().__init__(*shapes, validate_args=validate_args)
        except ValueError as error:
            if temperature is None or bool((temperature > 0).all()):
                raise
            raise ValueError(
                f"temperature: expected a positive number, got {float(temperature):.3g}; lower it "
                "by factors: guide.temperature.mul_(0.98)"
            ) from error

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution for a larger batch; the logits are the same memory."""
        logits = self.logits.expand(torch.Size(batch_shape) + self.event_shape)
        temperature = vars(self).get("temperature")
        return type(self)(logits, temperature, self.straight_through, self._validate_args)

    @property
    def variance(self) -> Any:
        """Variance of each number of a draw."""
        return self.mean * (1 - self.mean)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws without gradients: discrete, or relaxed."""
        with torch.no_grad():
            noisy = self._noisy(sample_shape)
            return self._relaxed(noisy) if self.has_rsample else self._discrete(noisy)

    def _relaxed(self, noisy: Tensor) -> Any:
        """Return relaxed draws from logits with noise, or discrete ones with their gradients."""
        soft = self._soft(noisy / self.temperature)
        return self._discrete(noisy) + (soft - soft.detach()) if self.straight_through else soft

    def _uniform(self, sample_shape: Any) -> Tensor:
        """Return uniform draws for draws of a shape, above 0 and below 1."""
        shape = self._extended_shape(sample_shape)
        noise = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        finfo = torch.finfo(noise.dtype)
        return noise.clamp(finfo.tiny, 1 - finfo.eps)

    def _configurations(self, values: int, expand: bool) -> Tensor:
        """Return all configurations of variables that have so many values each.

        Returns:
            Codes from 0, (configurations, ..., variables), with the dimensions of the batch, of
            size 1 or whole.

        Raises:
            ValueError: If their table needs more memory than 1 GiB.
        """
        variables = self.event_shape[0]
        count = values**variables
        if count * self.event_shape.numel() > MOST_NUMBERS:
            raise ValueError(
                f"{type(self).__name__}: expected few enough joint configurations to enumerate, "
                f"got {values}^{variables} = {float(count):.3g}; draw the latent "
                "(a guide with enumerated=False, and a baseline), or relax it"
            )
        numbers = torch.arange(count, device=self.logits.device)[:, None]
        places = values ** torch.arange(variables - 1, -1, -1, device=numbers.device)
        codes = (numbers // places % values).reshape(
            count, *(1,) * len(self.batch_shape), variables
        )
        return codes.expand(count, *self.batch_shape, variables) if expand else codes


class CategoricalVector(_Vector):
    """Independent categorical variables as one event: a matrix of one-hot rows.

    Args:
        logits: Logits, (..., variables, categories), up to a constant for each variable.

    Example:
        >>> fn = CategoricalVector(torch.zeros(5, 2, 3))
        >>> fn.sample().shape, fn.log_prob(fn.sample()).shape, len(fn.enumerate_support())
        (torch.Size([5, 2, 3]), torch.Size([5]), 9)
        >>> fn.log_probs.exp()[0, 0]
        tensor([0.3333, 0.3333, 0.3333])
    """

    support: Any = constraints.independent(_OneHot(), 1)
    arg_constraints: ClassVar[Any] = {"logits": constraints.independent(constraints.real_vector, 1)}
    event_dims = 2

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities of the categories, (..., variables, categories), in nats."""
        return self.logits.log_softmax(-1)

    @property
    def mean(self) -> Any:
        """Probabilities of the categories, (..., variables, categories)."""
        return self.logits.softmax(-1)

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of one-hot values, (..., variables, categories), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return _weighted(value, self.log_probs).sum((-2, -1))

    def entropy(self) -> Any:
        """Return the entropy of all variables together, in nats."""
        return -_weighted(self.mean, self.log_probs).sum((-2, -1))

    def enumerate_support(self, expand: bool = True) -> Any:
        """Return all K^L configurations, (configurations, ..., variables, categories)."""
        categories = self.event_shape[-1]
        codes = self._configurations(categories, expand)
        each = torch.arange(categories, device=codes.device)
        return (codes[..., None] == each).to(self.logits.dtype)

    def _noisy(self, sample_shape: Any) -> Tensor:
        """Return the logits plus Gumbel noise, of the shape of draws."""
        return self.logits - (-self._uniform(sample_shape).log()).log()

    @staticmethod
    def _discrete(noisy: Tensor) -> Tensor:
        """Return 1 at the largest number of each variable and 0 elsewhere."""
        each = torch.arange(noisy.shape[-1], device=noisy.device)
        return (noisy.argmax(-1, keepdim=True) == each).to(noisy.dtype)

    @staticmethod
    def _soft(noisy: Tensor) -> Tensor:
        """Return the vector of the simplex for each variable."""
        return noisy.softmax(-1)


class BernoulliVector(_Vector):
    """Independent Bernoulli variables as one event: a vector of 0 and 1.

    Args:
        logits: Log-odds of 1, (..., variables).

    Example:
        >>> fn = BernoulliVector(torch.zeros(5, 3))
        >>> fn.sample().shape, fn.log_prob(fn.sample()).shape, len(fn.enumerate_support())
        (torch.Size([5, 3]), torch.Size([5]), 8)
    """

    support: Any = constraints.independent(_ZeroOrOne(), 1)
    arg_constraints: ClassVar[Any] = {"logits": constraints.real_vector}
    event_dims = 1

    @property
    def mean(self) -> Any:
        """Probabilities of 1, (..., variables)."""
        return self.logits.sigmoid()

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of values, (..., variables), of 0 and 1, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return (value * self.logits - softplus(self.logits)).sum(-1)

    def entropy(self) -> Any:
        """Return the entropy of all variables together, in nats."""
        return (softplus(self.logits) - self.mean * self.logits).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Any:
        """Return all 2^L configurations, (configurations, ..., variables)."""
        return self._configurations(2, expand).to(self.logits.dtype)

    def _noisy(self, sample_shape: Any) -> Tensor:
        """Return the logits plus logistic noise, the difference of two Gumbel variables."""
        return self.logits + torch.logit(self._uniform(sample_shape))

    @staticmethod
    def _discrete(noisy: Tensor) -> Tensor:
        """Return 1 where a number is above 0, and else 0."""
        return (noisy > 0).to(noisy.dtype)

    @staticmethod
    def _soft(noisy: Tensor) -> Tensor:
        """Return the number between 0 and 1 for each variable."""
        return noisy.sigmoid()


class RelaxedCategoricalVector(CategoricalVector):
    """Categorical variables whose draws are vectors of the simplex, with gradients.

    Args:
        logits: Logits, (..., variables, categories).
        temperature: t, a positive scalar.
        straight_through: Whether draws are one-hot, with the relaxed draw's gradient.

    Example:
        >>> fn = RelaxedCategoricalVector(torch.zeros(2, 3), torch.tensor(0.5))
        >>> bool((fn.rsample().sum(-1) - 1).abs().max() < 1e-6)
        True
    """

    arg_constraints: ClassVar[Any] = {
        **CategoricalVector.arg_constraints,
        "temperature": constraints.positive,
    }
    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Return draws through which gradients reach the logits."""
        return self._relaxed(self._noisy(sample_shape))


class RelaxedBernoulliVector(BernoulliVector):
    """Bernoulli variables whose draws are numbers between 0 and 1, with gradients.

    Args:
        logits: Log-odds of 1, (..., variables).
        temperature: t, a positive scalar.
        straight_through: Whether draws are 0 or 1, with the relaxed draw's gradient.

    Example:
        >>> fn = RelaxedBernoulliVector(torch.zeros(3), torch.tensor(0.5), straight_through=True)
        >>> set(fn.rsample().tolist()) <= {0.0, 1.0}
        True
    """

    arg_constraints: ClassVar[Any] = {
        **BernoulliVector.arg_constraints,
        "temperature": constraints.positive,
    }
    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Return draws through which gradients reach the logits."""
        return self._relaxed(self._noisy(sample_shape))


def _kl_categorical(p: CategoricalVector, q: CategoricalVector) -> Tensor:
    """Return sum_i sum_k p_ik (log p_ik - log q_ik), of the batch shape, in nats."""
    difference: Tensor = _weighted(p.mean, p.log_probs - q.log_probs).sum((-2, -1))
    return difference


def _kl_bernoulli(p: BernoulliVector, q: BernoulliVector) -> Tensor:
    """Return sum_i p_i (l_i - m_i) - log(1 + exp(l_i)) + log(1 + exp(m_i)), in nats."""
    constant = logsigmoid(-p.logits) - logsigmoid(-q.logits)
    total: Tensor = (p.mean * (p.logits - q.logits) + constant).sum(-1)
    return total


register_kl(CategoricalVector, CategoricalVector)(_kl_categorical)
register_kl(BernoulliVector, BernoulliVector)(_kl_bernoulli)


def _weighted(weights: Tensor, log_probs: Tensor) -> Tensor:
    """Return the products, 0 where a weight is 0 even if its log-probability is minus infinity."""
    return weights * log_probs.masked_fill((weights == 0) & (log_probs == -math.inf), 0.0)
