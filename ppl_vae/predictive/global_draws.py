"""Latents outside the row plate, drawn by a guide that is shown all rows.

    mu ~ q(mu given x_1 ... x_N)        one draw for all rows, (...) without a dimension for rows

A pass over the data goes block by block, and each block has to see the same draw. A guide may
compute the distribution of ``mu`` from the rows (their mean, their number): shown one block, it
would give the posterior of that block's rows. So these latents are drawn first, on all rows at
once, and given to the blocks afterwards. Where the data are too large for one call of the guide,
the guide is shown rows spread evenly over the data, and a warning says so if the guide reads them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import PROBE_ROWS, block_rows, quiet_look
from ppl_vae.core.handlers import CentralValues, Particles, Substitute, Unobserve
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, as_tuple, evenly_spaced
from ppl_vae.elbo.particles import ParticleRuns, with_particles
from ppl_vae.predictive.latent_draws import drawn_latents, seeded_run
from ppl_vae.predictive.randomness import DependentTensors

NUMBERS = 1 << 24  # most numbers of data in one call of the guide: 64 MiB of floats


class PartOfRowsWarning(UserWarning):
    """Warning that a guide whose global latents read the rows was shown only a part of them."""


class GlobalDraws:
    """Draws the latents outside the row plate, which all rows of all blocks share.

    Args:
        pair: The pair; it is run on a few rows to find its sites.
        rows: The data.
        guide: Whether latents are drawn by the guide, where it has them.
        model: Whether latents that the guide does not draw come from the model, that is from their
            prior. A latent that asks to be enumerated does not, unless the guide is left out.

    Attributes:
        names: The latents, and the guide's auxiliary sites, outside the row plate.
        random: Those of them whose values depend on random numbers.
        index: Positions of the rows that are shown, (rows,); empty where there are no such latents.

    Warns:
        PartOfRowsWarning: If the latents read the rows, and the data are too large for one call.
    """

    def __init__(self, pair: Pair, rows: Rows, *, guide: bool = True, model: bool = True) -> None:
        self.pair, self.rows = pair, rows
        self._guide, self._model = guide, model
        self._width = sum(max(1, math.prod(field.array.shape[1:])) for field in rows.fields)
        # a guide by itself is asked for no other number of rows than the blocks will have
        count = PROBE_ROWS if model else block_rows(rows)
        with quiet_look(pair, rows, count) as batch, DependentTensors() as random:
            drawn = self._on_batch(batch, Messenger(), None)
            self.random = {name for name, value in drawn.items() if random.holds(value)}
            in_guide = self._from_guide(batch, Messenger(), None) if guide and drawn else {}
        self.names = set(drawn)
        self._model = model and bool(drawn.keys() - in_guide.keys())
        self.index = self._rows_shown() if self.names else torch.arange(0)

    @property
    def most_copies(self) -> int:
        """Most particles of all the rows that are shown which one call of the guide may hold."""
        return max(1, NUMBERS // (self._width * max(1, len(self.index))))

    def draw(self, seed: int | None) -> dict[str, Tensor]:
        """Return one draw of the latents, ``{site: value}``.

        Args:
            seed: Seeds the draw; the generators are restored afterwards.
        """
        return self._runs(seed, Messenger(), [None])[0] if self.names else {}

    def draw_particles(
        self, seed: int | None, count: int, runs: ParticleRuns
    ) -> list[dict[str, Tensor]]:
        """Return ``count`` draws of the latents, ``{site: value}`` for each run of the pair.

        Args:
            seed: Seeds the draws; the generators are restored afterwards.
            count: Number of draws.
            runs: How the pair draws particles: a run with all of them, or a run for each.
        """
        handlers = runs.handlers(count)
        if not self.names:
            return [{} for _ in handlers]
        if runs.dim is None:
            return self._runs(seed, Messenger(), handlers)
        most = self.most_copies
        sizes = [min(most, count - start) for start in range(0, count, most)]
        parts = self._runs(seed, Messenger(), [Particles(size, runs.dim) for size in sizes])
        return [{name: torch.cat([part[name] for part in parts]) for name in self.names}]

    def centers(self, seed: int | None) -> dict[str, Tensor]:
        """Return central values of the latents, ``{site: value}``.

        Args:
            seed: Seeds the draws of distributions that do not know their center.
        """
        return self._runs(seed, CentralValues(), [None])[0] if self.names else {}

    def _runs(
        self, seed: int | None, handler: Messenger, particles: Sequence[Particles | None]
    ) -> list[dict[str, Tensor]]:
        """Return the latents of several runs on the rows that are shown."""
        with seeded_run(self.pair, self.rows, self.index, seed) as batch:
            return [self._on_batch(batch, handler, each) for each in particles]

    def _on_batch(
        self, batch: Batch, handler: Messenger, particles: Particles | None
    ) -> dict[str, Tensor]:
        """Return the latents outside the row plate of one run on a batch, ``{site: value}``."""
        values = self._from_guide(batch, handler, particles) if self._guide else {}
        if self._model:
            model = Substitute(values)(Unobserve()(with_particles(self.pair.model, particles)))
            trace = poutine.trace(handler(model)).get_trace(batch)
            values = {**self._outside(drawn_latents(trace)), **values}
        return values

    def _from_guide(
        self, batch: Batch, handler: Messenger, particles: Particles | None
    ) -> dict[str, Tensor]:
        """Return those of the latents that the guide draws, ``{site: value}``."""
        guide = handler(with_particles(self.pair.guide, particles))
        trace = poutine.trace(guide).get_trace(batch)
        drawn = sites.with_role(trace, "latent", "auxiliary").items()
        return self._outside({name: site for name, site in drawn if not site["is_observed"]})

    def _outside(self, drawn: dict[str, sites.Site]) -> dict[str, Tensor]:
        """Return the values of the sites that stand outside the row plate, by name."""
        return {
            name: site["value"]
            for name, site in drawn.items()
            if not sites.in_plate(site, self.pair.plate)
        }

    def _rows_shown(self) -> Tensor:
        """Return the positions of all rows, or of as many as fit, evenly spread; warn if needed."""
        most = max(1, NUMBERS // self._width)
        if len(self.rows) <= most:
            return torch.arange(len(self.rows))
        read = sorted(self.reading_rows())
        if read:
            names = ", ".join(f'"{name}"' for name in read)
            warnings.warn(
                f"site {names}: expected all {len(self.rows)} rows to be shown to the guide, got "
                f"{most} rows spread evenly over them, as more do not fit in one call; a latent "
                "outside the row plate that reads the rows is drawn from these rows alone: make "
                "its distribution of parameters, or pass fewer rows",
                PartOfRowsWarning,
                stacklevel=4,
            )
        return evenly_spaced(len(self.rows), most)

    def reading_rows(self) -> set[str]:
        """Return the names of the latents whose values depend on the rows."""
        dependent = DependentTensors(random_numbers=False)
        with quiet_look(self.pair, self.rows) as batch, dependent:
            for field in as_tuple(batch):
                dependent.mark(field)
            drawn = self._on_batch(batch, Messenger(), None)
            return {name for name, value in drawn.items() if dependent.holds(value)}
