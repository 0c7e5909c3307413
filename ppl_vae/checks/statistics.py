"""Statistics of whole data sets, chosen by what a site's values are.

    T: (data sets, rows, features)  ->  {statistic: (data sets, values)}

    real numbers   mean, sd, skewness, kurtosis, minimum, maximum, five quantiles, correlation
    counts         mean, dispersion index (variance / mean), zero fraction, maximum, correlation
    0 or 1         rate, co-occurrence (share of rows in which both are 1)
    categories     rate of each category, co-occurrence of two

There is one value a feature, a category, or a pair of features. Cells under a mask enter none. Of
many features, 64 evenly chosen ones make the pairs. The kurtosis of a normal distribution is 3; a
quantile is the smallest value that at least such a share of the cells does not exceed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

PAIRED = 64  # features, at most, whose pairs are looked at
ROUNDING = 1e-10  # of a mean square: a variance below it is none
PART = 1 << 18  # numbers looked at in one go: they stay in the processor's cache
BINS = 1 << 16
SHARES = {
    "5 % quantile": 0.05, "25 % quantile": 0.25, "median": 0.5, "75 % quantile": 0.75,
    "95 % quantile": 0.95,
}  # fmt: skip

STATISTICS: dict[str, dict[str, tuple[str, ...]]] = {  # of each kind, by what finds them
    "real": {
        "moments": ("mean", "sd", "skewness", "kurtosis", "correlation"),
        "extremes": ("minimum", "maximum"),
        "quantiles": tuple(SHARES),
    },
    "counts": {
        "moments": ("mean", "dispersion index", "zero fraction", "correlation"),
        "extremes": ("maximum",),
    },
    "binary": {"rates": ("rate", "co-occurrence")},
    "categories": {"rates": ("rate", "co-occurrence")},
}

Values = dict[str, Tensor]


@dataclass(frozen=True)
class ValueKind:
    """What the values of a site are.

    Attributes:
        name: ``"real"``, ``"counts"``, ``"binary"`` or ``"categories"``.
        categories: How many there are, of a categorical site.
    """

    name: str
    categories: int = 0

    @classmethod
    def of(cls, fn: Any) -> ValueKind:
        """Read it off a site's distribution."""
        base: Any = fn
        while hasattr(base, "base_dist") and not hasattr(base, "transforms"):
            base = base.base_dist
        support = getattr(fn, "support", constraints.real)
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        if support is constraints.boolean or isinstance(
            base, torch.distributions.OneHotCategorical
        ):
            return cls("binary")
        if isinstance(base, torch.distributions.Categorical):
            count = base.probs.shape[-1]
            return cls("categories", count) if count > 2 else cls("binary")
        return cls("counts" if support.is_discrete else "real")

    @property
    def has_order(self) -> bool:
        """Whether values are more or less than each other."""
        return self.name != "categories"

    @property
    def names(self) -> list[str]:
        """Names of the statistics."""
        return [name for group in self.statistics().values() for name in group]

    def statistics(self) -> dict[str, tuple[str, ...]]:
        """Names of the statistics, by the function that finds them."""
        return STATISTICS[self.name]

    def grain(self, statistic: str, rows: int) -> float:
        """The smallest step of a statistic: one count, one row; 0 where it has none."""
        if statistic in ("rate", "co-occurrence", "zero fraction"):
            return 1 / rows
        return 1.0 if self.name == "counts" and statistic == "maximum" else 0.0

    def find(self, x: Tensor, kept: Tensor | None, wanted: Sequence[str] | None = None) -> Values:
        """The statistics of some data sets.

        Args:
            x: (data sets, rows, features).
            kept: (rows, features) of bool, the cells that count; ``None`` is all.
            wanted: Names; all by default.

        Returns:
            ``{statistic: (data sets, values)}`` in doubles.
        """
        found: Values = {}
        for function, names in self.statistics().items():
            chosen = [name for name in names if wanted is None or name in wanted]
            if chosen:
                values = _FUNCTIONS[function](x, kept, self.categories)
                found.update({name: values[name] for name in chosen if values[name].shape[1]})
        return found

    def labels(self, features: Sequence[str]) -> dict[str, list[str]]:
        """What the values of each statistic belong to."""
        single = list(features)
        if self.categories:
            single = [f"{name} = {c}" for name in features for c in range(self.categories)]
        some = paired_features(len(single))
        both = [f"{single[some[i]]} & {single[some[j]]}" for i, j in pairs(some, self.categories)]
        joint = ("correlation", "co-occurrence")
        return {name: both if name in joint else single for name in self.names}


