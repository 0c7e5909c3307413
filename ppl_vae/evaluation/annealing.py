"""Annealed importance sampling: log p(x) of every row by chains from the prior to the posterior.

    f_t(z)    = p(z) p(x given z)^b_t              0 = b_0 < ... < b_T = 1
    log w     = sum_t (b_t - b_t-1) log p(x given z_t-1)        z_0 ~ p(z), z_t ~ K_t(z_t-1)
    log p(x)  ~ log 1/C sum_c w_c                  C chains; below the truth on average
    K_t       : Hamiltonian steps that leave f_t as it is

    reversed, from an exact draw of the posterior, with the same K_t:
    log p(x)  ~ -log 1/C sum_c 1/w_c               above the truth on average

The guide plays no part, so that a guide which misses a mode, or has weights with heavy tails, is
found out. Rows that the model has made come with an exact draw of their posterior: the latents that
they were made from. The two estimates then bracket log p(x): their distance bounds both errors.

Chains move in coordinates without bounds (the logarithm of a positive latent), all rows and chains
of a block at once. Discrete latents have to be summed. A short run with few temperatures finds the
length of the steps and the width of each coordinate, row by row, which then stay as they are: moves
that adapted to their own past would not leave f_t as it is.

Sources: Neal (2001), arXiv:physics/9803008 (annealed importance sampling); Wu, Burda, Salakhutdinov
& Grosse (2017), arXiv:1611.04273 (decoders, Hamiltonian steps); Grosse, Ghahramani & Adams (2015),
arXiv:1511.02543 (both directions, the temperatures); Neal (2011), arXiv:1206.1901 (the steps).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, batch_rows
from ppl_vae.evaluation.tempered_density import Points, TemperedDensity

CHAINS = 16
"""C, chains of each row."""

LEAPS = 2
"""Leapfrog steps of a Hamiltonian move."""

PILOT = 10
"""The run that finds the lengths of the steps has this part of the temperatures."""

FEWEST = 20
"""Fewest temperatures of that run."""

ACCEPTED = 0.8
"""Share of accepted moves that the lengths of the steps are chosen for."""

STEEPNESS = 4.0
"""How much denser temperatures are near 0 and 1 than in the middle."""

At = Callable[[Points, float], tuple[Tensor, Tensor, Points]]
"""The log-density, the log-likelihood and the gradient at points, under a temperature."""


class AnnealedLikelihood:
    """Estimates log p(x) of blocks of rows by annealing.

    Args:
        pair: The pair; of the guide, only which latents it sums.
        rows: The data.
        num_temperatures: T.

    Raises:
        ValueError: If a latent cannot be moved: a discrete one that is drawn, one outside the row
            plate, or none.
    """

    def __init__(self, pair: Pair, rows: Rows, num_temperatures: int) -> None:
        self.density = TemperedDensity(pair, rows)
        self.num_temperatures = num_temperatures
        self.pilot_temperatures = sigmoid_temperatures(max(FEWEST, num_temperatures // PILOT))

    def moves(self, *, both: bool) -> int:
        """Return how many Hamiltonian moves a block of rows takes, in one direction or in both."""
        return self.num_temperatures * (1 + both) + len(self.pilot_temperatures) - 1

    def below(self, batch: Batch, bar: Any) -> dict[str, Tensor]:
        """Return the estimate from below, ``log_prob``, and ``ess`` of the chains, (rows,) each.

        Args:
            batch: The rows.
            bar: The progress bar, which counts moves.
        """
        moves = self._pilot(batch, bar)
        start = self.density.prior_points(batch, CHAINS)
        return _below(self._run(batch, moves, start, bar, backward=False))

    def both(self, batch: Batch, latents: Mapping[str, Tensor], bar: Any) -> dict[str, Tensor]:
        """Return ``log_prob``, ``ess`` and the estimate from above, ``log_prob_upper``, (rows,).

        Args:
            batch: The rows, as the model has made them.
            latents: The latents that the rows were made from, ``{site: (rows, ...)}``.
            bar: The progress bar, which counts moves.
        """
        moves = self._pilot(batch, bar)
        start = self.density.prior_points(batch, CHAINS)
        below = self._run(batch, moves, start, bar, backward=False)
        known = self.density.points(latents, CHAINS)
        above = self._run(batch, moves, known, bar, backward=True)
        upper = math.log(CHAINS) - (-above).logsumexp(0)
        return {**_below(below), "log_prob_upper": upper}

    def _pilot(self, batch: Batch, bar: Any) -> _Moves:
        """Return the lengths of steps and the widths of coordinates, found on the way once."""
        points = self.density.prior_points(batch, CHAINS)
        temperatures = self.pilot_temperatures
        self.density.trace(batch, points)
        density = self.density.of_block(batch)
        widths = _widths(points, None)
        step = next(iter(points.values())).new_full((batch_rows(batch),), 0.5)
        kept, spreads = [], [density(points, 0.0)[1].std(0)]
        for temperature in temperatures[1:].tolist():
            for _ in range(2):  # the step adapts faster than the temperature
                points, log_likelihood, accepted = _move(density, points, temperature, step, widths)
                step = (step * (accepted - ACCEPTED).mul(0.5).exp()).clamp(1e-4, 1.5)
            widths = _widths(points, widths)
            kept.append((step.clone(), widths))
            spreads.append(log_likelihood.std(0))
            bar.update()
        spread = torch.stack(spreads).double().nanmean(1).cpu()
        chosen = even_temperatures(temperatures, spread, self.num_temperatures)
        return _Moves(temperatures[1:], kept, chosen)

    def _run(
        self, batch: Batch, moves: _Moves, points: Points, bar: Any, *, backward: bool
    ) -> Tensor:
        """Return the log-weights of chains that go through all temperatures, (chains, rows)."""
        density, temperatures = self.density.of_block(batch), moves.chosen
        total: Any = 0.0
        log_likelihood = density(points, 1.0)[1]
        steps = range(1, len(temperatures))
        for t in reversed(steps) if backward else steps:
            rise = float(temperatures[t] - temperatures[t - 1])
            total = total + rise * log_likelihood.double()
            other = float(temperatures[t - 1] if backward else temperatures[t])
            if (backward and t > 1) or (not backward and t < len(temperatures) - 1):
                step, widths = moves.at(other)
                points, log_likelihood, _ = _move(density, points, other, step, widths)
            bar.update()
        result: Tensor = total
        return result


def _below(log_weights: Tensor) -> dict[str, Tensor]:
    """Return log p(x), estimated from below, and the effective number of chains, (rows,) each."""
    total = log_weights.logsumexp(0)
    ess = (2 * total - (2 * log_weights).logsumexp(0)).exp()
    return {"log_prob": total - math.log(len(log_weights)), "ess": ess}


@dataclass(frozen=True)
class _Moves:
    """The lengths of Hamiltonian steps, and the widths of the coordinates, by temperature.

    Attributes:
        temperatures: (pilot's temperatures,), rising.
        kept: The lengths, (rows,), and the widths at each of them.
        chosen: The temperatures of the chains, from 0 to 1.
    """

    temperatures: Tensor
    kept: list[tuple[Tensor, Points]]
    chosen: Tensor

    def at(self, temperature: float) -> tuple[Tensor, Points]:
        """Return the lengths and the widths at the next temperature that the pilot has had."""
        place = int(torch.searchsorted(self.temperatures, temperature))
        return self.kept[min(place, len(self.kept) - 1)]


def sigmoid_temperatures(count: int) -> Tensor:
    """Return ``count`` + 1 rising temperatures from 0 to 1, denser at both ends.

    Source: Grosse, Ghahramani & Adams (2015), arXiv:1511.02543.

    Example:
        >>> sigmoid_temperatures(4)
        tensor([0.0000, 0.1050, 0.5000, 0.8950, 1.0000], dtype=torch.float64)
    """
    places = torch.linspace(-1, 1, count + 1, dtype=torch.double)
    values = (STEEPNESS * places).sigmoid()
    return (values - values[0]) / (values[-1] - values[0])


def even_temperatures(temperatures: Tensor, spread: Tensor, count: int) -> Tensor:
    """Return ``count`` + 1 temperatures between which log-weights change by about as much.

    The change from one temperature to the next has the standard deviation of the log-likelihood
    times the distance; even changes give the sum the least variance.

    Source: Gelman & Meng (1998), Statistical Science 13 (the optimal path's speed).

    Args:
        temperatures: Rising, from 0 to 1.
        spread: Standard deviation of the log-likelihood at each of them, in nats.
        count: How many steps to choose.

    Example:
        >>> grid = torch.linspace(0, 1, 5).double()
        >>> even_temperatures(grid, torch.ones(5).double(), 2)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if not bool(spread.isfinite().all()) or float(spread.sum()) <= 0:
        return sigmoid_temperatures(count)
    speed = spread + 0.05 * spread.mean()  # no part is passed in a single leap
    lengths = temperatures.diff() * (speed[1:] + speed[:-1]) / 2
    distance = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).numpy()
    even = np.interp(np.linspace(0, distance[-1], count + 1), distance, temperatures.numpy())
    return torch.as_tensor(even)


def _move(
    density: At,
    points: Points,
    temperature: float,
    step: Tensor,
    widths: Points,
) -> tuple[Points, Tensor, Tensor]:
    """Return the points after one Hamiltonian move that leaves the tempered posterior as it is.

    Args:
        density: The tempered density.
        points: The points.
        temperature: b_t.
        step: Length of a leap of each row, in widths, (rows,).
        widths: Width of each coordinate.

    Returns:
        The points; their log-likelihood, (chains, rows); and each row's share of accepted moves.
    """
    before, log_likelihood, gradient = density(points, temperature)
    start = {name: torch.randn_like(value) for name, value in points.items()}
    leaps = {name: step[:, None] * widths[name] for name in points}  # widths: (.., rows, numbers)
    new, momenta = dict(points), dict(start)
    new_density, new_likelihood = before, log_likelihood
    for name in new:
        momenta[name] = momenta[name] + 0.5 * leaps[name] * gradient[name]
    for leap in range(LEAPS):
        new = {name: new[name] + leaps[name] * momenta[name] for name in new}
        new_density, new_likelihood, slope = density(new, temperature)
        last = 0.5 if leap == LEAPS - 1 else 1.0
        for name in new:
            momenta[name] = momenta[name] + last * leaps[name] * slope[name]
    change = new_density - before + _energy(start) - _energy(momenta)
    change = change.nan_to_num(-math.inf, math.inf, -math.inf)  # a leap out of all bounds
    accepted = torch.rand_like(change).log() < change
    points = {
        name: torch.where(accepted.reshape(_beside(accepted, value)), new[name], value)
        for name, value in points.items()
    }
    rate = change.clamp(max=0).exp().mean(0)
    return points, torch.where(accepted, new_likelihood, log_likelihood), rate


def _energy(momenta: Points) -> Tensor:
    """Return the kinetic energy of each chain of each row, (chains, rows)."""
    parts = [0.5 * value.square().sum(-1) for value in momenta.values()]
    return torch.stack([part.reshape(len(part), -1, part.shape[-1]).sum(1) for part in parts]).sum(
        0
    )


def _beside(marks: Tensor, value: Tensor) -> tuple[int, ...]:
    """Return the shape in which marks of chains and rows broadcast with points."""
    return (len(marks), *(1,) * (value.ndim - 3), marks.shape[1], 1)


def _widths(points: Points, before: Points | None) -> Points:
    """Return the width of each coordinate: the chains' standard deviation, drawn to the one before.

    With few chains a standard deviation is noise; the one before counts as half as many chains.
    """
    widths = {}
    for name, value in points.items():
        variance = value.var(0)
        if before is None:  # of the prior, which rows share as a rule
            variance = 0.5 * (variance + variance.mean(-2, keepdim=True))
        else:
            variance = (2 * variance + before[name].square()) / 3
        widths[name] = variance.clamp(min=1e-12).sqrt()
    return widths
