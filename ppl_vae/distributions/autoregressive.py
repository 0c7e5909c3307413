"""A sequence of categorical variables, each given those before it, as one random variable.

    h_i = tanh(start + sum over j < i of read_j[k_j])       h_i: (hidden,);  i: 0 ... positions - 1
    k_i ~ Categorical(softmax(h_i write_i + bias_i))        k_i: 0 ... codes - 1

All positions are scored at once, by a cumulative sum. Drawing goes from one position to the next,
and costs no more, because the sum is carried along. With ``write`` 0 the variables are independent.

Source: Larochelle & Murray (2011), The neural autoregressive distribution estimator, section 3,
Proceedings of AISTATS 15.
"""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor


class AutoregressiveCategorical(TorchDistribution):
    """Whole numbers k_0, k_1, ..., each drawn given those before it: event (positions,).

    Mean and variance are not known, because categories have no order.

    Args:
        read: What each category of each position adds to the sum, (positions, codes, hidden).
        start: The sum before the first position, (hidden,).
        write: From the sum to logits at each position, (positions, hidden, codes).
        bias: Logits of each position without the sum, (positions, codes).

    Example:
        >>> fn = AutoregressiveCategorical(**AutoregressiveCategorical.uniform(7, codes=16))
        >>> fn.sample((5,)).shape, fn.log_prob(fn.sample((5,))).shape
        (torch.Size([5, 7]), torch.Size([5]))
    """

    arg_constraints: ClassVar[Any] = {}

    def __init__(
        self,
        read: Tensor,
        start: Tensor,
        write: Tensor,
        bias: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        self.read, self.start, self.write, self.bias = read, start, write, bias
        super().__init__(torch.Size(), bias.shape[:1], validate_args)

    @staticmethod
    def uniform(positions: int, codes: int, hidden: int = 128) -> Any:
        """Return tensors under which all codes are equally probable, where a fit can begin.

        Args:
            positions: Number of variables.
            codes: Number of values of each.
            hidden: Size of the sum that is carried from one position to the next.

        Returns:
            ``{argument of the constructor: tensor}``; ``read`` is random.
        """
        return {
            "read": 0.1 * torch.randn(positions, codes, hidden),
            "start": torch.zeros(hidden),
            "write": torch.zeros(positions, hidden, codes),
            "bias": torch.zeros(positions, codes),
        }

    @property
    def support(self) -> Any:
        """Whole numbers from 0 to codes - 1."""
        return constraints.independent(constraints.integer_interval(0, self.bias.shape[1] - 1), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution for a batch of rows, which have the same tensors."""
        fn = type(self)(self.read, self.start, self.write, self.bias, self._validate_args)
        shape = torch.Size(batch_shape)
        super(AutoregressiveCategorical, fn).__init__(shape, self.event_shape, self._validate_args)
        return fn

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of codes, (..., positions), in nats."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        k = value.long().expand(*shape, -1)
        places = torch.arange(k.shape[-1], device=k.device)
        added = self.read[places, k]  # (..., positions, hidden)
        before = self.start + added.cumsum(-2) - added
        logits = torch.einsum("...ph,phc->...pc", before.tanh(), self.write) + self.bias
        return logits.log_softmax(-1).gather(-1, k[..., None]).squeeze(-1).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws, from the first position to the last."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            before, drawn = self.start.expand(*shape[:-1], -1), []
            for read, write, bias in zip(self.read, self.write, self.bias, strict=True):
                k = torch.distributions.Categorical(logits=before.tanh() @ write + bias).sample()
                drawn.append(k)
                before = before + read[k]
            return torch.stack(drawn, -1)
