"""The built-in statistics of a site, chosen by the kind of values that the site has.

    T: (data sets, rows, features)  ->  {statistic: (data sets, values)}

    real         mean, sd, skewness, kurtosis, minimum, maximum, five quantiles, correlation
    counts       mean, dispersion index (variance / mean), zero fraction, maximum, correlation
    binary       rate (of 1), co-occurrence (share of rows in which two features are both 1)
    categories   rate of each category, co-occurrence of two categories of different features

A statistic has one value for each feature, each category, or each pair of features. Masked cells
enter no statistic. Where there are more than 64 features, 64 evenly spaced ones make the pairs.
Pairs of columns of different sites are compared as well, such as the mean of a number in the rows
of a category (``ppl_vae.checks.site_pairs``). The formulas are in ``ppl_vae.checks.summaries`` and
``ppl_vae.checks.pair_sums``. Of sequences, the rows are the single steps, and there are the
statistics of ``ppl_vae.checks.step_statistics`` beside these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.checks.pair_sums import paired_columns, pairs_of
from ppl_vae.checks.step_statistics import TRANSITIONS, names_of
from ppl_vae.checks.summaries import QUANTILES, Values, extremes, moments, quantiles, rates
from ppl_vae.core.supports import is_discrete, support_of

Summary = Callable[[Tensor, Tensor | None, int], Values]

STATISTICS: dict[str, dict[Summary, tuple[str, ...]]] = {
    "real": {
        moments: ("mean", "sd", "skewness", "kurtosis", "correlation"),
        extremes: ("minimum", "maximum"),
        quantiles: tuple(QUANTILES),
    },
    "counts": {
        moments: ("mean", "dispersion index", "zero fraction", "correlation"),
        extremes: ("maximum",),
    },
    "binary": {rates: ("rate", "co-occurrence")},
    "categories": {rates: ("rate", "co-occurrence")},
}
"""Names of the statistics of each kind of values, by the function that computes them."""

PAIR_STATISTICS = ("correlation", "co-occurrence")
SHARE_STATISTICS = ("rate", "co-occurrence", "zero fraction", *TRANSITIONS)


@dataclass(frozen=True)
class ValueKind:
    """The kind of values that a site has, and with it the statistics that describe them.

    Attributes:
        name: ``"real"``, ``"counts"``, ``"binary"`` or ``"categories"``.
        categories: Number of categories of a categorical site, otherwise 0.
    """

    name: str
    categories: int = 0

    @classmethod
    def of(cls, fn: Any) -> Self:
        """Return the kind of values that a distribution draws.

        The support of the distribution decides, except for one-hot and categorical draws, which
        are told by the class of the distribution. Wrappers (``to_event``, ``mask``) are looked
        through.

        Args:
            fn: A Pyro distribution, the ``fn`` of a site.

        Example:
            >>> import pyro.distributions as dist
            >>> ValueKind.of(dist.Poisson(torch.ones(3)).to_event(1)).name
            'counts'
        """
        base: Any = fn
        while hasattr(base, "base_dist") and not hasattr(base, "transforms"):
            base = base.base_dist
        one_hot = isinstance(base, torch.distributions.OneHotCategorical)
        if support_of(fn) is constraints.boolean or one_hot:
            return cls("binary")
        if isinstance(base, torch.distributions.Categorical):
            count = base.probs.shape[-1]
            return cls("categories", count) if count > 2 else cls("binary")
        return cls("counts" if is_discrete(fn) else "real")

    def category_counts(self, fn: Any, features: int) -> list[int]:
        """Return the number of categories of each feature; 0 where values are no categories.

        Args:
            fn: The distribution of the site, in which features may have different numbers of
                categories (``PaddedCategorical``).
            features: Number of features.

        Example:
            >>> from ppl_vae.distributions import PaddedCategorical
            >>> logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 0.0, 0.0]])
            >>> fn = PaddedCategorical(logits=logits).to_event(1)
            >>> ValueKind.of(fn).category_counts(fn, 2)
            [2, 3]
        """
        last = getattr(support_of(fn), "upper_bound", None) if self.categories else None
        if not isinstance(last, Tensor) or last.shape[-1:] != (features,):
            return [self.categories] * features
        return [int(bound) + 1 for bound in last.reshape(-1, features).amax(0)]

    @property
    def has_order(self) -> bool:
        """Whether one value can be smaller than another, which categories are not."""
        return self.name != "categories"

    @property
    def names(self) -> list[str]:
        """Names of the statistics, without those that sequences have beside them."""
        return [name for names in STATISTICS[self.name].values() for name in names]

    def smallest_step(self, statistic: str, rows: int) -> float:
        """Return the smallest amount by which a statistic can change.

        Args:
            statistic: Name of the statistic.
            rows: Rows of the data.

        Returns:
            1 / rows for a share of the rows, 1 for the maximum of counts, otherwise 0: the
            statistic varies continuously.

        Example:
            >>> ValueKind("binary").smallest_step("rate", rows=50)
            0.02
        """
        if statistic in SHARE_STATISTICS:
            return 1 / rows
        return 1.0 if self.name == "counts" and statistic == "maximum" else 0.0

    def compute(
        self, x: Tensor, unmasked: Tensor | None, wanted: Sequence[str] | None = None
    ) -> Values:
        """Return the statistics of several data sets.

        Args:
            x: (data sets, rows, features), floats on the CPU.
            unmasked: (rows, features) of bool; ``None`` where no cell is masked.
            wanted: Names of statistics; all of them by default.

        Returns:
            ``{statistic: (data sets, values)}`` in double precision. A statistic without values
            (the correlation of one feature) is left out.

        Example:
            >>> found = ValueKind("binary").compute(torch.ones(1, 5, 2), None)
            >>> {name: values.tolist() for name, values in found.items()}
            {'rate': [[1.0, 1.0]], 'co-occurrence': [[1.0]]}
        """
        found: Values = {}
        for summary, names in STATISTICS[self.name].items():
            chosen = [name for name in names if wanted is None or name in wanted]
            if chosen:
                values = summary(x, unmasked, self.categories)
                found.update({name: values[name] for name in chosen if values[name].shape[1]})
        return found

    def labels(
        self, features: Sequence[str], names: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, list[str]]:
        """Return the name of each value of each statistic.

        Args:
            features: Names of the site's features.
            names: Names of the categories of a feature, where they have names.

        Returns:
            ``{statistic: [label, ...]}``, in the order of the values that ``compute`` returns.

        Example:
            >>> labels = ValueKind("binary").labels(["a", "b"])
            >>> labels["rate"], labels["co-occurrence"]
            (['a', 'b'], ['a & b'])
        """
        columns, names = list(features), names or {}
        if self.categories:
            codes = range(self.categories)
            columns = [category_label(name, c, names) for name in features for c in codes]
        elif self.name == "binary":
            columns = [category_label(n, 1, names) if n in names else n for n in features]
        chosen = [columns[i] for i in paired_columns(len(columns))]
        positions = pairs_of(paired_columns(len(columns)), self.categories)
        pairs = [f"{chosen[i]} & {chosen[j]}" for i, j in positions]
        titles = [*self.names, *names_of(self.name)]
        return {title: pairs if title in PAIR_STATISTICS else columns for title in titles}


def category_label(feature: str, code: int, names: Mapping[str, Sequence[str]]) -> str:
    """Return the name of a category of a feature.

    Args:
        feature: The feature.
        code: The number of the category, from 0.
        names: Names of the categories of a feature, where they have names.

    Example:
        >>> category_label("sex", 1, {"sex": ["Female", "Male"]}), category_label("job", 3, {})
        ('sex = Male', 'job = 3')
    """
    known = names.get(feature, ())
    return f"{feature} = {known[code] if code < len(known) else code}"