def paired_features(features: int) -> list[int]:
    """The features whose pairs are looked at: all of a few, evenly chosen ones of many."""
    if features <= PAIRED:
        return list(range(features))
    return torch.linspace(0, features - 1, PAIRED, dtype=torch.double).long().tolist()


def moments(x: Tensor, kept: Tensor | None, categories: int = 0) -> Values:
    """Mean, sd, dispersion index, zero fraction, skewness, kurtosis, correlation.

    Sums are of distances from a rounded center in a rounded unit, (x - c) / u, and what the
    rounding left is taken out in doubles: large offsets cost no digits.
    """
    count = _count(x, kept)
    start = _first(x, kept)
    total, zeros = _sums(
        x, kept, lambda part, mask: (_hidden(part - start, mask), _hidden(part == 0, mask))
    )
    mean = start[:, 0].double() + total / count
    center = mean.to(x.dtype)[:, None]
    unit = _unit(x, kept, center)
    some = paired_features(x.shape[-1])
    products = _Products(len(x), some, kept)

    def powers(part: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        u = _hidden((part - center) / unit, mask)
        square = u.square()
        products.add(u, square, mask)
        return u, square, square * u, square.square()

    first, second, third, fourth = (power / count for power in _sums(x, kept, powers))
    square = second - first**2
    square = torch.where(square < ROUNDING * second, 0.0, square)
    cube = third - 3 * first * second + 2 * first**3
    fourth = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
    length = unit[:, 0].double()
    variance = square * length**2 * count / (count - 1)
    return {
        "mean": mean,
        "sd": variance.sqrt(),
        "dispersion index": variance / mean,
        "zero fraction": zeros / count,
        "skewness": cube / square**1.5,
        "kurtosis": fourth / square**2,
        "correlation": _above(products.correlation(x.shape[1], first, second), some),
    }


class _Products:
    """Sums of products of two features, over the rows in which both count.

    Args:
        sets: Data sets.
        some: The features that are paired.
        kept: Which cells count; ``None`` is all.
    """

    def __init__(self, sets: int, some: list[int], kept: Tensor | None) -> None:
        self.some, self.kept = some, kept
        size = (sets, len(some), len(some))
        self.together = torch.zeros(size, dtype=torch.double)
        self.alone, self.squares = self.together.clone(), self.together.clone()

    def add(self, u: Tensor, square: Tensor, mask: Tensor | None) -> None:
        """Take in some rows, (data sets, rows, features), 0 where a cell does not count."""
        u = u[..., self.some]
        self.together = self.together + torch.bmm(u.transpose(1, 2), u).cpu()
        if mask is not None:  # sums of i over the rows in which j counts too
            both = mask[:, self.some].to(u.dtype).expand(len(u), -1, -1)
            self.alone = self.alone + torch.bmm(u.transpose(1, 2), both).cpu()
            square = square[..., self.some]
            self.squares = self.squares + torch.bmm(square.transpose(1, 2), both).cpu()

    def correlation(self, rows: int, first: Tensor, second: Tensor) -> Tensor:
        """(data sets, features, features), from each feature's first two moments."""
        if self.kept is None:
            count: Any = rows
            mean = first.cpu()[:, self.some, None].expand_as(self.together)
            square = second.cpu()[:, self.some, None].expand_as(self.together)
        else:
            held = self.kept[:, self.some].double().cpu()
            count = held.T @ held
            mean, square = self.alone / count, self.squares / count
        variance = square - mean**2
        variance = torch.where(variance < ROUNDING * square, 0.0, variance)
        covariance = self.together / count - mean * mean.transpose(1, 2)
        found: Tensor = covariance / (variance * variance.transpose(1, 2)).sqrt()
        return found


def _first(x: Tensor, kept: Tensor | None) -> Tensor:
    """A value of each feature that counts: (data sets, 1, features)."""
    if kept is None:
        return x[:, :1]
    row = kept.int().argmax(0).expand(len(x), 1, -1)
    return x.gather(1, row).masked_fill(~kept.any(0), 0.0)


def _unit(x: Tensor, kept: Tensor | None, center: Tensor) -> Tensor:
    """About the spread of each feature, and never 0: (data sets, 1, features)."""
    far = torch.zeros_like(center)
    for part, mask in _parts(x, kept):
        far = torch.maximum(far, _hidden((part - center).abs(), mask).amax(1, keepdim=True))
    return torch.where(far > 0, far, 1.0)


def extremes(x: Tensor, kept: Tensor | None, categories: int = 0) -> Values:
    """Minimum and maximum."""
    low = x if kept is None else x.masked_fill(~kept, math.inf)
    high = x if kept is None else x.masked_fill(~kept, -math.inf)
    found = {"minimum": low.amin(1).double(), "maximum": high.amax(1).double()}
    return {name: _known(values, kept) for name, values in found.items()}


def quantiles(x: Tensor, kept: Tensor | None, categories: int = 0) -> Values:
    """Five quantiles, each the value of a cell."""
    if kept is not None:
        return _masked_quantiles(x, kept)
    ranks = [max(0, math.ceil(share * x.shape[1]) - 1) for share in SHARES.values()]
    found = np.empty((len(ranks), len(x), x.shape[-1]))
    for i, one in enumerate(x):
        columns = one.T.contiguous().cpu().numpy()  # a feature's cells side by side
        for j, column in enumerate(columns):
            found[:, i, j] = order_statistics(column, ranks)
    return dict(zip(SHARES, torch.from_numpy(found), strict=True))


def order_statistics(values: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """The values of some ranks, 0 the smallest: exact, and several times faster than a sort.

    Values are first counted in 2^16 narrow bins; only the bin that holds a rank is looked into.
    """
    low, spread = float(values.min()), float(values.max()) - float(values.min())
    with np.errstate(over="ignore"):
        scale = values.dtype.type((BINS - 1) / spread if 0 < spread < math.inf else math.inf)
    if len(values) < BINS // 8 or not np.isfinite(scale):
        return np.partition(values, sorted(set(ranks)))[list(ranks)]
    bins = ((values - values.dtype.type(low)) * scale).astype(np.uint16)
    upto = np.bincount(bins, minlength=BINS).cumsum()
    found = np.empty(len(ranks), values.dtype)
    for i, rank in enumerate(ranks):
        place = int(np.searchsorted(upto, rank, side="right"))
        before = int(upto[place - 1]) if place else 0
        found[i] = np.partition(values[bins == place], rank - before)[rank - before]
    return found


def rates(x: Tensor, kept: Tensor | None, categories: int = 0) -> Values:
    """Rate of 1, or of each category; share of rows that have two of them."""
    features = x.shape[-1]
    columns = features * max(categories, 1)
    some = paired_features(columns)
    together = torch.zeros(len(x), len(some), len(some), dtype=torch.double, device=x.device)
    owner = torch.arange(columns, device=x.device) // max(categories, 1)
    value = torch.arange(columns, device=x.device) % max(categories, 1)

    def indicators(part: Tensor, mask: Tensor | None) -> tuple[Tensor]:
        if categories:
            part = (part[..., owner] == value).to(torch.get_default_dtype())
            mask = None if mask is None else mask[..., owner]
        part = _hidden(part, mask)
        _add_products(together, part if len(some) == columns else part[..., some])
        return (part,)

    (total,) = _sums(x, kept, indicators, wider=max(categories, 1))
    kept = None if kept is None else kept[:, owner]
    count = float(x.shape[1]) if kept is None else kept.sum(0).double()
    product = _mean_products(together, kept, x.shape[1], some)
    return {"rate": total / count, "co-occurrence": _above(product, some, categories)}


_FUNCTIONS: dict[str, Callable[[Tensor, Tensor | None, int], Values]] = {
    "moments": moments, "extremes": extremes, "quantiles": quantiles, "rates": rates,
}  # fmt: skip


def _masked_quantiles(x: Tensor, kept: Tensor) -> Values:
    """Cells that do not count are sorted behind all others."""
    ordered = x.masked_fill(~kept, math.inf).sort(1).values
    count = kept.sum(0).double()
    found = {}
    for name, share in SHARES.items():
        rank = ((share * count).ceil().long() - 1).clamp(min=0)
        place = rank.expand(len(x), 1, -1)
        found[name] = _known(ordered.gather(1, place)[:, 0].double(), kept)
    return found


def _known(values: Tensor, kept: Tensor | None) -> Tensor:
    """NaN for a feature without a cell that counts."""
    return values if kept is None else values.masked_fill(~kept.any(0), math.nan)


def _sums(
    x: Tensor,
    kept: Tensor | None,
    terms: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]],
    wider: int = 1,
) -> list[Tensor]:
    """Sums over rows of some terms of each cell, part by part: (data sets, features) each."""
    totals: list[Tensor] = []
    for part, mask in _parts(x, kept, wider):
        if mask is not None:
            part = part.masked_fill(~mask, 0.0)  # noqa: PLW2901  what is hidden may be NaN
        sums = [term.sum(1).double() for term in terms(part, mask)]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
    return totals


