"""Mean and standard deviation of a site, over draws of what the site depends on.

    mean      E[m_s]
    variance  E[v_s] + Var[m_s]        m_s, v_s: the site's own mean and variance at draw s

m_s and v_s have the shape of the site's value, in its units. Where a distribution does not know its
moments, its draw stands for m_s and 0 for v_s. For a categorical site m_s are the probabilities,
(..., categories), and there is no variance. Var[m_s] is estimated from S draws with S - 1 below the
fraction; one draw leaves it unknown (NaN).

Moments are exact where a distribution knows them and they depend on nothing that was drawn
(``predictive.randomness``): then one draw tells them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.core.sites import Site
from ppl_vae.predictive.randomness import following_random_numbers


def known_moments(fn: Any) -> tuple[Tensor, ...] | None:
    """Return the moments of a distribution, as it knows them.

    Returns:
        (mean, variance), or the one tensor of probabilities, (..., categories), of a categorical
        distribution; ``None`` where the distribution does not know its moments.

    Example:
        >>> known_moments(dist.Normal(1.0, 2.0))
        (tensor(1.), tensor(4.))
    """
    base = fn
    while isinstance(base, dist.Independent | dist.MaskedDistribution):
        base = base.base_dist
    if isinstance(base, torch.distributions.Categorical):
        return (base.probs,)
    try:
        return fn.mean, fn.variance
    except (NotImplementedError, AttributeError):
        return None


class RunningMoments:
    """Moments of one site, updated draw by draw; only the current moments are stored.

    Attributes:
        count: Draws so far.
        exact: Whether the moments are exact, so that more draws would change nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        self.exact = False
        self._mean: Tensor | None = None
        self._within = self._between = torch.zeros(())
        self._categorical = False
        self._unknown = ""  # name of a site whose distribution does not know its moments

    def add(self, site: Site) -> None:
        """Update the moments with one more draw of the site's distribution.

        Args:
            site: The site, from a new run.
        """
        mean, variance = self._moments(site)
        self.count += 1
        if self._mean is None:
            self._mean, self._within = mean.clone(), variance.clone()
            self._between = torch.zeros_like(mean)
            return
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
        between = torch.zeros_like(self._mean) if self.exact else self._between / (self.count - 1)
        return {"mean": self._mean, "sd": (self._within + between).sqrt()}

    def expected(self) -> Tensor:
        """Return the mean; for a categorical site, the most probable category.

        It warns where one draw stands for the mean.
        """
        assert self._mean is not None
        if self._unknown and self.count == 1:
            warnings.warn(
                f'site "{self._unknown}": expected a distribution that knows its mean and variance,'
                " got one without, so that a draw stands in the place of the expected value; give "
                "the distribution both properties, or average draws",
                stacklevel=2,
            )
        return self._mean.argmax(-1) if self._categorical else self._mean

    def equals(self, site: Site) -> bool:
        """Return whether one more draw of the site's distribution has the mean of all so far."""
        return self._mean is not None and torch.equal(self._moments(site)[0], self._mean)

    def _moments(self, site: Site) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a site's distribution, (...) each, or stand-ins for them."""
        moments = known_moments(site["fn"])
        if moments is None:
            self._unknown = site["name"]
            value = site["value"].to(torch.get_default_dtype())
            return value, torch.zeros_like(value)
        if len(moments) == 1:
            self._categorical = True
            probabilities = moments[0].expand(*site["value"].shape, -1)
            return probabilities, torch.zeros_like(probabilities)
        return moments[0], moments[1]


def exact_moments(drawn: Mapping[str, Site]) -> dict[str, RunningMoments]:
    """Return the moments of sites from one run, in which they depend on nothing that was drawn.

    Args:
        drawn: The sites by name; their distributions know their moments.
    """
    moments = {name: RunningMoments() for name in drawn}
    for name, site in drawn.items():
        moments[name].add(site)
        moments[name].exact = True
    return moments


def averaged_moments(
    run: Callable[[int], Mapping[str, Site]], num_samples: int, given: Collection[str] = ()
) -> tuple[dict[str, RunningMoments], Mapping[str, Site]]:
    """Run a pair again and again, and average the moments of its sites.

    Runs follow one another, each with one particle. The second run follows the random numbers, and
    finds out which moments are exact; where all of them are, there are no further runs. Many
    particles in one run would be drawn in vain, as most guides know their moments.

    Args:
        run: Runs the pair once, and returns the sites to average by name. The argument is the
            run's number, from 0.
        num_samples: Most runs; a single one is repeated to find out which moments are exact, and
            the repetition is not averaged.
        given: Sites whose values differ from run to run because they are given, drawn elsewhere.

    Returns:
        The moments of each site, and the sites of the last run.
    """
    averages: dict[str, RunningMoments] = {}

    def add(drawn: Mapping[str, Site]) -> None:
        for name, site in drawn.items():
            averages.setdefault(name, RunningMoments()).add(site)

    last_run = run(0)
    add(last_run)
    with following_random_numbers(known_moments, given) as exact:
        again = run(1)
    for name, average in averages.items():
        # equal means are a second guard, for random numbers that leave torch on their way
        average.exact = exact.get(name, False) and name in again and average.equals(again[name])
    if num_samples == 1:
        return averages, last_run
    add(again)
    for number in range(2, num_samples):
        if all(average.exact for average in averages.values()):
            break
        again = run(number)
        add(again)
    return averages, again
