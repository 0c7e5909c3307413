"""Replicated data sets, drawn a group at a time, block of rows by block, in constant memory.

    z_s ~ q(z given x) or p(z),   x_s ~ p(x given z_s)       s = 1 ... S replicates

A replicate is a whole data set of N rows: values of a site are (samples, rows, ...). A latent
outside the row plate is drawn once for a replicate and shared by all of its rows. Replicates are
particles (``elbo.particles``): a group of them is drawn in one run of the pair where the networks
allow it, else each has a run of its own.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from tqdm.auto import tqdm

from ppl_vae.core import sites
from ppl_vae.core.blocks import blocks, check_count, quiet_look
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
from ppl_vae.predictive.latent_draws import (
    GLOBAL_ROWS,
    LatentDraws,
    data_sites,
    drawn_latents,
    seeded_run,
    simulate,
)
from ppl_vae.predictive.layout import samples_first
from ppl_vae.predictive.row_form import COMPARED_ROWS

GROUP_NUMBERS = 1 << 25  # numbers of data in one group of replicates: 128 MiB of floats

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Replicates:
    """Some replicates of some rows.

    Attributes:
        samples: Positions of these replicates among all S.
        index: Positions of these rows in the data, (rows,).
        values: What was drawn at the observed sites, ``{site: (samples, rows, ...)}``.
        observed: What the data hold at these sites, ``{site: (rows, ...)}``.
        masks: Unmasked cells, ``{site: (rows, ...)}`` of bool; a site without a mask has no entry.
            The masked cells are drawn as well.
        latents: What the values were drawn from: ``{site: (samples, rows, ...)}``, and
            ``(samples, ...)`` for a latent outside the row plate.
    """

    samples: range
    index: Tensor
    values: dict[str, Tensor]
    observed: dict[str, Tensor]
    masks: dict[str, Tensor]
    latents: dict[str, Tensor]


class ReplicateSampler:
    """Draws the replicates of one data set: group after group, and block of rows after block.

    Args:
        pair: The pair.
        rows: The data, N rows.
        num_samples: S, replicates in all.
        seed: Seeds the draws.
        prior: Whether latents come from the prior; else they come from their posterior.
        names: Name or names of the observed sites to draw; all by default.

    Attributes:
        sites: Names of the observed sites that are drawn.
        distributions: What the sites are drawn from, for a few rows: ``{site: distribution}``.
        row_latents: Names of the latents in the row plate.
        posterior: Draws the latents.
        runs: How the pair draws the replicates of a group: in one run, or in one run each.
        count: Replicates in a group; it depends on shapes only, never on memory.

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
        names: Any = None,
    ) -> None:
        check_count("num_samples", num_samples)
        self.pair, self.rows, self.prior = pair, rows, prior
        self.num_samples, self.seed = num_samples, seed
        self.posterior = LatentDraws(self.pair, rows)
        width = sum(max(1, math.prod(field.array.shape[1:])) for field in rows.fields)
        most = max(1, min(PARTICLES, GROUP_NUMBERS // (width * len(rows))))
        self.count = particles_per_run(num_samples, most)
        self._probe(names)

    @property
    def groups(self) -> list[range]:
        """Positions of the replicates in each group."""
        starts = range(0, self.num_samples, self.count)
        return [range(start, min(start + self.count, self.num_samples)) for start in starts]

    def stream(self, progress: str = "") -> Iterator[Replicates]:
        """Yield all replicates: group after group, and within a group block after block of rows.

        Args:
            progress: Title of a progress bar; none if empty.
        """
        bar = tqdm(
            total=len(self.rows) * self.num_samples, desc=progress, unit="row", unit_scale=True,
            disable=not progress, leave=False,
        )  # fmt: skip
        with bar:
            for group in self.groups:
                work = self._work(group, self._global_draws(group))
                seed = child(self.seed, group.start)
                for _, part in blocks(self.pair, self.rows, work, seed=seed, copies=len(group)):
                    bar.update(len(part.index) * len(group))
                    yield part

    def _work(
        self, group: range, global_draws: list[dict[str, Tensor]]
    ) -> Callable[[Batch, Tensor], Replicates]:
        """Return the function that draws a group's replicates of a block of rows.

        The first group goes through Pyro's own checks of shapes and supports; later groups have the
        same shapes, and do without.
        """
        checked = group.start == 0

        def work(batch: Batch, index: Tensor) -> Replicates:
            with contextlib.nullcontext() if checked else pyro.validation_enabled(False):
                return self._replicates(batch, index, group, global_draws)

        return work

    def _replicates(
        self, batch: Batch, index: Tensor, group: range, global_draws: list[dict[str, Tensor]]
    ) -> Replicates:
        """Draw one group's replicates of a block of rows."""
        dim = self.runs.dim
        traces = [trace for _, trace in self._simulated(batch, len(group), global_draws)]
        runs: list[dict[str, dict[str, Tensor]]] = []
        for trace in traces:
            self._check_sites(trace, index)
            values, latents = {}, {}
            for name, site in data_sites(trace).items():
                full_name = sites.full_site_name(trace, name)
                if full_name in self.sites:
                    values[full_name] = samples_first(site["value"], site, dim)
            for name, site in drawn_latents(trace).items():
                if not name.endswith("_unobserved"):
                    latents[name] = samples_first(site["value"], site, dim)
            runs.append({"values": values, "latents": latents})
        joined = {
            part: {name: torch.cat([run[part][name] for run in runs]) for name in runs[0][part]}
            for part in ("values", "latents")
        }
        observed, masks = self._observed(traces[0])
        return Replicates(group, index, observed=observed, masks=masks, **joined)

    def _check_sites(self, trace: Trace, index: Tensor) -> None:
        """Raise if a block of rows has other observed sites than the first rows had."""
        in_block = {sites.full_site_name(trace, name) for name in self._in_row_plate(trace)}
        for name in in_block ^ self._all_sites:
            which = "missing from" if name in self._all_sites else "only in"
            raise ValueError(
                f'site "{name}": expected the same observed sites in every block of rows, got one '
                f"{which} rows {int(index[0])} to {int(index[-1])}; where sequences have lengths, "
                "loop over the width of the data and mask what lies beyond"
            )

    def _in_row_plate(self, trace: Trace) -> dict[str, sites.Site]:
        """Return the data sites in the row plate, by name."""
        plate = self.pair.plate
        drawn = data_sites(trace).items()
        return {name: site for name, site in drawn if sites.in_plate(site, plate)}

    def _observed(self, trace: Trace) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the data at the drawn sites, and the unmasked cells of sites with a mask.

        Two dictionaries, ``{site: (rows, ...)}`` each; see ``Replicates``.
        """
        observed, masks = {}, {}
        for name, site in data_sites(trace).items():
            full_name = sites.full_site_name(trace, name)
            if full_name in self.sites:
                value = site["value"]
                data = torch.as_tensor(site["infer"]["obs"], device=value.device)
                observed[full_name] = samples_first(data.expand(value.shape), site, self.runs.dim)[
                    0
                ]
                unmasked = sites.unmasked_cells(site)
                if not bool(unmasked.all()):
                    masks[full_name] = samples_first(unmasked, site, self.runs.dim)[0]
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

    def _global_draws(self, group: range) -> list[dict[str, Tensor]]:
        """Draw the latents outside the row plate, once for each replicate of a group.

        They are drawn before the blocks of rows, which all share them. The guide reads up to 512
        rows for it.

        Returns:
            ``{site: value}`` for each run of the pair: one with all replicates, or one for each.
        """
        empty: list[dict[str, Tensor]] = [{} for _ in self.runs.handlers(len(group))]
        if not self.posterior.outside:
            return empty
        index = torch.arange(min(len(self.rows), GLOBAL_ROWS))
        with seeded_run(self.pair, self.rows, index, child(self.seed, group.start, 1)) as batch:
            drawn = list(self._simulated(batch, len(group), empty))
        results = []
        for values, trace in drawn:
            latents = {name: site["value"] for name, site in drawn_latents(trace).items()}
            everything = {**values, **latents}.items()
            results.append({n: value for n, value in everything if n in self.posterior.outside})
        return results

    def feature_names(self) -> dict[str, list[str]]:
        """Return a name for every cell of a row, ``{site: names}``.

        Cells are named by the columns of a frame, else by their positions in the row ("2", "0,1");
        the single cell of a site without event dimensions has the site's name.
        """
        with quiet_look(self.pair, self.rows, COMPARED_ROWS, spread=True) as batch:
            trace = simulate(self.pair, batch, Messenger())
        names = {}
        for name, site in data_sites(trace).items():
            full_name = sites.full_site_name(trace, name)
            if full_name in self.sites:
                shape = samples_first(site["value"], site, None).shape[2:]
                labels = self._labels(batch, site, tuple(shape))
                names[full_name] = [label or full_name for label in labels]
        return names

    def _labels(self, batch: Batch, site: sites.Site, shape: tuple[int, ...]) -> list[str]:
        """Return the data's names of the columns that a site's cells stand in, else positions."""
        positions = [",".join(map(str, position)) for position in np.ndindex(shape)]
        place = cells_in(batch, torch.as_tensor(site["infer"]["obs"]))
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
        observed = {
            sites.full_site_name(trace, name): site
            for name, site in self._in_row_plate(trace).items()
        }
        self._all_sites = set(observed)
        self._check_plate(trace)
        self.sites = _chosen(names, list(observed))
        self.distributions = {name: observed[name]["fn"] for name in self.sites}
        self.row_latents = sorted(drawn_latents(trace).keys() - self.posterior.outside)

    def _check_plate(self, trace: Trace) -> None:
        """Raise if no data site stands in the row plate, or the plate is not at dim -1."""
        plate = self.pair.plate
        if not self._all_sites:
            raise ValueError(
                f'model: expected an observed site in the row plate "{plate}", found none; observe '
                "the data inside the plate, or pass its name as plate="
            )
        dim = sites.plates(trace)[plate].dim
        if dim != -1:
            raise ValueError(
                f'plate "{plate}": expected the rows at dim -1, got {dim}; open the row plate '
                "before all others"
            )


def _chosen(names: Any, known: list[str]) -> list[str]:
    """Return the observed sites that a user asks for, in the model's order; all for ``None``."""
    if names is None:
        return known
    several = isinstance(names, Iterable) and not isinstance(names, str)
    asked = list(names) if several else [names]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise ValueError(f"sites: expected some of {known}, got {unknown or asked}")
    return [name for name in known if name in asked]


def _replicates_agree(pair: Pair, batch: Batch, nesting: int) -> bool:
    """Return whether replicates drawn in one run have the densities that each of them has alone.

    ``can_vectorize`` runs the model on observed data, which have no particles' dimension. Here the
    data sites are drawn, so that sites after an observed site have the dimension as well.
    """

    def run(values: Values, particles: Particles | None) -> Scored:
        trace = simulate(pair, batch, Substitute(values), particles)
        drawn = sites.sample_sites(trace)
        scores = {
            name: site["fn"].log_prob(site["value"]) for name, site in data_sites(trace).items()
        }
        return drawn, lambda particle: [
            select_particle(score, drawn[name], particle, nesting, event_dim=0)
            for name, score in scores.items()
        ]

    return runs_agree(run, nesting)
