"""Moments of a site over draws of what it depends on.

    mean      E[m_s]
    variance  E[v_s] + Var[m_s]        m_s, v_s: the site's own mean and variance at draw s

Where a distribution does not know its moments, its draw stands for m_s and 0 for v_s.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class RunningMoments:
    """Running moments of one site; ``settled`` once two draws gave the same moments."""

    def __init__(self) -> None:
        self.count = 0
        self.settled = False
        self._mean: Tensor | None = None
        self._first: tuple[Tensor, Tensor] | None = None
        self._within = self._between = torch.zeros(())
        self._categorical = False
        self._discrete = False

    def add(self, site: dict[str, Any]) -> None:
        """Count one more draw of the site's distribution."""
        mean, variance, exact = self._moments(site)
        self.count += 1
        if self._mean is None or self._first is None:
            self._first = (mean, variance)
            self._mean, self._within = mean.clone(), variance.clone()
            self._between = torch.zeros_like(mean)
            return
        same = torch.equal(mean, self._first[0]) and torch.equal(variance, self._first[1])
        self.settled = exact and same and self.count == 2
        shift = mean - self._mean
        self._mean = self._mean + shift / self.count
        self._between = self._between + shift * (mean - self._mean)
        self._within = self._within + (variance - self._within) / self.count

    def result(self) -> dict[str, Tensor]:
        """``mean`` and ``sd``, or ``probability`` (..., categories) of a categorical site."""
        assert self._mean is not None
        if self._categorical:
            return {"probability": self._mean}
        return {"mean": self._mean, "sd": (self._within + self._between / self.count).sqrt()}

    def expected(self) -> Tensor:
        """The mean; the most probable category of a categorical site."""
        assert self._mean is not None
        return self._mean.argmax(-1) if self._categorical else self._mean

    def _moments(self, site: dict[str, Any]) -> tuple[Tensor, Tensor, bool]:
        fn = site["fn"]
        base = fn
        while isinstance(base, dist.Independent | dist.MaskedDistribution):
            base = base.base_dist
        if isinstance(base, torch.distributions.Categorical):
            self._categorical = True
            probabilities: Tensor = base.probs
            shape = (*site["value"].shape, probabilities.shape[-1])
            probabilities = probabilities.expand(shape)
            return probabilities, torch.zeros_like(probabilities), True
        try:
            mean, variance = fn.mean, fn.variance
        except (NotImplementedError, AttributeError):
            value = site["value"].to(torch.get_default_dtype())
            return value, torch.zeros_like(value), False
        return mean, variance, True
