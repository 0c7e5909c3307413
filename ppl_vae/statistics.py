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
class Kind:
    """What the values of a site are.

    Attributes:
        name: ``"real"``, ``"counts"``, ``"binary"`` or ``"categories"``.
        categories: How many there are, of a categorical site.
    """

    name: str
    categories: int = 0

    @classmethod
    def of(cls, fn: Any) -> Kind:
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
                found.update({name: values[name] for name in chosen})
        return found

    def labels(self, features: Sequence[str]) -> dict[str, list[str]]:
        """What the values of each statistic belong to."""
        single = list(features)
        if self.categories:
            single = [f"{name} = {c}" for name in features for c in range(self.categories)]
        some = [single[i] for i in paired(len(single))]
        pairs = [f"{a} & {b}" for i, a in enumerate(some) for b in some[i + 1 :]]
        joint = ("correlation", "co-occurrence")
        return {name: pairs if name in joint else single for name in self.names}


def paired(features: int) -> list[int]:
    """The features whose pairs are looked at: all of a few, evenly chosen ones of many."""
    if features <= PAIRED:
        return list(range(features))
    return torch.linspace(0, features - 1, PAIRED, dtype=torch.double).long().tolist()


def moments(x: Tensor, kept: Tensor | None, categories: int = 0) -> Values:
    """Mean, sd, dispersion index, zero fraction, skewness, kurtosis, correlation."""
    count = _count(x, kept)
    total, zeros = _sums(x, kept, lambda part, mask: (part, _hidden(part == 0, mask)))
    mean = total / count
    center = mean.to(x.dtype)[:, None]
    (square,) = _sums(x, kept, lambda part, mask: (_hidden(part - center, mask).square(),))
    spread = (square / count).sqrt()
    unit = spread.to(x.dtype)[:, None]
    some = paired(x.shape[-1])
    together = torch.zeros(len(x), len(some), len(some), dtype=torch.double, device=x.device)

    def standardized(part: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        u = _hidden((part - center) / unit, mask)
        _add_products(together, u if len(some) == u.shape[-1] else u[..., some])
        cubes = u.square() * u
        return cubes, cubes * u

    cube, fourth = _sums(x, kept, standardized)
    return {
        "mean": mean,
        "sd": (square / (count - 1)).sqrt(),
        "dispersion index": square / (count - 1) / mean,
        "zero fraction": zeros / count,
        "skewness": cube / count,
        "kurtosis": fourth / count,
        "correlation": _pairs(together, kept, x.shape[1], some),
    }


def extremes(x: Tensor, kept: Tensor | None, categories: int = 0) -> Values:
    """Minimum and maximum."""
    low = x if kept is None else x.masked_fill(~kept, math.inf)
    high = x if kept is None else x.masked_fill(~kept, -math.inf)
    return {"minimum": low.amin(1).double(), "maximum": high.amax(1).double()}


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
    some = paired(columns)
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

    (total,) = _sums(x, kept, indicators)
    kept = None if kept is None else kept[:, owner]
    count = _count(x, kept)
    return {"rate": total / count, "co-occurrence": _pairs(together, kept, x.shape[1], some)}


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
        found[name] = ordered.gather(1, place)[:, 0].double()
    return found


def _sums(
    x: Tensor,
    kept: Tensor | None,
    terms: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]],
) -> list[Tensor]:
    """Sums over rows of some terms of each cell, part by part: (data sets, features) each."""
    totals: list[Tensor] = []
    for part, mask in _parts(x, kept):
        if mask is not None:
            part = part.masked_fill(~mask, 0.0)  # noqa: PLW2901  what is hidden may be NaN
        sums = [term.sum(1, dtype=_wide(term)).double() for term in terms(part, mask)]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
    return totals


def _parts(x: Tensor, kept: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    size = max(1, PART // max(1, len(x) * x.shape[-1]))
    for start in range(0, x.shape[1], size):
        rows = slice(start, start + size)
        yield x[:, rows], None if kept is None else kept[rows]


def _hidden(values: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where a cell does not count."""
    return values if mask is None else values.masked_fill(~mask, 0)


def _wide(term: Tensor) -> torch.dtype:
    return term.dtype if term.is_floating_point() else torch.long


def _count(x: Tensor, kept: Tensor | None) -> Tensor:
    """Cells that count, of each feature."""
    if kept is None:
        return torch.full((x.shape[-1],), float(x.shape[1]), dtype=torch.double, device=x.device)
    return kept.sum(0).double()


def _add_products(together: Tensor, part: Tensor) -> None:
    """Add the products of all pairs of columns, summed over rows."""
    together += torch.bmm(part.transpose(1, 2), part)


def _pairs(together: Tensor, kept: Tensor | None, rows: int, some: list[int]) -> Tensor:
    """Mean product of each pair, over the rows in which both count: (data sets, pairs)."""
    count: Tensor | float = float(rows)
    if kept is not None:
        both = kept[:, some].double()
        count = both.T @ both
    above = torch.triu_indices(len(some), len(some), 1, device=together.device)
    return (together / count)[:, above[0], above[1]]
