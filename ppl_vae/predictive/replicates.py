"""Replicated data sets, drawn a group at a time, block of rows by block, in constant memory.

    z_s ~ q(z given x) or p(z),   x_s ~ p(x given z_s)       s = 1 ... S replicates

A replicate is a whole data set of N rows: values of a site are (samples, rows, ...). A latent
outside the row plate is drawn once for a replicate and shared by all of its rows. Replicates are
particles (``elbo.particles``): a group of them is drawn in one run of the pair where the networks
allow it, else each has a run of its own.

    layout of a value in a trace           (samples, plates inside the rows..., rows, event...)
    layout of a value in ``Replicates``    (samples, rows, plates inside the rows..., event...)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.arguments import check_arguments, names_in, shown
from ppl_vae.bars import NO_BAR, Bar
from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks, quiet_look
from ppl_vae.core.far_rows import FarRows, nan_in_rows
from ppl_vae.core.handlers import Particles, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import child
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.elbo.particles import (
    PARTICLES,
    ParticleRuns,
    Scored,
    can_vectorize,
    particles_per_run,
    runs_agree,
    select_particle,
)
from ppl_vae.predictive.factors import sites_beside_factors
from ppl_vae.predictive.global_draws import GlobalDraws
from ppl_vae.predictive.latent_draws import LatentDraws, data_sites, drawn_latents, simulate
from ppl_vae.predictive.row_form import COMPARED_ROWS

GROUP_NUMBERS = 1 << 25  # numbers of data in one group of replicates: 128 MiB of floats


@dataclass(frozen=True)
class Replicates:
    """Some replicates of some rows.

    Attributes:
        samples: Positions of these replicates among all S.
        index: Positions of these rows in the data, (rows,).
        values: What was drawn at the observed sites, ``{site: (samples, rows, ...)}``.
        observed: What the data hold at these sites, ``{site: (rows, ...)}``.
        masks: Unmasked cells, ``{site: (rows, ...)}`` of bool; a site without a mask has no entry.
            The masked cells are drawn as well. Rows on which the networks overflow are masked;
            there, values and latents are NaN, but for integers, which are meaningless.
        latents: What the values were drawn from: ``{site: (samples, rows, ...)}``, and
            ``(samples, ...)`` for a latent outside the row plate.
    """

    samples: range
    index: Tensor
    values: dict[str, Tensor]
    observed: dict[str, Tensor]
    masks: dict[str, Tensor]
    latents: dict[str, Tensor]

    @property
    def places(self) -> tuple[slice, Tensor]:
        """Where these values stand in all replicates of all rows: an index (samples, rows)."""
        return slice(self.samples.start, self.samples.stop), self.index

    def without(self, rows: Tensor, row_latents: Iterable[str]) -> Replicates:
        """Return these replicates with some rows masked, and NaN where floats stand in these rows.

        Args:
            rows: The rows to mask, (rows,) of bool.
            row_latents: Names of the latents in the row plate.
        """
        if not bool(rows.any()):
            return self

        def marked(values: dict[str, Tensor], dim: int, names: Iterable[str]) -> dict[str, Tensor]:
            floats = [name for name in names if values[name].is_floating_point()]
            return {**values, **{name: nan_in_rows(values[name], rows, dim) for name in floats}}

        masks = {name: torch.ones_like(x, dtype=torch.bool) for name, x in self.observed.items()}
        masks = {**masks, **{name: mask.clone() for name, mask in self.masks.items()}}
        for mask in masks.values():
            mask[rows.to(mask.device)] = False
        return dataclasses.replace(
            self,
            values=marked(self.values, 1, self.values),
            observed=marked(self.observed, 0, self.observed),
            masks=masks,
            latents=marked(self.latents, 1, self.latents.keys() & row_latents),
        )


class ReplicateSampler:
    """Draws the replicates of one data set: group after group, and block of rows after block.

    Args:
        pair: The pair.
        rows: The data, N rows.
        num_samples: S, replicates in all.
        seed: Seeds the draws.
        prior: Whether latents come from the prior; else they come from their posterior.
        names: Name or names of the observed sites to draw; ``None`` draws all.
        judge: Whether to refuse observed values outside their likelihood's support.

    Attributes:
        sites: Names of the observed sites that are drawn.
        distributions: What the sites are drawn from, for a few rows: ``{site: distribution}``.
        row_latents: Names of the latents in the row plate.
        from_prior: Names of the latents that are drawn from the prior.
        factors: Sites whose replicates do not follow a factor of the model, ``{site: factors}``.
        posterior: Draws the latents.
        runs: How the pair draws the replicates of a group: in one run, or in one run each.
        count: Replicates in a group; it depends on shapes only, never on memory.
        far_rows: The rows on which the networks overflow.

    Raises:
        ValueError: If the model observes nothing in the row plate, the plate is not at dim -1, or
            ``names`` holds anything but observed sites.
    """

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        num_samples: int,
        *,
        seed: int | None,
        prior: bool,
        names: Any,
        judge: bool = True,
    ) -> None:
        check_arguments(num_samples=num_samples, seed=seed)
        self.pair, self.rows, self.prior, self.judge = pair, rows, prior, judge
        self.num_samples, self.seed = num_samples, seed
        self.posterior, self.far_rows = LatentDraws(pair, rows), FarRows(pair, rows)
        width = sum(max(1, math.prod(field.array.shape[1:])) for field in rows.fields)
        most = max(1, min(PARTICLES, GROUP_NUMBERS // (width * len(rows))))
        self.count = particles_per_run(num_samples, most)
        self._probe(names)
        self.factors = sites_beside_factors(pair, rows, prior=prior)
        self._globals = GlobalDraws(pair, rows, guide=not prior)

    def groups(self) -> list[range]:
        """Return the replicates of each group."""
        starts = range(0, self.num_samples, self.count)
        return [range(start, min(start + self.count, self.num_samples)) for start in starts]

    def stream(
        self, bar: Bar = NO_BAR, groups: Sequence[range] | None = None
    ) -> Iterator[Replicates]:
        """Yield all replicates: group after group, and within a group block after block of rows.

        Args:
            bar: The progress bar, which counts rows.
            groups: The groups to yield; ``None`` for all. A group has the same replicates, whether
                others are drawn or not.
        """
        groups = self.groups() if groups is None else groups
        total = len(self.rows) * sum(map(len, groups))
        with bar.over(total=total, unit="row", unit_scale=True) as shown:
            for group in groups:
                seed = child(self.seed, group.start, 1)
                global_draws = self._globals.draw_particles(seed, len(group), self.runs)
                draw = functools.partial(self._replicates, group=group, global_draws=global_draws)
                work = functools.partial(self.far_rows.run, draw, attrgetter("values"))
                seed = child(self.seed, group.start)
                block: dict[str, Any] = {"copies": len(group), "judge": self.judge}
                for _, part in blocks(self.pair, self.rows, work, seed=seed, **block):
                    shown.update(len(part.index) * len(group))
                    yield part.without(self.far_rows.found[part.index], self.row_latents)

    def _replicates(
        self, batch: Batch, index: Tensor, group: range, global_draws: list[dict[str, Tensor]]
    ) -> Replicates:
        """Draw one group's replicates of a block of rows.

        The first group goes through Pyro's own checks of shapes and supports; later groups have the
        same shapes, and do without.
        """
        with contextlib.nullcontext() if group.start == 0 else pyro.validation_enabled(False):
            traces = [trace for _, trace in self._simulated(batch, len(group), global_draws)]
        for trace in traces:
            self._check_sites(trace, index)
        values = self._joined([self._drawn_sites(trace) for trace in traces])
        latents = self._joined([_named_latents(trace) for trace in traces])
        observed, masks = self._observed(traces[0])
        return Replicates(group, index, values, observed, masks, latents)

    def _joined(self, runs: list[dict[str, sites.Site]]) -> dict[str, Tensor]:
        """Return the values of the sites of all runs together, ``{site: (samples, rows, ...)}``."""
        values = [
            {name: samples_first(site["value"], site, self.runs.dim) for name, site in run.items()}
            for run in runs
        ]
        return {name: torch.cat([run[name] for run in values]) for name in values[0]}

    def _check_sites(self, trace: Trace, index: Tensor) -> None:
        """Raise if a block of rows has other observed sites than the first rows had."""
        for name in self._in_row_plate(trace).keys() ^ self._all_sites:
            which = "missing from" if name in self._all_sites else "only in"
            raise ValueError(
                f'site "{name}": expected the same observed sites in every block of rows, got one '
                f"{which} rows {int(index[0])} to {int(index[-1])}; where sequences have lengths, "
                "loop over the width of the data and mask what lies beyond"
            )

    def _in_row_plate(self, trace: Trace) -> dict[str, sites.Site]:
        """Return the data sites in the row plate, by the names that the user gave them."""
        return {
            sites.full_site_name(trace, name): site
            for name, site in data_sites(trace).items()
            if sites.in_plate(site, self.pair.plate)
        }

    def _drawn_sites(self, trace: Trace) -> dict[str, sites.Site]:
        """Return the data sites that replicates are drawn of, by the user's names."""
        known = self._in_row_plate(trace).items()
        return {name: site for name, site in known if name in self.sites}

    def _observed(self, trace: Trace) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the data at the drawn sites, and the unmasked cells of sites with a mask.

        Two dictionaries, ``{site: (rows, ...)}`` each; see ``Replicates``.
        """
        observed, masks = {}, {}
        for name, site in self._drawn_sites(trace).items():
            value = site["value"]
            data = torch.as_tensor(site["infer"]["obs"], device=value.device).expand(value.shape)
            observed[name] = samples_first(data, site, self.runs.dim)[0]
            unmasked = sites.unmasked_cells(site)
            if not bool(unmasked.all()):
                masks[name] = samples_first(unmasked, site, self.runs.dim)[0]
        return observed, masks

    def _simulated(
        self, batch: Batch, count: int, global_draws: list[dict[str, Tensor]]
    ) -> Iterator[tuple[dict[str, Tensor], Trace]]:
        """Yield, for each run, the latents drawn before the model ran, and the model's trace.

        Args:
            batch: The rows.
            count: Replicates in all runs together.
            global_draws: Latents outside the row plate, ``{site: value}`` for each run.
        """
        handlers = self.runs.handlers(count)
        for given, particles in zip(global_draws, handlers, strict=True):
            values = given if self.prior else self.posterior.draw(batch, given, particles)
            yield values, simulate(self.pair, batch, Substitute(values), particles)

    def feature_names(self) -> dict[str, list[str]]:
        """Return a name for every cell of a row, ``{site: names}``.

        Cells are named by the columns of a frame, else by their positions in the row ("2", "0,1");
        the single cell of a site without event dimensions has the site's name.
        """
        with quiet_look(self.pair, self.rows, COMPARED_ROWS, spread=True) as batch:
            trace = simulate(self.pair, batch, Messenger())
        return {
            name: [label or name for label in self._labels(batch, site)]
            for name, site in self._drawn_sites(trace).items()
        }

    def _labels(self, batch: Batch, site: sites.Site) -> list[str]:
        """Return the data's names of the columns that a site's cells stand in, else positions."""
        shape = tuple(samples_first(site["value"], site, None).shape[2:])
        positions = [",".join(map(str, position)) for position in np.ndindex(shape)]
        place = cells_in(batch, torch.as_tensor(site["infer"]["obs"]), site["fn"].event_dim)
        if place is None:
            return positions
        field, cells = place
        labels = self.rows.fields[field].labels
        if isinstance(labels, pd.Index) and cells.shape == site["value"].shape:
            columns = samples_first(cells, site, None)[0, 0].flatten() % len(labels)
            return [str(labels[int(column)]) for column in columns]
        return positions

    def _probe(self, names: Any) -> None:
        """Run the pair on a few rows: find its sites, and how it can draw replicates."""
        nesting = self.posterior.nesting
        with quiet_look(self.pair, self.rows) as few_rows:
            vectorized = can_vectorize(self.pair, few_rows, nesting) and _replicates_agree(
                self.pair, few_rows, nesting
            )
            self.runs = ParticleRuns(nesting, vectorized)
            _, trace = next(self._simulated(few_rows, 1, [{}]))
        observed = self._in_row_plate(trace)
        self._all_sites = set(observed)
        if not observed:
            raise ValueError(
                f'model: expected an observed site in the row plate "{self.pair.plate}", found '
                "none; observe the data inside the plate, or pass its name as plate="
            )
        self.sites = _chosen(names, list(observed))
        self.distributions = {name: observed[name]["fn"] for name in self.sites}
        self.row_latents = sorted(drawn_latents(trace).keys() - self.posterior.outside)
        every = list(_named_latents(trace)) if self.prior else self.posterior.from_prior
        self.from_prior = [name for name in every if name in _named_latents(trace)]


def _named_latents(trace: Trace) -> dict[str, sites.Site]:
    """Return the drawn latents without the cells that Pyro draws for an ``obs_mask``."""
    drawn = drawn_latents(trace).items()
    return {name: site for name, site in drawn if not name.endswith("_unobserved")}


def write_part(
    into: dict[str, Tensor], part: dict[str, Tensor], size: tuple[int, ...], place: tuple[Any, ...]
) -> None:
    """Write a part of each site's values to its place in the whole tensor, (*size, ...).

    Args:
        into: The whole tensors by site, on the CPU; a missing one is made.
        part: The part's values by site.
        size: Leading dimensions of the whole tensor: (samples, rows), (samples,) or (rows,).
        place: Where the part stands, an index for each of these dimensions.
    """
    for name, value in part.items():
        if name not in into:
            into[name] = torch.empty((*size, *value.shape[len(size) :]), dtype=value.dtype)
        into[name][place] = value.cpu()


def samples_first(
    value: Tensor, site: sites.Site, dim: int | None, event_dim: int | None = None
) -> Tensor:
    """Return a site's value with draws and rows in front: (samples, rows, ...).

    The dimensions of plates inside the rows follow, then those of an event; those of size 1 of no
    plate are dropped. Outside the row plate: (samples, ...). Inverse of ``ReplayReplicates``.

    Args:
        value: The site's value, or a tensor laid out like it (the data, a mask).
        site: The site, from a trace.
        dim: The draws' dimension, counted from the right of the plates; ``None`` for one of size 1.
        event_dim: Dimensions of one event in ``value``; the distribution's by default.
    """
    event_dim = site["fn"].event_dim if event_dim is None else event_dim
    plates = {frame.dim for frame in site["cond_indep_stack"] if frame.dim is not None}
    batch_dim = value.ndim - event_dim
    positions = range(-batch_dim, 0)  # of the plates' dimensions, counted from the right
    draws = [d for d in positions if d == dim]
    rows = [d for d in positions if d == -1 and d in plates]
    inner = [d for d in positions if d in plates and d not in (dim, -1)]
    order = [batch_dim + d for d in (*draws, *rows, *inner)]
    no_plate = [batch_dim + d for d in positions if batch_dim + d not in order]  # each of size 1
    moved = value.permute((*order, *no_plate, *range(batch_dim, value.ndim)))
    shape = [size for i, size in enumerate(moved.shape) if not len(order) <= i < batch_dim]
    moved = moved.reshape(shape)
    return moved if draws else moved[None]


def _chosen(names: Any, known: list[str]) -> list[str]:
    """Return the observed sites that a user asks for, in the model's order; all for ``None``."""
    if names is None:
        return known
    asked = names_in("sites", names)
    unknown = [name for name in asked if not isinstance(name, str) or name not in known]
    if unknown or not asked:
        raise ValueError(f"sites: expected some of {known}, got {shown(unknown or asked)}")
    return [name for name in known if name in asked]


def _replicates_agree(pair: Pair, batch: Batch, nesting: int) -> bool:
    """Return whether replicates drawn in one run have the densities that each of them has alone.

    ``can_vectorize`` runs the model on observed data, which have no particles' dimension. Here the
    data sites are drawn, so that sites after an observed site have the dimension as well.
    """

    def run(values: Mapping[str, Tensor], particles: Particles | None) -> Scored:
        trace = simulate(pair, batch, Substitute(values), particles)
        drawn = sites.sample_sites(trace)
        scored = [(s["fn"].log_prob(s["value"]), s) for s in data_sites(trace).values()]
        return drawn, lambda particle: [
            select_particle(score, site, particle, nesting, event_dim=0) for score, site in scored
        ]

    return runs_agree(run, nesting)
