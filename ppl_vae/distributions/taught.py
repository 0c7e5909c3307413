"""An observed site of a guide that training makes more probable.

    log-probability of the site = -weight * log q(value)

Pyro subtracts the log-probability of every site of the guide from the ELBO, so that training adds
``weight * log q(value)`` to what it maximizes: a classifier beside the guide learns from labels.
"""

from __future__ import annotations

from typing import Any

from pyro.distributions import TorchDistribution
from torch import Tensor


class Taught(TorchDistribution):
    """The distribution of what the guide is to learn about, for a site with ``obs=``.

    The ELBO holds no such site (it is no part of the density of the guide's draws); the training
    loss does, and is ``objective`` in the history of a fit.

    Args:
        fn: The distribution whose log-probability of the observed value shall rise.
        weight: By how much it counts beside the ELBO; at least 0.

    Raises:
        ValueError: If the weight is negative.

    Example:
        >>> import torch
        >>> from pyro.distributions import Categorical
        >>> fn = Categorical(logits=torch.zeros(4))
        >>> round(Taught(fn, weight=2.0).log_prob(torch.tensor(3)).item(), 3)
        2.773
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  as torch has it
    has_rsample = True  # it is never drawn: no gradient of a draw is missing

    def __init__(self, fn: Any, weight: float = 1.0) -> None:
        if not weight >= 0:
            raise ValueError(f"weight: expected a number of at least 0, got {weight}")
        self.fn, self.weight = fn, weight
        super().__init__(fn.batch_shape, fn.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """The values of the distribution."""
        return self.fn.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> Taught:
        """Return the same for more values."""
        return Taught(self.fn.expand(batch_shape), self.weight)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws of the distribution."""
        return self.fn.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Any:
        """Return minus the weighted log-probability of values, in nats."""
        return -self.weight * self.fn.log_prob(value)