def _parts(
    x: Tensor, kept: Tensor | None, wider: int = 1
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows that are looked at in one go, fewer where each becomes so many times wider."""
    size = max(1, PART // max(1, len(x) * x.shape[-1] * wider))
    for start in range(0, x.shape[1], size):
        rows = slice(start, start + size)
        yield x[:, rows], None if kept is None else kept[rows]


def _hidden(values: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where a cell does not count."""
    return values if mask is None else values.masked_fill(~mask, 0)


def _count(x: Tensor, kept: Tensor | None) -> Tensor:
    """Cells that count, of each feature."""
    if kept is None:
        return torch.full((x.shape[-1],), float(x.shape[1]), dtype=torch.double, device=x.device)
    return kept.sum(0).double()


def _add_products(together: Tensor, part: Tensor) -> None:
    """Add the products of all pairs of columns, summed over rows."""
    together += torch.bmm(part.transpose(1, 2), part)


def _mean_products(together: Tensor, kept: Tensor | None, rows: int, some: list[int]) -> Tensor:
    """Mean product of two columns, over the rows in which both count."""
    if kept is None:
        return together / rows
    both = kept[:, some].double()
    return together / (both.T @ both)


def pairs(some: Sequence[int], categories: int = 0) -> list[tuple[int, int]]:
    """Positions, among the columns that are paired, of each pair's two; of two features."""
    owner = [column // max(categories, 1) for column in some]
    return [
        (i, j) for i in range(len(some)) for j in range(i + 1, len(some)) if owner[i] != owner[j]
    ]


def _above(product: Tensor, some: list[int], categories: int = 0) -> Tensor:
    """One value a pair: (data sets, pairs)."""
    index = torch.tensor(pairs(some, categories), dtype=torch.long).reshape(-1, 2)
    return product[:, index[:, 0], index[:, 1]]
