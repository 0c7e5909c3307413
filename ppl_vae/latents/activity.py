"""How much the posterior mean of each latent varies from row to row: active units.

    activity_i = Var_n[E[z_i given x_n] - E_p[z_i given n]] / Var_p[z_i]         n: a row
    activity_k = sum_c Var_n[q(c given x_n)] / sum_c p_c (1 - p_c)               c: a category

E_p[z_i given n] is the prior's mean, which matters where the prior differs from row to row: what
follows the prior alone tells nothing of the row. A prior of variance 1 gives the activity of the
source. Where the prior has no finite variance, the latent's own variance over all rows stands for
it.

Where the means depend on draws, two means of each row, of independent draws, are compared: their
covariance over the rows has no share of the noise of the draws.

Source: Burda, Grosse & Salakhutdinov (2016), appendix C, arXiv:1509.00519.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.latents.latent_runs import ChosenRows, LatentRun, by_row, probabilities_of
from ppl_vae.latents.variables import COLLAPSED
from ppl_vae.predictive.moments import known_moments

DRAWS = 64
"""Runs of a pair whose posterior means depend on draws."""

SAME = 1e-3
"""Nats by which the priors of two rows differ at most at one value, up to rounding."""


class Activity:
    """The activity of the numbers of one latent, from runs of the pair.

    Args:
        sums: Whether the model sums a latent without the guide: a run draws that latent from its
            prior, and the prior of what follows is then no prior of the row.

    Attributes:
        varies: Whether the prior differs from row to row.
        exact: Whether the posterior means depend on no draw, as far as two runs tell.
        count: Runs so far.
    """

    def __init__(self, *, sums: bool) -> None:
        self.sums, self.count, self.exact, self.varies = sums, 0, True, False
        self._halves: list[Any] = [0.0, 0.0]
        self._prior_mean: Any = 0.0
        self._within: Any = 0.0
        self._first: Any = 0.0
        self._second: Any = 0.0
        self._cells: Tensor | None = None

    def add(self, run: LatentRun) -> None:
        """Update the activity with one more run of the pair."""
        mean = _mean(run.fn, run.value)
        draw = mean if probabilities_of(run.fn, run.value) is not None else _cells_of(run)
        if self._cells is None:
            self.varies = not same_for_rows(run)
            cells = by_row(run.cells, run.fn.event_dim)[..., None]
            self._cells = cells if cells.shape[1] == mean.shape[1] else torch.ones_like(mean)
        prior_mean, within = _prior_moments(run, mean, self._cells)
        if self.varies and not self.sums and prior_mean is not None:
            mean = mean - prior_mean
        if self.varies and self.sums and prior_mean is not None:
            within = within + _covariance(prior_mean, prior_mean, self._cells)
        half = self.count % 2
        self._halves[half] = self._halves[half] + mean
        self._within = self._within + within
        self._first, self._second = self._first + draw, self._second + draw.square()
        self.count += 1
        if self.count == 2:
            self.exact = torch.equal(self._halves[0], self._halves[1])

    def result(self) -> np.ndarray:
        """Return the activity of each number, (numbers,); NaN where fewer than two rows have it."""
        counts = (self.count + 1) // 2, self.count // 2
        first, second = (half / max(1, n) for half, n in zip(self._halves, counts, strict=True))
        assert self._cells is not None
        cells = self._cells  # 0 and 1
        rows = cells.sum(0)
        among = _covariance(first, second if counts[1] else first, cells).sum(-1)
        mean, square = self._first / self.count, self._second / self.count
        center = _average(mean, cells)
        apart = center * (1 - center) if self._categories else _average(square, cells) - center**2
        total = apart.sum(-1)
        scale = (self._within / self.count).sum(-1)
        scale = torch.where(scale.isfinite() & (scale > 0), scale, total)
        ratio = torch.where(among.abs() > 0, among / scale, 0.0).clamp(min=0.0)
        result: np.ndarray = torch.where(rows[:, 0] > 1, ratio, torch.nan).cpu().numpy()
        return result

    @property
    def _categories(self) -> bool:
        """Whether the numbers are probabilities of categories."""
        return bool(self._first.shape[-1] > 1)


def activities(chosen: ChosenRows, seed: int | None) -> dict[str, np.ndarray]:
    """Return the activity of the numbers of each latent of the rows, ``{site: (numbers,)}``.

    Args:
        chosen: The rows.
        seed: Seeds the draws; the generators are restored afterwards.
    """
    found: dict[str, Activity] = {}
    with chosen.runs(seed) as run:
        number, most = 0, 2
        while number < most:
            for name, latent in run().items():
                found.setdefault(name, Activity(sums=chosen.sums)).add(latent)
            number += 1
            if number == 2 and not all(activity.exact for activity in found.values()):
                most = DRAWS
    return {name: activity.result() for name, activity in found.items()}


def active(activity: np.ndarray) -> np.ndarray:
    """Return which of the numbers of a latent are active, of bool; NaN is not."""
    return np.asarray(np.nan_to_num(activity) > COLLAPSED)


def same_for_rows(run: LatentRun) -> bool:
    """Return whether a latent has one prior for all rows."""
    probabilities = probabilities_of(run.prior)
    if probabilities is not None:
        return bool(((probabilities - probabilities[:1]).abs() < SAME).all())
    axis = -1 - run.fn.event_dim
    few = run.value.movedim(axis, 0)[:4].unsqueeze(axis)  # of 4 rows, under the prior of each row
    try:
        log_prob = run.prior.log_prob(few)
    except (NotImplementedError, KeyError, RuntimeError, ValueError):
        return False
    if not log_prob.ndim or log_prob.shape[-1] == 1:
        return True
    known = log_prob.isfinite()
    gap = torch.where(known, log_prob - log_prob[..., :1], 0.0)
    return bool((known == known[..., :1]).all() and (gap.nan_to_num(0.0).abs() < SAME).all())


def _mean(fn: Any, value: Tensor) -> Tensor:
    """Return the posterior means of a latent, (rows, numbers, 1), or its probabilities."""
    probabilities = probabilities_of(fn, value)
    if probabilities is not None:
        return probabilities
    moments = known_moments(fn)
    mean = value if moments is None or not bool(moments[0].isfinite().all()) else moments[0]
    return by_row(mean.expand(value.shape), fn.event_dim)[..., None]


def _cells_of(run: LatentRun) -> Tensor:
    """Return the draws of a latent, (rows, numbers, 1)."""
    return by_row(run.value, run.fn.event_dim)[..., None]


def _prior_moments(run: LatentRun, like: Tensor, cells: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return the prior's mean, (rows, numbers, 1), and its variance averaged over the rows.

    Args:
        run: The latent.
        like: Its posterior means, (rows, numbers, 1), or probabilities, (rows, numbers, values).
        cells: Which numbers count, of 0 and 1, (rows, numbers, 1 or values).

    Returns:
        The mean may be unknown, ``None``; a variance of 0 stands for one that is not known.
    """
    if probabilities_of(run.fn, run.value) is not None:
        probabilities = probabilities_of(run.prior)
        if probabilities is None or probabilities.shape[1:] != like.shape[1:]:
            return None, torch.zeros_like(like[0])
        return probabilities, _average(probabilities * (1 - probabilities), cells)
    moments, event_dim = known_moments(run.prior), run.prior.event_dim
    if moments is None or len(moments) == 1:
        sample = by_row(run.prior.sample().expand(run.value.shape), event_dim)[..., None]
        return None, _covariance(sample, sample, cells)
    mean, variance = (by_row(each.expand(run.value.shape), event_dim) for each in moments)
    return mean[..., None], _average(variance[..., None], cells)


def _average(values: Tensor, cells: Tensor) -> Tensor:
    """Return the average over the rows of a table, over the cells that count."""
    average: Tensor = torch.where(cells > 0, values, 0.0).sum(0) / cells.sum(0)
    return average


def _covariance(first: Tensor, second: Tensor, cells: Tensor) -> Tensor:
    """Return the covariance over the rows of two tables, over the cells that count.

    Args:
        first: (rows, numbers, categories or 1).
        second: Likewise.
        cells: Which cells count, of 0 and 1, likewise.
    """
    apart = [each - _average(each, cells) for each in (first, second)]
    return _average(apart[0] * apart[1], cells)
