"""Draws of the missing cells of a block of rows from their posterior, with importance weights.

    z_s ~ q(z given x),   w_s = p(x_observed, z_s) / q(z_s given x)         s = 1 ... S
    m_s ~ p(x_missing given z_s), or the part of z_s that holds the missing cells
    E[f(x_missing) given x_observed] ~ sum_s w_s f(m_s) / sum_s w_s

Latents that the model alone sums are drawn from their posterior given the row and z_s, and are
summed in w_s. Latents that the guide sums are drawn by the guide. Rows do not depend on each other;
latents outside the row plate are drawn once for a particle, and a row's weights take the row for a
new one, which these latents have not been fitted to.

Sources: Mattei & Frellsen (2019), MIWAE, section 3, arXiv:1812.02633; Ipsen, Mattei & Frellsen
(2021), section 3.2, arXiv:2006.12871 (missing not at random).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.arguments import check_memory
from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.handlers import Particles, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.elbo.particles import PARTICLES, ParticleRuns, draw_given, with_particles
from ppl_vae.elbo.points import point_latents
from ppl_vae.elbo.sum_memory import numbers_of_a_row
from ppl_vae.evaluation.particle_pass import particles_and_rows
from ppl_vae.imputation.holders import holders_of
from ppl_vae.imputation.missing import MissingCells, Reading, readings
from ppl_vae.imputation.moments import Moments, moments_of
from ppl_vae.predictive.global_draws import GlobalDraws
from ppl_vae.predictive.latent_draws import LatentDraws
from ppl_vae.predictive.replicates import samples_first
from ppl_vae.predictive.row_form import CellPlaces

BYTES = 40  # of a draw while it is sorted, with its weight
NUMBERS = 1 << 21  # most draws of missing cells in a block of rows: 8 MiB of floats


@dataclass(frozen=True)
class CellDraws:
    """Draws of the missing cells that one site has in a block of rows.

    Attributes:
        cells: The cells; their rows are positions in the block.
        values: The draws, (samples, cells).
        moments: Mean and variance of each cell at each draw, or its probabilities.
    """

    cells: MissingCells
    values: Tensor
    moments: Moments


class CellPosterior:
    """Draws missing cells from their posterior.

    Args:
        pair: The pair.
        rows: The rows that have missing cells.
        places: The cells that the sites observe.
        num_samples: S, draws for each row.
        most_cells: Most missing cells of a row.

    Attributes:
        size: Rows of a block.
        num_samples: S.
        holders: The latents that hold missing cells, ``{observed site: latent}``.

    Raises:
        ValueError: If the guide gives a latent of the rows as a point, or latents outside the row
            plate are computed from the rows.
    """

    def __init__(
        self, pair: Pair, rows: Rows, places: CellPlaces, num_samples: int, most_cells: int
    ) -> None:
        self.pair, self.rows, self.places, self.num_samples = pair, rows, places, num_samples
        check_memory(
            "num_samples", num_samples, BYTES * num_samples * most_cells,
            f"the draws of the {most_cells} missing cells of one row are held at once",
        )  # fmt: skip
        _refuse_guides(pair, rows)
        self.holders = holders_of(pair, rows, places)
        self._latents = LatentDraws(pair, rows)
        with quiet_look(pair, rows) as few_rows:
            self._runs = ParticleRuns.probe(pair, few_rows)
        self._count, size = particles_and_rows(
            pair, rows, num_samples, numbers_of_a_row(pair, rows)
        )
        self.size = max(1, min(size, NUMBERS // (num_samples * most_cells)))

    def draws(self, batch: Batch) -> Iterator[tuple[Tensor, bool, list[CellDraws]]]:
        """Draw the missing cells of a block, some draws at a time, S in all.

        Args:
            batch: The block.

        Yields:
            The log-weights, (samples, rows), in nats; whether a discrete latent was drawn; and the
            draws of the cells, for each site that has some.
        """
        model_trace = sites.traces(self.pair, batch)[0]
        found = readings(self.pair, self.rows, self.places, batch, model_trace)
        reading = [each for each in found if bool(each.missing.any())]
        remaining = self.num_samples
        while remaining > 0:
            count = min(self._count, PARTICLES) if self._runs.vectorized else 1
            (particles,) = self._runs.handlers(count)
            used = min(count, remaining)
            weights, discrete, trace = self._run(batch, particles)
            cells = [self._cells(each, trace, used) for each in reading]
            yield weights.expand(count, -1)[:used], discrete, cells
            remaining -= used

    def _run(self, batch: Batch, particles: Particles | None) -> tuple[Tensor, bool, Trace]:
        """Return the log-weights of a run, whether it draws discrete latents, and the model's run.

        In the model's run every latent has a value, also those that the weights sum over.
        """
        guide_trace = poutine.trace(with_particles(self.pair.guide, particles)).get_trace(batch)
        draw = draw_given(
            self.pair, batch, self._runs.nesting, guide_trace, particles, self._runs.excluded
        )
        weights, discrete = draw.log_weights(), draw.draws_discrete
        if not draw.has_enumerated:
            return weights, discrete, draw.model_trace
        drawn = {
            **sites.with_role(guide_trace, "latent", "auxiliary"),
            **{name: draw.model_trace.nodes[name] for name in self._latents.from_prior},
        }
        values = {name: site["value"] for name, site in drawn.items()}
        values = self._latents.draw(batch, values, particles)
        model = Substitute(values)(with_particles(self.pair.model, particles))
        return weights, discrete, poutine.trace(model).get_trace(batch)

    def _cells(self, reading: Reading, trace: Trace, used: int) -> CellDraws:
        """Return draws of the missing cells of a site.

        Args:
            reading: The site's cells.
            trace: A run of the model, in which every latent has a value.
            used: Draws to return, of those in the run.
        """
        holder = self.holders.get(reading.name)
        site: sites.Site = trace.nodes[holder or reading.name]
        values: Tensor = site["fn"].sample() if holder is None else site["value"]
        row, cell = reading.missing.nonzero().T

        def of_cells(tensor: Tensor, last: int = 0) -> Tensor:
            """Return the numbers of the missing cells, (samples, cells, ...)."""
            first = samples_first(tensor, site, self._runs.dim, site["fn"].event_dim + last)
            shape = first.shape[first.ndim - last :]
            by_cell = first.reshape(*first.shape[:2], -1, *shape)[:used, row, cell]
            return by_cell.expand(used, *by_cell.shape[1:])

        numbers = torch.full_like(row, reading.field)
        cells = MissingCells(row.cpu(), numbers.cpu(), reading.places[row, cell].cpu())
        moments = moments_of(site["fn"], values, of_cells, held=holder is not None)
        return CellDraws(cells, of_cells(values).cpu(), moments)


def _refuse_guides(pair: Pair, rows: Rows) -> None:
    """Raise if draws of the guide are no posterior of single rows."""
    with quiet_look(pair, rows) as few_rows:
        points = point_latents(pair, few_rows)
    for name in points:
        raise ValueError(
            f'site "{name}": expected a guide that draws the latent from a distribution, got a '
            "point (Delta), from which missing cells have no posterior; fit another guide to the "
            "model"
        )
    outside = GlobalDraws(pair, rows, model=False)
    for name in sorted(outside.reading_rows()) if outside.names else ():
        raise ValueError(
            f'site "{name}": expected latents outside the row plate "{pair.plate}" that do not '
            "change with the rows that the guide is shown, got one that is computed from them; "
            "make its distribution of parameters"
        )
