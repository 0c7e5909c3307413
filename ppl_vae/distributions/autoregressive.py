"""A sequence of categorical variables, each given the ones before it, as one random variable.

    log p(k) = sum_i log softmax(l_i)[k_i]      k: (positions,), each 0 ... codes - 1
    l = network(k)                              l: (positions, codes); l_i reads k_0 ... k_(i-1)

All positions are scored at once. Only drawing goes from one position to the next.

Source: Germain et al. (2015), section 3, arXiv:1502.03509.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class AutoregressiveCategorical(TorchDistribution):
    """Whole numbers k_0, k_1, ..., each drawn given those before it: event (positions,).

    Mean and variance are not known, because the codes have no order.

    Args:
        network: Function or module (..., positions) of whole numbers -> logits (..., positions,
            codes); the logits of a position depend on the numbers before it alone.
        positions: Number of variables.
        codes: Number of values of each variable.

    Example:
        >>> from ppl_vae.nn import CodeLogits
        >>> fn = AutoregressiveCategorical(CodeLogits(7, codes=16), positions=7, codes=16)
        >>> fn.sample((5,)).shape, fn.log_prob(fn.sample((5,))).shape
        (torch.Size([5, 7]), torch.Size([5]))
    """

    arg_constraints: ClassVar[Any] = {}

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        positions: int,
        codes: int,
        batch_shape: Any = (),
        validate_args: bool | None = None,
    ) -> None:
        self.network, self.positions, self.codes = network, positions, codes
        super().__init__(torch.Size(batch_shape), torch.Size([positions]), validate_args)

    @property
    def support(self) -> Any:
        """Whole numbers from 0 to codes - 1."""
        return constraints.independent(constraints.integer_interval(0, self.codes - 1), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution for a batch of rows."""
        return type(self)(
            self.network, self.positions, self.codes, batch_shape, self._validate_args
        )

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of codes, (..., positions), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        value = value.expand(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), -1).long()
        log_probs = self.network(value).log_softmax(-1)
        return log_probs.gather(-1, value[..., None]).squeeze(-1).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws, from the first position to the last; the network runs once for each."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            drawn = torch.zeros(shape, dtype=torch.long)
            for position in range(self.positions):
                logits = self.network(drawn)[..., position, :]
                drawn[..., position] = torch.distributions.Categorical(logits=logits).sample()
            return drawn
