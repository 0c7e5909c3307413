"""Statistics, PITs and a sample for figures, from a stream of replicates beside the data.

Replicates come in groups (a few replicates side by side) and each group comes block of rows by
block of rows. ``ReplicateComparison.add`` copies every part into memory for one whole group; when
the last block of a group is there, the group's statistics are computed and the memory is used for
the next group. So memory grows with the size of one group, not with the number of replicates. Only
the statistics themselves, a few numbers for each replicate, are stored for all replicates.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ppl_vae.bars import NO_BAR, Bar
from ppl_vae.checks import covariates
from ppl_vae.checks.layouts import layouts_of
from ppl_vae.checks.pit import RunningPIT
from ppl_vae.checks.site_pairs import SitePairs
from ppl_vae.checks.statistics import ValueKind
from ppl_vae.checks.step_statistics import step_statistics
from ppl_vae.checks.summaries import Values
from ppl_vae.checks.user_statistics import (
    Function,
    RowLatents,
    as_argument,
    changing_length,
    check_latents_are_given_rows,
    evaluate,
    takes_latents,
)
from ppl_vae.core.shared_rows import exchange_rows
from ppl_vae.core.world import World, alone
from ppl_vae.predictive.replicates import Replicates, ReplicateSampler

SAMPLE_NUMBERS = 1 << 19  # numbers of each site that are stored for figures
SAMPLE_REPLICATES = 20  # replicates that are stored for figures
OWN = "(own)"  # takes the place of the site for a user's statistic, which reads all sites
ACROSS = "(across sites)"  # takes the place of the site for pairs of columns of different sites


class ReplicateComparison:
    """Statistics of the data and of all replicates, computed while the replicates stream by.

    Args:
        sampler: Makes the replicates.
        built_in: Names of the built-in statistics to compute; ``None`` is all.
        functions: The user's statistics, by title.

    Raises:
        ValueError: If one of the functions is a discrepancy and latents come from the prior.

    Attributes:
        kinds: The kind of values of each site.
        layouts: How the values of each site lie in columns.
        features: Names of each site's features.
        covariates: The columns of the data that the model reads and does not observe, by site.
        site_pairs: The pairs of columns of different sites.
        statistics: ``{(site, statistic): (observed, replicated)}``. ``observed`` is a list of
            (data sets, values): one entry with one data set, except for a discrepancy, which has
            as many data sets as replicates, one for each draw of the latents. ``replicated`` is
            (replicates, values).
        observed: The data, ``{site: (rows, ...)}``.
        rows: Number of rows.
        pit: PIT of each observed cell among its replicates.
    """

    def __init__(
        self, sampler: ReplicateSampler, built_in: list[str] | None, functions: dict[str, Function]
    ) -> None:
        self.sampler, self.built_in, self.functions = sampler, built_in, functions
        self.kinds = {name: ValueKind.of(fn) for name, fn in sampler.distributions.items()}
        self.layouts = layouts_of(sampler)
        of_cells = sampler.feature_names()
        self.features = {name: self.layouts[name].names(cells) for name, cells in of_cells.items()}
        self.covariates = covariates.of_layouts(sampler, self.layouts)
        schema = sampler.rows.schema
        self.category_names = {} if schema is None else schema.category_names
        self.site_pairs = SitePairs.of(
            sampler.distributions, self.kinds, self.layouts, self.features, self.category_names
        )
        self.statistics: dict[tuple[str, str], tuple[list[Tensor], Tensor]] = {}
        self.observed: dict[str, Tensor] = {}
        self.pit = RunningPIT(sampler.seed)
        self.rows = len(sampler.rows)
        self._masks: dict[str, Tensor] = {}
        self._group: dict[str, Tensor] = {}  # the present group: (replicates, rows, ...)
        self._latents: dict[str, Tensor] = {}  # its latents, where a discrepancy needs them
        self._needs_latents = any(takes_latents(function) for function in functions.values())
        self._from_prior = set(sampler.from_prior)
        self._sample: dict[str, list[Tensor]] = {}
        if sampler.prior:
            check_latents_are_given_rows(functions, self._from_prior)

    def add_all(self, bar: Bar, team: World) -> None:
        """Draw and add all replicates, which several processes share by groups.

        Every process adds the first groups, which hold the sample for figures and show which
        statistics there are, and the last two, which stay in memory (``values_of``). The others
        are shared, and their statistics, a few numbers for each replicate, are exchanged.

        Args:
            bar: The progress bar.
            team: The processes.
        """
        groups = self.sampler.groups()
        first = math.ceil(SAMPLE_REPLICATES / self.sampler.count)
        shared = groups[first:-2] if team.size > 1 else []
        if not shared:
            for part in self.sampler.stream(bar):
                self.add(part)
            return
        with team.together("predictive_check"):
            with alone():
                for part in self.sampler.stream(bar.only(team.first), groups[:first]):
                    self.add(part)
                before = self.pit.counts()
                own = shared[team.rank :: team.size]
                for part in self.sampler.stream(bar.only(team.first), own):
                    self.add(part)
                after = self.pit.counts()
                for part in self.sampler.stream(NO_BAR, groups[-2:]):
                    self.add(part)
            self._exchange(team, shared, first)
            self.pit.add_counts(
                [
                    team.gather(new - old, "ranks of observed cells").sum(0) - (new - old)
                    for new, old in zip(after, before, strict=True)
                ],
                sum(map(len, shared)) - sum(map(len, own)),
            )
            found = self.sampler.far_rows.found
            found |= team.gather(found, "marks of the rows").any(0)

    def _exchange(self, team: World, shared: list[range], first: int) -> None:
        """Take the statistics of the groups that other ranks added.

        Args:
            team: The ranks.
            shared: The groups, of which each rank added every ``team.size``-th.
            first: Number of groups before them.
        """
        places = [torch.tensor(group) for group in shared]
        for key, (_, replicated) in self.statistics.items():
            exchange_rows(team, {key: replicated}, places)
        own = len(shared[team.rank :: team.size])
        for (_, title), (of_data, _) in self.statistics.items():
            if title not in self.functions or not takes_latents(self.functions[title]):
                continue
            whole = of_data[0].new_zeros((len(shared), *of_data[0].shape))
            for number, value in zip(
                range(team.rank, len(shared), team.size), of_data[first : first + own], strict=True
            ):
                whole[number] = value
            numbers = [torch.tensor([number]) for number in range(len(shared))]
            exchange_rows(team, {title: whole}, numbers)
            of_data[first : first + own] = list(whole)

    def add(self, part: Replicates) -> None:
        """Copy a part of the replicates into memory; compute statistics when its group is complete.

        Raises:
            ValueError: If an unmasked cell of the data is NaN or infinite, or a user's function
                fails or returns other numbers of values.
        """
        count, index, first_group = len(part.samples), part.index, part.samples.start == 0
        if first_group:
            self._add_observed(part)
        for name, value in part.values.items():
            self._memory(self._group, name, value, 1)[:count, index] = value.cpu()
        for name, value in part.latents.items() if self._needs_latents else ():
            if name in self._from_prior:
                continue
            if name in self.sampler.row_latents:
                self._memory(self._latents, name, value, 1)[:count, index] = value.cpu()
            else:
                self._latents[name] = value.cpu()
        if int(index[-1]) == self.rows - 1:
            if first_group:
                self._check_observed()
            self._compute(count, part.samples.start)

    def unmasked(self, name: str) -> Tensor | None:
        """Return the unmasked cells of a site, (lines, features) of bool; ``None`` is all."""
        unmasked = self.layouts[name].unmasked(self._masks.get(name))
        return None if unmasked is None else unmasked.expand(-1, len(self.features[name]))

    def sample(self) -> dict[str, tuple[Any, Any]]:
        """Return some rows of the data and of a few replicates, for figures.

        Returns:
            ``{site: (observed, replicated)}``, arrays of shape (some lines, features) and (some
            replicates, some lines, features), NaN in masked cells.
        """
        found = {}
        for name, parts in self._sample.items():
            replicated, lines = torch.cat(parts), self._sample_lines(name)
            observed = self.layouts[name].by_feature(self.observed[name][None])[0, lines]
            unmasked = self.unmasked(name)
            if unmasked is not None:
                replicated = replicated.masked_fill(~unmasked[lines], torch.nan)
                observed = observed.masked_fill(~unmasked[lines], torch.nan)
            found[name] = observed.numpy(), replicated.numpy()
        return found

    def values_of(self, name: str, positions: list[int]) -> tuple[Any, Any]:
        """Return some features in all lines, of the data and of the replicates of the last group.

        The memory of a group still holds its replicates when all of them have come. Their number is
        at most 20, and fewer where there are many lines, but never less than one.

        Args:
            name: The site.
            positions: Positions of the features.

        Returns:
            Arrays of shape (lines, some features) and (replicates, lines, some features), NaN in
            masked cells.
        """
        layout = self.layouts[name]
        observed = layout.chosen(self.observed[name][None], positions)[0]
        count = max(1, min(SAMPLE_REPLICATES, SAMPLE_NUMBERS // len(observed)))
        replicated = layout.chosen(self._group[name][:count], positions)
        unmasked = self.unmasked(name)
        if unmasked is not None:
            replicated = replicated.masked_fill(~unmasked[:, positions], torch.nan)
            observed = observed.masked_fill(~unmasked[:, positions], torch.nan)
        return observed.numpy(), replicated.numpy()

    # Collecting the parts of a group

    def _add_observed(self, part: Replicates) -> None:
        """Copy the data of a block of rows, and its masks, into memory for all rows.

        A site may have a mask in some blocks only: in the others, all cells are unmasked.
        """
        for name, value in part.observed.items():
            cells = value.to(part.values[name].dtype).cpu()
            self._memory(self.observed, name, cells, 0)[part.index] = cells
            if name in part.masks:
                shape = self.observed[name].shape
                masks = self._masks.setdefault(name, torch.ones(shape, dtype=torch.bool))
                masks[part.index] = part.masks[name].cpu()

    def _check_observed(self) -> None:
        """Raise ``ValueError`` where an unmasked cell of the data is NaN or infinite."""
        for name, value in self.observed.items():
            bad = ~self.layouts[name].by_feature(value[None])[0].isfinite()
            unmasked = self.unmasked(name)
            lines = (bad if unmasked is None else bad & unmasked).any(1).nonzero()[:, 0]
            rows = self.layouts[name].rows_of(lines).unique()
            if len(rows):
                raise ValueError(
                    f'site "{name}": expected numbers in the data, got NaN or infinity in '
                    f"{len(rows)} row{'s' if len(rows) > 1 else ''}, the first is row "
                    f"{int(rows[0])} (counted from 0); drop such rows, or mask such cells"
                )

    def _memory(self, stored: dict[str, Tensor], name: str, like: Tensor, dim: int) -> Tensor:
        """Return memory for all rows of a site, which is allocated on the first call.

        Args:
            stored: Where the memory is, by site.
            name: Name of the site.
            like: Values of some rows.
            dim: Dimension of the rows.
        """
        if name not in stored:
            shape = (*like.shape[:dim], self.rows, *like.shape[dim + 1 :])
            stored[name] = torch.empty(shape, dtype=like.dtype)
        return stored[name]

    # Statistics of a complete group

    def _compute(self, count: int, start: int) -> None:
        """Compute everything of a complete group.

        Args:
            count: Replicates in the group.
            start: Number of the group's first replicate.
        """
        group = {name: value[:count] for name, value in self._group.items()}
        for name, value in group.items():
            kind, unmasked, layout = self.kinds[name], self.unmasked(name), self.layouts[name]
            x, observed = (layout.by_feature(v) for v in (value, self.observed[name][None]))
            of_data = self._built_in(name, observed, unmasked) if start == 0 else {}
            for statistic, values in self._built_in(name, x, unmasked).items():
                self._store((name, statistic), values, of_data.get(statistic), start)
            if kind.has_order:
                self.pit.add(name, x, observed[0], unmasked)
            self._store_sample(name, x)
        self._compare_across_sites(group, start)
        for title, function in self.functions.items():
            self._compute_own(title, function, group, start)

    def _built_in(self, name: str, x: Tensor, unmasked: Tensor | None) -> Values:
        """Return the built-in statistics of some data sets, (data sets, lines, features)."""
        kind, inside = self.kinds[name], self.layouts[name].inside
        if self.built_in is not None and not self.built_in:
            return {}
        found = kind.compute(x, unmasked, self.built_in)
        if inside is not None and unmasked is not None:
            cells = x.reshape(len(x), *inside.shape, -1), unmasked.reshape(*inside.shape, -1)
            found |= step_statistics(*cells, kind.name, kind.categories, self.built_in)
        asked = self.built_in is None or covariates.NAME in self.built_in
        if kind.has_order and asked and self.covariates[name].names:
            found[covariates.NAME] = self.covariates[name].correlations(x, unmasked)
        return found

    def _compare_across_sites(self, group: dict[str, Tensor], start: int) -> None:
        """Compute the statistics of pairs of columns of different sites, of a group.

        Args:
            group: ``{site: (replicates, rows, ...)}``.
            start: Number of the group's first replicate.
        """
        unmasked = {name: self.unmasked(name) for name in group}
        pairs, wanted, data = self.site_pairs, self.built_in, {}
        if start == 0:
            whole = {name: value[None] for name, value in self.observed.items()}
            data = pairs.compute(whole, unmasked, wanted)
        for statistic, values in pairs.compute(group, unmasked, wanted).items():
            self._store((ACROSS, statistic), values, data.get(statistic), start)

    def labels(self, site: str, statistic: str) -> list[str]:
        """Return the name of each value of a built-in statistic."""
        if site == ACROSS:
            return self.site_pairs.labels(statistic)
        if statistic == covariates.NAME:
            return self.covariates[site].labels(self.features[site])
        return self.kinds[site].labels(self.features[site], self.category_names)[statistic]

    def _store(
        self, key: tuple[str, str], replicated: Tensor, observed: Tensor | None, start: int
    ) -> None:
        """Store the values of a statistic for a group of replicates, and for the data if given.

        Memory for all replicates is allocated at once: small pieces that live on between the large
        buffers of the groups would fragment the heap, and the peak memory would grow.
        """
        if key not in self.statistics:
            shape = self.sampler.num_samples, replicated.shape[1]
            self.statistics[key] = [], torch.empty(shape, dtype=replicated.dtype)
        of_data, of_replicates = self.statistics[key]
        if replicated.shape[1] != of_replicates.shape[1]:
            raise changing_length(key[1])
        of_replicates[start : start + len(replicated)] = replicated
        if observed is not None:
            of_data.append(observed)

    def _compute_own(
        self, title: str, function: Function, group: dict[str, Tensor], start: int
    ) -> None:
        """Compute a user's statistic of each replicate, and of the data.

        A statistic T(x) of the data is computed once; a discrepancy T(x, latents) of the data is
        computed for the latents of every replicate.
        """
        data, is_discrepancy = as_argument(self.observed, self._masks), takes_latents(function)
        replicated, observed = [], []
        for i in range(len(next(iter(group.values())))):
            x = as_argument({name: value[i] for name, value in group.items()}, self._masks)
            latents = {name: value[i].clone() for name, value in self._latents.items()}
            arguments = (RowLatents(latents, self._from_prior),) if is_discrepancy else ()
            replicated.append(evaluate(title, function, x, *arguments))
            if is_discrepancy or (start == 0 and i == 0):
                observed.append(evaluate(title, function, data, *arguments))
        if any(bool(values.isnan().any()) for values in observed):
            raise ValueError(
                f'statistics: expected "{title}" to return numbers for the data, got NaN; masked '
                "cells are NaN, leave them out (torch.nanmean, x[~x.isnan()])"
            )
        if len({len(values) for values in replicated + observed}) > 1:
            raise changing_length(title)
        of_data = torch.stack(observed) if observed else None
        self._store((OWN, title), torch.stack(replicated), of_data, start)

    # A sample for figures

    def _store_sample(self, name: str, x: Tensor) -> None:
        """Store some lines of the first replicates; x: (replicates, lines, features)."""
        stored = self._sample.setdefault(name, [])
        missing = SAMPLE_REPLICATES - sum(map(len, stored))
        if missing > 0:
            stored.append(x[:missing, self._sample_lines(name)].clone())

    def _sample_lines(self, name: str) -> Tensor:
        """Return the positions of the lines that are stored, evenly spaced."""
        lines = self.layouts[name].lines(self.rows)
        most = SAMPLE_NUMBERS // (SAMPLE_REPLICATES * len(self.features[name]))
        count = max(1, min(len(lines), most))
        return lines[torch.linspace(0, len(lines) - 1, count, dtype=torch.double).long()]
