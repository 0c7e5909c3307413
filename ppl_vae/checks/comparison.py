"""The data beside their replicates, group after group: statistics, ranks, a sample for pictures.

Replicates come a block of rows at a time; the statistics of a group are found once all of its rows
are there. What is kept is the size of one group, which does not grow with the replicates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl_vae.checks.pit import RunningPIT
from ppl_vae.checks.statistics import ValueKind
from ppl_vae.checks.user_statistics import Function, evaluate, takes_latents
from ppl_vae.predictive.replicates import Replicates, ReplicateSampler

SHOWN = 1 << 19  # numbers of replicates that are kept for pictures
DRAWN = 20  # replicates that are kept for pictures
OWN = "(own)"  # in place of a site: a statistic of the user's own, of all sites together


class ReplicateComparison:
    """Takes parts of replicates as they come.

    Args:
        simulator: Makes them.
        built_in: Names of built-in statistics to find; ``None`` is all.
        own: The user's own, by title.

    Attributes:
        kinds: What the values of each site are.
        features: Names of each site's features.
        found: ``{(site, statistic): (observed, replicated)}``: a list of (data sets, values), of
            as many data sets as replicates for a discrepancy, and (replicates, values).
        observed: The data, ``{site: (rows, ...)}``.
        transforms: Where each observed cell lies among its replicates.
    """

    def __init__(
        self, simulator: ReplicateSampler, built_in: list[str] | None, own: dict[str, Function]
    ) -> None:
        self.simulator, self.built_in, self.own = simulator, built_in, own
        self.kinds = {name: ValueKind.of(fn) for name, fn in simulator.distributions.items()}
        self.features = simulator.feature_names()
        self.found: dict[tuple[str, str], tuple[list[Tensor], Tensor]] = {}
        self.observed: dict[str, Tensor] = {}
        self.transforms = RunningPIT(simulator.seed)
        self._rows = len(simulator.rows)
        self._masks: dict[str, Tensor] = {}
        self._made: dict[str, Tensor] = {}  # one group: (replicates, rows, ...)
        self._latents: dict[str, Tensor] = {}
        self._paired = any(takes_latents(function) for function in own.values())
        self._shown: dict[str, list[Tensor]] = {}
        self._start = 0  # first replicate of the group

    def add(self, part: Replicates) -> None:
        """Put a part in its place; where its group is whole, find its statistics."""
        count, index, self._start = len(part.samples), part.index, part.samples.start
        if part.samples.start == 0:
            for name, seen in part.observed.items():
                seen = seen.to(part.values[name].dtype)  # noqa: PLW2901
                self._room(self.observed, name, seen, 0)[index] = seen.cpu()
                kept = part.masks.get(name, torch.ones_like(seen, dtype=torch.bool))
                if name in part.masks and name not in self._masks:
                    self._masks[name] = torch.ones(self.observed[name].shape, dtype=torch.bool)
                if name in self._masks:
                    self._masks[name][index] = kept.cpu()
        for name, value in part.values.items():
            self._room(self._made, name, value, 1)[:count, index] = value.cpu()
        for name, value in part.latents.items() if self._paired else ():
            if name in self.simulator.row_latents:
                self._room(self._latents, name, value, 1)[:count, index] = value.cpu()
            else:
                self._latents[name] = value.cpu()
        if int(index[-1]) == self._rows - 1:
            if part.samples.start == 0:
                self._check_numbers()
            self._group(count)

    def _check_numbers(self) -> None:
        """Refuse data with cells that count and are no numbers."""
        for name, seen in self.observed.items():
            bad = ~by_feature(seen[None])[0].isfinite()
            kept = self.kept(name)
            rows = (bad if kept is None else bad & kept).any(1).nonzero()
            if len(rows):
                raise ValueError(
                    f'site "{name}": expected numbers in the data, got NaN or infinity in '
                    f"{len(rows)} row{'s' if len(rows) > 1 else ''}, the first is row "
                    f"{int(rows[0])} (counted from 0); drop such rows, or mask such cells"
                )

    def _room(self, held: dict[str, Tensor], name: str, like: Tensor, dim: int) -> Tensor:
        """Memory for all rows, made once."""
        if name not in held:
            held[name] = torch.empty(
                (*like.shape[:dim], self._rows, *like.shape[dim + 1 :]), dtype=like.dtype
            )
        return held[name]

    def _group(self, count: int) -> None:
        """Find the statistics of so many replicates, all rows of which are there."""
        whole = {name: value[:count] for name, value in self._made.items()}
        first = not self.transforms.names and not self.found
        for name, value in whole.items():
            kind, kept, x = self.kinds[name], self.kept(name), by_feature(value)
            seen = by_feature(self.observed[name][None])
            if self.built_in is None or self.built_in:
                before = kind.compute(seen, kept, self.built_in) if first else {}
                for statistic, values in kind.compute(x, kept, self.built_in).items():
                    self._store((name, statistic), values, before.get(statistic))
            if kind.has_order:
                self.transforms.add(name, x, seen[0], kept)
            self._show(name, x)
        for title, function in self.own.items():
            self._find_own(title, function, whole, count)

    def kept(self, name: str) -> Tensor | None:
        """Which cells of a site count, (rows, features) of bool; ``None`` is all."""
        mask = self._masks.get(name)
        return None if mask is None else mask.reshape(self._rows, -1)

    def _store(self, key: tuple[str, str], made: Tensor, seen: Tensor | None) -> None:
        if key not in self.found:  # room for all at once: pieces kept between groups split the heap
            room = torch.empty(self.simulator.num_samples, made.shape[1], dtype=made.dtype)
            self.found[key] = [], room
        observed, replicated = self.found[key]
        if made.shape[1] != replicated.shape[1]:
            raise ValueError(
                f'statistics: expected "{key[1]}" to give the same number of values each time'
            )
        replicated[self._start : self._start + len(made)] = made.cpu()
        if seen is not None:
            observed.append(seen.cpu())

    def _find_own(
        self, title: str, function: Function, whole: dict[str, Tensor], count: int
    ) -> None:
        """A statistic of the user's own, of each replicate; of the data once, or for each draw."""
        data, paired = self._argument(self.observed), takes_latents(function)
        made, seen = [], []
        for i in range(count):
            x = self._argument({name: value[i] for name, value in whole.items()})
            drawn = {name: value[i].clone() for name, value in self._latents.items()}
            extra = (drawn,) if paired else ()
            made.append(evaluate(title, function, x, *extra))
            if paired or ((OWN, title) not in self.found and i == 0):
                seen.append(evaluate(title, function, data, *extra))
        if any(bool(values.isnan().any()) for values in seen):
            raise ValueError(
                f'statistics: expected "{title}" to give numbers for the data, got NaN; masked '
                "cells are NaN, leave them out"
            )
        if len({len(values) for values in made + seen}) > 1:
            raise ValueError(
                f'statistics: expected "{title}" to give the same number of values each time'
            )
        self._store((OWN, title), torch.stack(made), torch.stack(seen) if seen else None)

    def _argument(self, values: dict[str, Tensor]) -> Any:
        """What a user's function is called with."""
        shown = {}
        for name, value in values.items():
            mask = self._masks.get(name)
            if mask is not None:
                value = value.to(torch.get_default_dtype()).masked_fill(~mask, torch.nan)  # noqa: PLW2901
            shown[name] = value.clone()
        return shown if len(shown) > 1 else next(iter(shown.values()))

    def _show(self, name: str, x: Tensor) -> None:
        """Keep some rows of the first replicates."""
        held = self._shown.setdefault(name, [])
        left = DRAWN - sum(map(len, held))
        if left > 0:
            held.append(x[:left, self._shown_rows(x.shape[-1])].clone())

    def _shown_rows(self, features: int) -> Tensor:
        count = max(1, min(self._rows, SHOWN // (DRAWN * features)))
        return torch.linspace(0, self._rows - 1, count, dtype=torch.double).long()

    def sample(self) -> dict[str, tuple[Any, Any]]:
        """Some rows of the data and of a few replicates, NaN under a mask."""
        shown = {}
        for name, parts in self._shown.items():
            made = torch.cat(parts)
            index = self._shown_rows(made.shape[-1])
            seen = by_feature(self.observed[name][None])[0, index]
            kept = self.kept(name)
            if kept is not None:
                made = made.masked_fill(~kept[index], torch.nan)
                seen = seen.masked_fill(~kept[index], torch.nan)
            shown[name] = seen.numpy(), made.numpy()
        return shown


def by_feature(value: Tensor) -> Tensor:
    """(data sets, rows, ...) as (data sets, rows, features) of floats."""
    joined = value.reshape(*value.shape[:2], -1)
    return joined if joined.is_floating_point() else joined.to(torch.get_default_dtype())
