"""The posterior of missing cells in a few numbers: value, spread, interval, probability.

value    the mean of real numbers, the median of positive ones, whose mean a single far draw may
         decide, the rounded mean of counts, the most probable category
bounds   weighted quantiles of the draws: below and above lie at most (1 - level) / 2 each
outside  whether a value that is a mean is outside the central 90 % of the draws, so that a far tail
         alone decides the value
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ppl_vae.data.rows import Batch, batch_rows
from ppl_vae.evaluation.psis import WeightSums
from ppl_vae.imputation.missing import MissingCells
from ppl_vae.imputation.moments import Moments, RunningMoments, RunningRows
from ppl_vae.imputation.posterior import CellDraws, CellPosterior

STATISTICS = ("value", "sd", "lower", "upper", "probability")
CENTRAL = 0.9  # probability of the interval outside of which no mean is to be believed
ROUNDING = 1e-5  # of a bound: draws are in single precision, and a mean is a sum of many


@dataclass(frozen=True)
class SiteDraws:
    """All draws of the missing cells that one site has in a block of rows.

    Attributes:
        cells: The cells; their rows are positions in the block.
        values: The draws, (samples, cells), in double precision.
        average: Moments over all draws.
        moments: Moments at some of the draws, for what kind of numbers the cells hold.
    """

    cells: MissingCells
    values: Tensor
    average: RunningMoments
    moments: Moments


@dataclass(frozen=True)
class BlockDraws:
    """All draws of the missing cells of a block of rows.

    Attributes:
        log_weights: (samples, rows), in nats.
        discrete: Whether a discrete latent of the rows was drawn.
        sites: The draws of each site with missing cells.
        order: Which cells of the sites, one site after the other, are wanted, in which order.
    """

    log_weights: Tensor
    discrete: bool
    sites: list[SiteDraws]
    order: Tensor

    @classmethod
    def of(cls, posterior: CellPosterior, batch: Batch) -> BlockDraws:
        """Draw all missing cells of a block.

        Args:
            posterior: Draws them.
            batch: The block.
        """
        running = RunningRows(batch_rows(batch))
        weights: list[Tensor] = []
        parts: list[list[CellDraws]] = []
        averages: list[RunningMoments] = []
        discrete = False
        for log_weights, discrete, cells in posterior.draws(batch):  # noqa: B007
            share, within = running.add(log_weights)
            averages = averages or [RunningMoments() for _ in cells]
            for average, each in zip(averages, cells, strict=True):
                average.add(each.moments, share[each.cells.rows], within[:, each.cells.rows])
            weights.append(log_weights.detach().to("cpu", torch.double))
            parts.append(cells)
        by_site = zip(zip(*parts, strict=True), averages, strict=True)
        sites = [
            SiteDraws(
                part[0].cells, torch.cat([e.values for e in part]).double(), average,
                part[0].moments,
            )
            for part, average in by_site
        ]  # fmt: skip
        order = torch.arange(sum(len(site.cells) for site in sites))
        return cls(torch.cat(weights), discrete, sites, order)

    @property
    def rows(self) -> Tensor:
        """The position in the block of each wanted cell's row, (cells,)."""
        return torch.cat([site.cells.rows for site in self.sites])[self.order]

    def wanted(self, cells: MissingCells) -> BlockDraws:
        """Return the draws with the cells that are wanted, in their order.

        Args:
            cells: The missing cells of the block; their rows are positions in the block.

        Raises:
            ValueError: If no site has draws of a cell: a mask changes from run to run.
        """
        own = [key for site in self.sites for key in _keys(site.cells)]
        position = {key: place for place, key in enumerate(own)}
        try:
            order = [position[key] for key in _keys(cells)]
        except KeyError:
            raise ValueError(
                "model: expected masks that hide the same cells in every run, got others in a "
                "second run; let them depend on the data alone"
            ) from None
        return replace(self, order=torch.tensor(order, dtype=torch.long))

    def reliability(self) -> dict[str, Tensor]:
        """Return ``ess`` and ``k_hat`` of each wanted cell's row, (cells,) each."""
        sums = WeightSums(*self.log_weights.shape, draws_discrete=self.discrete)
        sums.add(self.log_weights, self.log_weights)
        result = sums.result()
        return {name: result[name][self.rows] for name in ("ess", "k_hat")}

    def draws(self, count: int) -> Tensor:
        """Draw the wanted cells, all of a row together: (count, cells).

        Args:
            count: Number of draws.
        """
        chosen = self.log_weights.softmax(0).T.multinomial(count, replacement=True).T
        values = torch.cat([site.values for site in self.sites], 1)[:, self.order]
        return values.gather(0, chosen[:, self.rows])

    def summary(self, level: float) -> dict[str, Tensor]:
        """Return the statistics of the wanted cells and ``outside``, ``{name: (cells,)}``.

        Args:
            level: Probability of the intervals.
        """
        weights = self.log_weights.softmax(0)
        parts = [_summary(site, weights[:, site.cells.rows], level) for site in self.sites]
        names = (*STATISTICS, "outside")
        return {name: torch.cat([part[name] for part in parts])[self.order] for name in names}

    def probabilities(self) -> Tensor:
        """Return the probability of each category of the wanted cells, (cells, most categories).

        NaN stands where a cell has no such category, and in the cells of numbers.
        """
        parts = []
        for site in self.sites:
            mean = site.average.mean.double()
            if site.moments.kind == "binary":
                mean = torch.stack([1 - mean, mean], -1)
            elif site.moments.kind != "category":
                mean = torch.full((len(site.cells), 0), torch.nan, dtype=torch.double)
            parts.append(mean)
        return joined_rows(parts)[self.order]


