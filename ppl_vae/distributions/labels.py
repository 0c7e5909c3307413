"""Labels of which some are missing, and what a guide learns from those that are there.

``Label`` is the distribution of a site that observes them. ``Taught`` is that of an observed site
of a guide that training makes more probable:

    log-probability of the site = -weight * log q(value)

Pyro subtracts the log-probability of every site of the guide from the ELBO, so that training adds
``weight * log q(value)`` to what it maximizes: a classifier beside the guide learns from labels.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Categorical, TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class Label(Categorical):
    """A categorical distribution whose value may be missing, as -1 or NaN, with a probability of 1.

    So a site observes the field of the labels as it is; ``.mask`` says which rows have none.

    Args:
        logits: Log-probabilities of the labels up to a constant, (..., classes).

    Example:
        >>> Label(torch.zeros(2)).log_prob(torch.tensor([1.0, -1.0, torch.nan])).exp()
        tensor([0.5000, 1.0000, 1.0000])
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits)

    @property
    def support(self) -> Any:
        """-1, for a label that is missing, and the labels."""
        return constraints.integer_interval(-1, self.logits.shape[-1] - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Label:
        """Return the same for more values."""
        return Label(self.logits.expand(*batch_shape, self.logits.shape[-1]))

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of labels, in nats; 0 for those that are missing."""
        value = value.long() if value.dtype == torch.bool else value
        if self._validate_args:
            self._validate_sample(torch.where(value.isnan(), -torch.ones_like(value), value))
        seen = ~(value.isnan() | (value == -1))
        known = torch.where(seen, value, torch.zeros_like(value)).long()
        return torch.where(seen, super().log_prob(known), 0.0)


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
