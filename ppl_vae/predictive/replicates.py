"""Replicated data sets, made a group at a time, block of rows by block, in constant memory.

    z_s ~ q(z given x) or p(z),   x_s ~ p(x given z_s)       s = 1 ... S

A latent outside the row plate is drawn once for a replicate and shared by all of its rows.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from tqdm.auto import tqdm

from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks, check_count, errors_naming_rows, quiet_look
from ppl_vae.core.handlers import Particles, Substitute
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import child, forked
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.elbo.weights import can_vectorize, select_particle
from ppl_vae.predictive.latent_draws import LatentDraws, data_sites, simulate
from ppl_vae.predictive.row_form import SPREAD

ELEMENTS = 1 << 25  # numbers of data in the replicates that are made side by side
PARTICLES = 64  # replicates made side by side, at most
SEEN = 512  # rows that a guide is given to draw what stands outside the row plate


@dataclass(frozen=True)
class Replicates:
    """Some replicates of some rows.

    Attributes:
        samples: Which replicates, of all that were asked for.
        index: Positions of the rows in the data, (rows,).
        values: What was drawn, ``{site: (samples, rows, ...)}``.
        observed: What the data have there, ``{site: (rows, ...)}``.
        masks: Which cells count, ``{site: (rows, ...)}`` of bool; a site without a mask has none.
            The other cells are drawn as well.
        latents: What they were drawn from: ``{site: (samples, rows, ...)}``, and
            ``(samples, ...)`` outside the row plate.
    """

    samples: range
    index: Tensor
    values: dict[str, Tensor]
    observed: dict[str, Tensor]
    masks: dict[str, Tensor]
    latents: dict[str, Tensor]


class ReplicateSampler:
    """Makes the replicates of one data set, a group of them at a time, block of rows by block.

    Args:
        pair: The pair.
        rows: The data.
        num_samples: S, replicates in all.
        seed: Seeds the draws.
        prior: Whether latents come from the prior.
        names: The observed sites to make; all by default.

    Attributes:
        sites: Names of the observed sites that are made.
        distributions: What they are drawn from, for a few rows: ``{site: distribution}``.
        row_latents: Names of the latents in the row plate.
        count: Replicates in a group: by shapes alone.
    """

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        num_samples: int,
        *,
        seed: int | None,
        prior: bool,
        names: Any = None,
    ) -> None:
        check_count("num_samples", num_samples)
        self.pair, self.rows, self.prior = pair, rows, prior
        self.num_samples, self.seed = num_samples, seed
        self.posterior = LatentDraws(self.pair, rows)
        width = sum(max(1, math.prod(field.array.shape[1:])) for field in rows.fields)
        together = max(1, min(PARTICLES, ELEMENTS // (width * len(rows))))
        self.count = math.ceil(num_samples / math.ceil(num_samples / together))
        self._look(names)

    @property
    def groups(self) -> list[range]:
        """The replicates that are made side by side."""
        starts = range(0, self.num_samples, self.count)
        return [range(start, min(start + self.count, self.num_samples)) for start in starts]

    def stream(self, progress: str = "") -> Iterator[Replicates]:
        """All replicates: group after group, and within a group block of rows after block.

        Args:
            progress: Title of a progress bar; none if empty.
        """
        bar = tqdm(
            total=len(self.rows) * self.num_samples, desc=progress, unit="row", unit_scale=True,
            disable=not progress, leave=False,
        )  # fmt: skip
        with bar:
            for group in self.groups:
                shared = self._shared(group)
                quiet = group.start > 0  # the first group has been through Pyro's own checks
                work = self._work(group, shared, quiet)
                seed = child(self.seed, group.start)
                for _, part in blocks(self.pair, self.rows, work, seed=seed, copies=len(group)):
                    bar.update(len(part.index) * len(group))
                    yield part

    def _work(self, group: range, shared: Any, quiet: bool) -> Callable[[Batch, Tensor], Any]:
        def work(batch: Batch, index: Tensor) -> Replicates:
            with pyro.validation_enabled(False) if quiet else contextlib.nullcontext():
                return self._made(batch, index, group, shared)

        return work

    def _made(self, batch: Batch, index: Tensor, group: range, shared: Any) -> Replicates:
        """One group's replicates of a block of rows."""
        dim, traces = self._dim, list(self._traces(batch, len(group), shared))
        found: list[dict[str, dict[str, Tensor]]] = []
        for trace in traces:
            parts: dict[str, dict[str, Tensor]] = {"values": {}, "latents": {}}
            self._check_sites(trace, index)
            for name, site in data_sites(trace).items():
                whole = sites.full_site_name(trace, name)
                if whole in self.sites:
                    parts["values"][whole] = by_draw(site["value"], site, dim)
            for name, site in sites.with_role(trace, "latent").items():
                if not site["infer"].get("was_observed") and not name.endswith("_unobserved"):
                    parts["latents"][name] = by_draw(site["value"], site, dim)
            found.append(parts)
        joined = {
            part: {name: torch.cat([one[part][name] for one in found]) for name in found[0][part]}
            for part in found[0]
        }
        observed, masks = self._seen(traces[0])
        return Replicates(group, index, observed=observed, masks=masks, **joined)

    def _check_sites(self, trace: Any, index: Tensor) -> None:
        """Refuse a block of rows that has other observed sites than the first rows had."""
        met = {sites.full_site_name(trace, name) for name, _ in self._in_rows(trace)}
        for name in met ^ self._met:
            which = "missing from" if name in self._met else "only in"
            raise ValueError(
                f'site "{name}": expected the same observed sites in every block of rows, got one '
                f"{which} rows {int(index[0])} to {int(index[-1])}; where sequences have lengths, "
                "loop over the width of the data and mask what lies beyond"
            )

    def _in_rows(self, trace: Any) -> list[tuple[str, sites.Site]]:
        """The observed sites in the row plate."""
        found = data_sites(trace).items()
        return [(name, site) for name, site in found if sites.in_plate(site, self.pair.plate)]

    def _seen(self, trace: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the data have at the observed sites, and which cells count."""
        observed, masks = {}, {}
        for name, site in data_sites(trace).items():
            whole = sites.full_site_name(trace, name)
            if whole in self.sites:
                value = site["value"]
                seen = torch.as_tensor(site["infer"]["obs"], device=value.device)
                observed[whole] = by_draw(seen.expand(value.shape), site, self._dim)[0]
                kept = sites.unmasked_cells(site)
                if not bool(kept.all()):
                    masks[whole] = by_draw(kept, site, self._dim)[0]
        return observed, masks

    def _traces(self, batch: Batch, count: int, shared: list[dict[str, Tensor]]) -> Iterator[Any]:
        """Traces of the model with new observations: of all replicates at once, or one of each."""
        return (trace for _, trace in self._drawn(batch, count, shared))

    def _drawn(
        self, batch: Batch, count: int, shared: list[dict[str, Tensor]]
    ) -> Iterator[tuple[dict[str, Tensor], Any]]:
        """What was drawn before the model ran, and the model's trace."""
        for given in shared if not self.vectorized else shared[:1]:
            particles = Particles(count, self._dim) if self._dim is not None else None
            values = given if self.prior else self.posterior.draw(batch, given, particles)
            yield values, simulate(self.pair, batch, Substitute(values), particles)

    @property
    def _dim(self) -> int | None:
        """The replicates' dimension, counted from the right; ``None`` without one."""
        return -1 - self.posterior.nesting if self.vectorized else None

    def _shared(self, group: range) -> list[dict[str, Tensor]]:
        """What stands outside the row plate, the same for all rows: one entry a run of the pair.

        The guide is given up to 512 rows for it.
        """
        runs: list[dict[str, Tensor]] = [{}] * (1 if self.vectorized else len(group))
        if not self.posterior.outside:
            return runs
        index = torch.arange(min(len(self.rows), SEEN))
        batch = self.rows.take(index, self.pair.device())
        seed = child(self.seed, group.start, 1)
        with pyro_lock(), forked(seed), self.pair.evaluating(), errors_naming_rows(batch, index):
            drawn = list(self._drawn(batch, len(group), runs))
        return [
            {
                name: value
                for name, value in {**values, **_latents(trace)}.items()
                if name in self.posterior.outside
            }
            for values, trace in drawn
        ]

    def feature_names(self) -> dict[str, list[str]]:
        """What the cells of a row are called: a frame's columns, else their positions."""
        with quiet_look(self.pair, self.rows, SPREAD, spread=True) as batch:
            trace = simulate(self.pair, batch, Messenger())
        found = {}
        for name, site in data_sites(trace).items():
            whole = sites.full_site_name(trace, name)
            if whole in self.sites:
                shape = by_draw(site["value"], site, None).shape[2:]
                labels = self._labels(batch, site, tuple(shape))
                found[whole] = [label or whole for label in labels]
        return found

    def _labels(self, batch: Batch, site: sites.Site, shape: tuple[int, ...]) -> list[str]:
        """Columns that a site's cells stand in, where the data have names for them."""
        cells = [",".join(map(str, place)) for place in np.ndindex(shape)]
        place = cells_in(batch, torch.as_tensor(site["infer"]["obs"]))
        if place is None:
            return cells
        labels = self.rows.fields[place[0]].labels
        if isinstance(labels, pd.Index) and place[1].shape == site["value"].shape:
            columns = by_draw(place[1], site, None)[0, 0].flatten() % len(labels)
            return [str(labels[int(column)]) for column in columns]
        return cells

    def _look(self, names: Any) -> None:
        """Run the pair on a few rows: its sites, and whether replicates can share a run."""
        with quiet_look(self.pair, self.rows) as few:
            nesting = self.posterior.nesting
            self.vectorized = can_vectorize(self.pair, few, nesting) and _draws_alike(
                self.pair, few, nesting
            )
            trace = next(self._traces(few, 1, [{}]))
        inside = {sites.full_site_name(trace, name): site for name, site in self._in_rows(trace)}
        self._met = set(inside)
        self._check_plate(trace)
        self.sites = _chosen(names, list(inside))
        self.distributions = {name: inside[name]["fn"] for name in self.sites}
        self.row_latents = sorted(_latents(trace).keys() - self.posterior.outside)

    def _check_plate(self, trace: Any) -> None:
        plate = self.pair.plate
        if not self._met:
            raise ValueError(
                f'model: expected an observed site in the row plate "{plate}", found none'
            )
        dim = sites.plates(trace)[plate].dim
        if dim != -1:
            raise ValueError(f'plate "{plate}": expected the rows at dim -1, got {dim}')


def _latents(trace: Any) -> dict[str, Tensor]:
    """Values of the latents of a model whose data sites are drawn."""
    found = sites.with_role(trace, "latent").items()
    return {n: site["value"] for n, site in found if not site["infer"].get("was_observed")}


def _chosen(names: Any, known: list[str]) -> list[str]:
    """The observed sites that are asked for."""
    if names is None:
        return known
    several = isinstance(names, Iterable) and not isinstance(names, str)
    asked = list(names) if several else [names]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise ValueError(f"sites: expected some of {known}, got {unknown or asked}")
    return [name for name in known if name in asked]


def _draws_alike(pair: Pair, batch: Batch, nesting: int) -> bool:
    """Whether replicates made side by side are what each would be alone, given its draws.

    ``vectorizes`` looks at observed data, which have no replicates' dimension; here what follows
    an observed site follows a draw of it.
    """
    try:
        together = simulate(pair, batch, Messenger(), Particles(3, -1 - nesting))
        drawn = sites.sample_sites(together)
        scores = {n: site["fn"].log_prob(site["value"]) for n, site in data_sites(together).items()}
    except Exception:  # whatever a network says to one more dimension
        return False
    for particle in range(3):
        values = {
            name: select_particle(site["value"], site, particle, nesting)
            for name, site in drawn.items()
            if not site["is_observed"]
        }
        alone = data_sites(simulate(pair, batch, Substitute(values)))
        for name, site in alone.items():
            score = site["fn"].log_prob(site["value"])
            other = select_particle(scores[name], drawn[name], particle, nesting, event_dim=0)
            if not torch.allclose(score, other.expand(score.shape), 1e-3, 1e-3, equal_nan=True):
                return False
    return True


def by_draw(value: Tensor, site: sites.Site, dim: int | None) -> Tensor:
    """A site's value, or what is shaped like it, with draws in front: (samples, rows, ...).

    Outside the row plate there are no rows: (samples, ...).

    Args:
        value: (..., rows, event).
        site: Where it is from.
        dim: The draws' dimension, counted from the right of the plates; ``None`` where there is
            none.
    """
    event = site["fn"].event_dim
    plates = {frame.dim for frame in site["cond_indep_stack"] if frame.dim is not None}
    count = value.ndim - event
    batch = range(-count, 0)  # dimensions of the plates, counted from their right end
    draws = [d for d in batch if d == dim]
    rows = [d for d in batch if d == -1 and d in plates]
    inner = [d for d in batch if d in plates and d not in (dim, -1)]
    order = [count + d for d in (*draws, *rows, *inner)]
    rest = [count + d for d in batch if count + d not in order]  # of size 1: no plate's
    moved = value.permute((*order, *rest, *range(count, value.ndim)))
    kept = [n for i, n in enumerate(moved.shape) if not len(order) <= i < count]
    moved = moved.reshape(kept)
    return moved if draws else moved[None]
