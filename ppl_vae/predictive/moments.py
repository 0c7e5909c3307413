"""Mean and standard deviation of a site, over draws of what the site depends on.

    mean      E[m_s]
    variance  E[v_s] + Var[m_s]        m_s, v_s: the site's own mean and variance at draw s

m_s and v_s have the shape of the site's value, in its units. Where a distribution does not know its
moments, its draw stands for m_s and 0 for v_s. For a categorical site m_s are the probabilities,
(..., categories), and there is no variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.core.sites import Site


class RunningMoments:
    """Moments of one site, updated draw by draw; only the current moments are stored.

    Attributes:
        count: Draws so far.
        settled: Whether more draws would change nothing: the first two draws gave the same moments,
            and the distribution knows its moments.
    """

    def __init__(self) -> None:
        self.count = 0
        self.settled = False
        self._mean: Tensor | None = None
        self._first: tuple[Tensor, Tensor] | None = None
        self._within = self._between = torch.zeros(())
        self._categorical = False

    def add(self, site: Site) -> None:
        """Update the moments with one more draw of the site's distribution.

        Args:
            site: The site, from a new run.
        """
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
        """Return ``mean`` and ``sd``, shaped like the site's value.

        For a categorical site: ``probability``, (..., categories).
        """
        assert self._mean is not None
        if self._categorical:
            return {"probability": self._mean}
        return {"mean": self._mean, "sd": (self._within + self._between / self.count).sqrt()}

    def expected(self) -> Tensor:
        """Return the mean; for a categorical site, the most probable category."""
        assert self._mean is not None
        return self._mean.argmax(-1) if self._categorical else self._mean

    def _moments(self, site: Site) -> tuple[Tensor, Tensor, bool]:
        """Return mean and variance of a site's distribution, and whether they are exact."""
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


def averaged_moments(
    run: Callable[[], Mapping[str, Site]], num_samples: int
) -> tuple[dict[str, RunningMoments], Mapping[str, Site]]:
    """Run a pair again and again, and average the moments of its sites.

    Runs follow one another, each with one particle, and stop as soon as all moments are settled.
    Most guides know their moments, and then two runs are enough; many particles in one run would
    be drawn in vain.

    Args:
        run: Runs the pair once, and returns the sites to average by name.
        num_samples: Most runs.

    Returns:
        The moments of each site, and the sites of the last run.
    """
    averages: dict[str, RunningMoments] = {}
    last_run: Mapping[str, Site] = {}
    for _ in range(num_samples):
        last_run = run()
        for name, site in last_run.items():
            averages.setdefault(name, RunningMoments()).add(site)
        if all(average.settled for average in averages.values()):
            break
    return averages, last_run