def joined_rows(parts: list[Tensor]) -> Tensor:
    """Return matrices of different widths one below the other, NaN where one is narrower."""
    width = max((part.shape[1] for part in parts), default=0)
    padded = [pad(part, (0, width - part.shape[1]), value=torch.nan) for part in parts]
    return torch.cat(padded) if padded else torch.zeros(0, width, dtype=torch.double)


def _keys(cells: MissingCells) -> list[tuple[int, ...]]:
    """Return (row, field, place) of each cell."""
    keys = torch.stack([cells.rows, cells.fields, cells.places], 1).tolist()
    return [tuple(key) for key in keys]


def _summary(site: SiteDraws, weights: Tensor, level: float) -> dict[str, Tensor]:
    """Return the statistics of the missing cells of one site.

    Args:
        site: Their draws.
        weights: Weights of the draws, which sum to 1, (samples, cells).
        level: Probability of the intervals.
    """
    moments, average, draws = site.moments, site.average, site.values
    unknown = torch.full((draws.shape[1],), torch.nan, dtype=torch.double)
    inside = torch.zeros(draws.shape[1], dtype=torch.bool)
    if moments.kind == "category":
        probability, value = average.mean.max(-1)
        result = {"value": value.double(), "probability": probability, "outside": inside}
        return {name: result.get(name, unknown) for name in (*STATISTICS, "outside")}
    lower, middle, upper = weighted_quantiles(draws, weights, level)
    mean = torch.where(average.mean.isfinite(), average.mean, middle)
    value, probability, sd, outside = mean, unknown, average.sd, inside
    if moments.kind == "one-hot":
        by_vector = mean.reshape(-1, moments.categories)
        best = by_vector.argmax(-1, keepdim=True)
        value = torch.zeros_like(by_vector).scatter_(1, best, 1.0).flatten()
        probability = by_vector.gather(1, best).expand_as(by_vector).flatten()
    elif moments.kind == "binary":
        value, probability = (mean > 0.5).double(), torch.maximum(mean, 1 - mean)
    else:
        value = mean.round() if moments.kind == "count" else mean
        outside = _outside(value, draws, weights)
    if moments.kind == "positive":
        # The far draws that decide the mean decide the standard deviation as well.
        value, sd, outside = middle, torch.where(outside, torch.nan, sd), inside
    return {
        "value": value, "sd": sd, "lower": lower, "upper": upper, "probability": probability,
        "outside": outside,
    }  # fmt: skip


def _outside(value: Tensor, draws: Tensor, weights: Tensor) -> Tensor:
    """Return which values, (cells,), are outside the central 90 % of the draws of their cells.

    Args:
        value: The values.
        draws: (samples, cells).
        weights: Weights of the draws, which sum to 1, (samples, cells).
    """
    lower, _, upper = weighted_quantiles(draws, weights, CENTRAL)
    slack = ROUNDING * torch.maximum(lower.abs(), upper.abs())
    return (value < lower - slack) | (value > upper + slack)


def weighted_quantiles(
    draws: Tensor, weights: Tensor, level: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return lower bound, median and upper bound of weighted draws, (cells,) each.

    The bounds are drawn values. At most (1 - level) / 2 of the weight lies below the lower one, and
    as much above the upper one.

    Args:
        draws: (samples, cells).
        weights: (samples, cells), which sum to 1 in each cell.
        level: Probability between the bounds.

    Example:
        >>> draws = torch.tensor([[3.0], [1.0], [2.0]])
        >>> weights = torch.tensor([[0.1], [0.1], [0.8]])
        >>> [bound.item() for bound in weighted_quantiles(draws, weights, 0.7)]
        [2.0, 2.0, 2.0]
    """
    ordered, order = draws.sort(0)
    below = weights.gather(0, order).cumsum(0).T.contiguous()  # (cells, samples)
    tail = (1 - level) / 2
    bounds = []
    for share, right in ((tail, True), (0.5, False), (1 - tail, False)):
        wanted = torch.full((len(below), 1), share, dtype=below.dtype)
        place = torch.searchsorted(below, wanted - (0 if right else 1e-12), right=right)
        bounds.append(ordered.gather(0, place.clamp(max=len(draws) - 1).T)[0])
    lower, middle, upper = bounds
    return lower, middle, upper
