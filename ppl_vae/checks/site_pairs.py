"""Statistics of two columns of different sites, such as a number and a category.

    number, number        correlation      of both (``checks.pair_sums``)
    category, number      group mean       of the number in the rows of the category, in standard
                                           deviations from its mean (``checks.group_sums``)
    category, category    co-occurrence    share of rows in which both categories come together

A model of a table observes each kind of columns at a site of its own. Statistics of single sites
cannot see that it gets the dependence of a number on a category wrong: every site may be right by
itself. Numbers are real or counts; 1 is the category of a binary column. A pair is measured over
the rows in which both of its cells are unmasked.

At most 64 numbers and 128 categories make pairs. Which ones depends on the sizes of the sites
alone, never on the data, so that p-values stay exact: numbers are evenly spaced; features of
categories share the 128, and evenly spaced categories stand for a feature that has more than its
share.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.checks.group_sums import GroupSums
from ppl_vae.checks.layouts import Layout
from ppl_vae.checks.pair_sums import PairSums, paired_columns
from ppl_vae.checks.statistics import ValueKind, category_label
from ppl_vae.checks.summaries import PART_NUMBERS, Values, mean_and_unit

GROUP_MEAN = "group mean"
MAX_CATEGORIES = 128
NUMBERS = ("real", "counts")  # kinds of values that are numbers; the others are categories


class SitePairs:
    """The pairs of columns of different sites, and their statistics.

    Args:
        kinds: The kind of values of each site.
        features: Names of each site's features.
        categories: Number of categories of each feature of each site of categories.
        category_names: Names of the categories of a feature, where they have names.

    Attributes:
        names: Names of the statistics; none where there are no pairs.

    Example:
        >>> kinds = {"x": ValueKind("real"), "y": ValueKind("binary")}
        >>> pairs = SitePairs(kinds, {"x": ["age"], "y": ["sex"]}, {})
        >>> pairs.names, pairs.labels("group mean")
        (['group mean'], ['age where sex = 1'])
    """

    def __init__(
        self,
        kinds: Mapping[str, ValueKind],
        features: Mapping[str, list[str]],
        categories: Mapping[str, list[int]],
        category_names: Mapping[str, list[str]] | None = None,
    ) -> None:
        names = _distinct({site: features[site] for site in kinds})
        columns = [(site, i) for site in kinds for i in range(len(names[site]))]
        numbers = [column for column in columns if kinds[column[0]].name in NUMBERS]
        numbers = [numbers[i] for i in paired_columns(len(numbers))]
        codes = {
            (site, i): [1] if kinds[site].name == "binary" else [*range(categories[site][i])]
            for site, i in columns
            if kinds[site].name not in NUMBERS
        }
        codes = _shared(codes)
        self._numbers, self._features = _by_site(numbers), _by_site(codes)
        each = [(column, code) for column, own in codes.items() for code in own]
        self._codes = torch.tensor([code for _, code in each], dtype=torch.long)
        feature_of = [i for i, own in enumerate(codes.values()) for _ in own]
        self._feature_of = torch.tensor(feature_of, dtype=torch.long)
        of_numbers = [site for site, _ in numbers]
        of_categories = [site for (site, _), _ in each]
        self._pairs = {
            "correlation": _unequal(of_numbers),
            GROUP_MEAN: [
                (i, j)
                for i, site in enumerate(of_categories)
                for j, other in enumerate(of_numbers)
                if site != other
            ],
            "co-occurrence": _unequal(of_categories),
        }
        self.names = [name for name, pairs in self._pairs.items() if pairs]
        self._number_names = [names[site][i] for site, i in numbers]
        self._category_names = [
            category_label(names[site][i], code, category_names or {}) for (site, i), code in each
        ]

    @classmethod
    def of(
        cls,
        distributions: Mapping[str, Any],
        kinds: Mapping[str, ValueKind],
        layouts: Mapping[str, Layout],
        features: Mapping[str, list[str]],
        category_names: Mapping[str, list[str]] | None = None,
    ) -> SitePairs:
        """Return the pairs of a model's sites; those of sequences have none.

        Args:
            distributions: The distribution of each site.
            kinds: The kind of values of each site.
            layouts: How the values of each site lie in columns.
            features: Names of each site's features.
            category_names: Names of the categories of a feature, where they have names.
        """
        of_rows = {site: kind for site, kind in kinds.items() if layouts[site].inside is None}
        return cls(
            of_rows,
            features,
            {
                site: kind.category_counts(distributions[site], len(features[site]))
                for site, kind in of_rows.items()
            },
            category_names,
        )

    def compute(
        self,
        values: Mapping[str, Tensor],
        unmasked: Mapping[str, Tensor | None],
        wanted: Sequence[str] | None = None,
    ) -> Values:
        """Return the statistics of several data sets.

        Args:
            values: ``{site: (data sets, rows, ...)}``, on the CPU.
            unmasked: ``{site: (rows, features)}`` of bool; ``None`` where no cell is masked.
            wanted: Names of statistics; all of them by default.

        Returns:
            ``{statistic: (data sets, pairs)}`` in double precision, NaN where a number is constant
            or a category has too few rows for a group mean.

        Example:
            >>> pairs = SitePairs(
            ...     {"a": ValueKind("real"), "b": ValueKind("real")}, {"a": ["a"], "b": ["b"]}, {}
            ... )
            >>> rising = torch.arange(3.0)[None]
            >>> pairs.compute({"a": rising, "b": 5 - rising}, {"a": None, "b": None})
            {'correlation': tensor([[-1.]], dtype=torch.float64)}
        """
        names = [name for name in self.names if wanted is None or name in wanted]
        if not names:
            return {}
        sets, rows = next(iter(values.values())).shape[:2]
        of_numbers = _mask(self._numbers, unmasked, rows)
        of_features = _mask(self._features, unmasked, rows)
        of_categories = None if of_features is None else of_features[:, self._feature_of]
        shape = torch.Size((sets, rows, len(self._number_names)))
        correlations = PairSums(shape, of_numbers, pairs=self._pairs["correlation"])
        shape = torch.Size((sets, rows, len(self._category_names)))
        together = PairSums(shape, of_categories, pairs=self._pairs["co-occurrence"])
        groups = GroupSums(self._feature_of)
        for part, numbers in self._parts_of_numbers(values, of_numbers):
            masks = [None if mask is None else mask[part] for mask in (of_numbers, of_features)]
            categories = self._categories(values, part, of_categories)
            if "correlation" in names:
                correlations.add_products(numbers)
                correlations.add_moments(numbers, numbers.square(), masks[0])
            if GROUP_MEAN in names:
                groups.add(categories, numbers, masks[1], masks[0])
            if "co-occurrence" in names:
                together.add_products(categories)
        found: Values = {}
        if "correlation" in names:
            found["correlation"] = correlations.correlation()
        if GROUP_MEAN in names:
            chosen = torch.tensor(self._pairs[GROUP_MEAN])
            found[GROUP_MEAN] = groups.means()[:, chosen[:, 0], chosen[:, 1]]
        if "co-occurrence" in names:
            found["co-occurrence"] = together.co_occurrence()
        return found

    def labels(self, statistic: str) -> list[str]:
        """Return the name of each pair of a statistic, in the order of ``compute``."""
        numbers, categories = self._number_names, self._category_names
        pairs = self._pairs[statistic]
        if statistic == GROUP_MEAN:
            return [f"{numbers[j]} where {categories[i]}" for i, j in pairs]
        columns = numbers if statistic == "correlation" else categories
        return [f"{columns[i]} & {columns[j]}" for i, j in pairs]

    def _parts_of_numbers(
        self, values: Mapping[str, Tensor], unmasked: Tensor | None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield the numbers part by part: which rows, and (data sets, some rows, numbers).

        Each column is moved to a mean near 0 and scaled to at most 1, so that sums of its squares
        lose no digits; masked cells are 0.
        """
        sets, rows = next(iter(values.values())).shape[:2]
        scales, start = [], 0
        for site, positions in self._numbers.items():
            own = slice(start, start := start + len(positions))
            mask = None if unmasked is None else unmasked[:, own]
            scales.append(mean_and_unit(_chosen(values[site], positions), mask)[1:])
        columns = len(self._number_names) + len(self._category_names)
        size = max(1, PART_NUMBERS // (sets * columns))
        for start in range(0, rows, size):
            part = slice(start, start + size)
            scaled = [
                (_chosen(values[site][:, part], positions) - center) / unit
                for (site, positions), (center, unit) in zip(
                    self._numbers.items(), scales, strict=True
                )
            ]
            numbers = torch.cat(scaled, -1) if scaled else torch.zeros(sets, 0, 0)
            yield part, numbers if unmasked is None else numbers.masked_fill(~unmasked[part], 0)

    def _categories(
        self, values: Mapping[str, Tensor], part: slice, unmasked: Tensor | None
    ) -> Tensor:
        """Return 1 where a row has a category, else 0: (data sets, some rows, categories).

        Args:
            values: ``{site: (data sets, rows, ...)}``.
            part: Which rows.
            unmasked: (rows, categories) of bool; ``None`` where no cell is masked.
        """
        codes = [_chosen(values[site][:, part], own) for site, own in self._features.items()]
        if not codes:
            return torch.zeros(0)
        present = torch.cat(codes, -1)[..., self._feature_of] == self._codes
        if unmasked is not None:
            present &= unmasked[part]
        return present.to(torch.get_default_dtype())


def names_across(kinds: Iterable[ValueKind]) -> set[str]:
    """Return the names of the statistics that only pairs of sites have.

    Args:
        kinds: The kinds of values of the sites whose rows are no sequences.

    Example:
        >>> names_across([ValueKind("real"), ValueKind("binary")])
        {'group mean'}
    """
    are_numbers = {kind.name in NUMBERS for kind in kinds}
    return {GROUP_MEAN} if len(are_numbers) == 2 else set()


def _distinct(features: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return names of the features that tell them apart in all sites together.

    A name that is a position, or that two sites have, gets the site's: ``"real[2]"``.
    """
    often = Counter(name for names in features.values() for name in names)
    return {
        site: [
            f"{site}[{name}]" if often[name] > 1 or re.fullmatch(r"\d+(,\d+)*", name) else name
            for name in names
        ]
        for site, names in features.items()
    }


def _shared(codes: dict[tuple[str, int], list[int]]) -> dict[tuple[str, int], list[int]]:
    """Return the categories that make pairs: all, or 128 shared among the features.

    Args:
        codes: The codes of the categories of each feature, by its site and position.
    """
    if sum(map(len, codes.values())) <= MAX_CATEGORIES:
        return codes
    places = torch.linspace(0, len(codes) - 1, min(len(codes), MAX_CATEGORIES), dtype=torch.double)
    columns = [list(codes)[i] for i in places.long().tolist()]
    share = max(
        share
        for share in range(1, MAX_CATEGORIES + 1)
        if sum(min(len(codes[column]), share) for column in columns) <= MAX_CATEGORIES
    )
    return {column: _spaced(codes[column], share) for column in columns}


def _spaced(items: list[int], most: int) -> list[int]:
    """Return at most so many of the items, evenly spaced."""
    if len(items) <= most:
        return items
    places = torch.linspace(0, len(items) - 1, most, dtype=torch.double)
    return [items[i] for i in places.long().tolist()]


def _by_site(columns: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Return ``{site: positions}`` of columns (site, position) that stand site by site."""
    found: dict[str, list[int]] = {}
    for site, position in columns:
        found.setdefault(site, []).append(position)
    return found


def _unequal(sites: list[str]) -> list[tuple[int, int]]:
    """Return every pair of positions that hold two different sites, the smaller one first."""
    count = len(sites)
    return [(i, j) for i in range(count) for j in range(i + 1, count) if sites[i] != sites[j]]


def _chosen(values: Tensor, positions: list[int]) -> Tensor:
    """Return some features of (data sets, rows, ...) as floats, (data sets, rows, some)."""
    features = values.reshape(*values.shape[:2], -1)
    chosen = features if len(positions) == features.shape[2] else features[..., positions]
    return Layout().by_feature(chosen)


def _mask(
    columns: Mapping[str, list[int]], unmasked: Mapping[str, Tensor | None], rows: int
) -> Tensor | None:
    """Return the unmasked cells of some columns, (rows, columns) of bool; ``None`` for all.

    Args:
        columns: ``{site: positions}``.
        unmasked: ``{site: (rows, features)}``; ``None`` where no cell is masked.
        rows: Number of rows.
    """
    if all(unmasked[site] is None for site in columns):
        return None
    return torch.cat(
        [
            torch.ones(rows, len(own), dtype=torch.bool) if mask is None else mask[:, own]
            for own, mask in ((own, unmasked[site]) for site, own in columns.items())
        ],
        -1,
    )
