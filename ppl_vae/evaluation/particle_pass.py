"""One pass over the rows, with many particles for each, in parts that fit in memory.

    for terms in particles.parts(batch):      {name: (particles, rows, ...)}, S particles in all

Particles are gathered until there are ``GATHERED`` for each row, and then handed on at once: few
large sums are faster than many small ones, and the memory stays the same at any number of samples.

A run of the pair is the opposite: one with huge tensors is slower than several with small ones,
since the memory of a huge tensor is new each time, and in no cache. On a CPU a run therefore has as
many draws as keep its largest tensor, which may be inside a network, at ``RUN_NUMBERS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.bars import Bar
from ppl_vae.core.blocks import ELEMENTS, block_rows
from ppl_vae.core.pair import Pair
from ppl_vae.core.world import world
from ppl_vae.data.cells import place_not_finite
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows
from ppl_vae.elbo.draw_sizes import numbers_of_a_draw
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import PARTICLES, particles_per_run
from ppl_vae.elbo.sum_memory import numbers_of_a_row, rows_that_fit
from ppl_vae.evaluation.particle_terms import ParticleTerms, Terms
from ppl_vae.predictive.global_draws import GlobalDraws

GATHERED = 1024  # most particles of a row in memory before they are summed
RUN_NUMBERS = 1 << 20  # most numbers of the largest tensor of a run on a CPU: 4 MiB of floats


class ParticlePass:
    """The terms of S particles for every row of the data.

    Args:
        pair: The pair.
        rows: The data.
        num_samples: S, draws of the latents for each row.
        measure: The terms of one run of the pair (see ``ParticleTerms``).
        compile: ``True``, ``False`` or ``"auto"``, as ``fit`` has it.
        refuse_points: Whether a guide that gives a latent of the rows as a point is an error.
        most: The most rows that a block may have; ``None`` for no other limit than memory's.
        total: Rows in all, where the data are a part of them; a large job is compiled.

    Attributes:
        terms: Draws some particles at a call.
        full_size: Rows of a block where there are enough.
        size: Rows of a block of these data.
        num_samples: S.

    Raises:
        ValueError: If the guide gives a latent of the rows as a point, and ``refuse_points``.
    """

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        num_samples: int,
        measure: Callable[[Draw], Terms] | None = None,
        *,
        compile: bool | str,  # noqa: A002  as fit has it
        refuse_points: bool = True,
        most: int | None = None,
        total: int | None = None,
    ) -> None:
        self.num_samples = num_samples
        numbers = numbers_of_a_row(pair, rows)
        count, full_size = particles_and_rows(pair, rows, num_samples, numbers)
        self.terms = ParticleTerms(pair, rows, count, measure)
        rounds = math.ceil(num_samples / count)
        if self.terms.points and refuse_points:
            raise _no_likelihood(self.terms.points)
        if self.terms.draws_nothing:  # one particle, repeated as often as it is summed
            largest = min(block_rows(rows), ELEMENTS // min(num_samples, GATHERED))
            rounds, full_size = 1, rows_that_fit(largest, numbers)
        self.full_size = min(full_size, most or full_size)
        self.size = min(self.full_size, len(rows))
        calls = math.ceil((total or len(rows)) / self.size) * rounds
        # A compiler saves a share of the arithmetic: counted in calls that have all of a block.
        whole_count, whole = _in_one_block(rows, num_samples, numbers)
        whole_calls = math.ceil((total or len(rows)) / min(whole, len(rows)))
        work = min(calls, whole_calls * math.ceil(num_samples / whole_count))
        self.terms.prepare(self.size, calls, compile, work)

    def parts(self, batch: Batch, bar: Any = None) -> Iterator[Terms]:
        """Draw all particles of a block of rows; yield their terms, at most ``GATHERED`` at a time.

        Where the pair draws nothing, one call stands for all.

        Args:
            batch: The rows.
            bar: The progress bar, which counts draws.
        """
        remaining, rows = self.num_samples, batch_rows(batch)
        while remaining > 0:
            calls = min(math.ceil(remaining / self.terms.count), GATHERED // self.terms.count)
            if self.terms.draws_nothing:
                parts = [self.terms(batch)] * calls
            else:
                parts = [self.terms(batch) for _ in range(calls)]
            gathered = {
                name: torch.cat([part[name] for part in parts])[:remaining] for name in parts[0]
            }
            used = min(remaining, calls * self.terms.count)
            yield gathered
            remaining -= used
            if bar is not None:
                bar.update(used * rows)


def draws_bar(title: str, rows: Rows, num_samples: int, *, shown: bool | None) -> Any:
    """Return a progress bar that counts the draws of all rows.

    Args:
        title: Its title.
        rows: The data.
        num_samples: Draws for each row.
        shown: Whether it is shown, as ``progress`` of the public functions has it.
    """
    bar = Bar(title, shown).only(world().first)
    return bar.over(total=len(rows) * num_samples, unit="draw", unit_scale=True)


def particles_and_rows(pair: Pair, rows: Rows, num_samples: int, numbers: int) -> tuple[int, int]:
    """Return the particles of one run of the pair, and the rows of one block.

    Both depend on shapes alone: those of a row, and those of the tensors in a run of the pair. On a
    CPU the largest tensor has ``RUN_NUMBERS`` numbers or fewer; a row has fewer particles in a run
    only where its own exceed them. On another device, where few large operations are best, the data
    alone decide.

    A guide may compute the distribution of a latent outside the row plate from the rows. Such a
    guide has to see all rows at once, so that the rows are one block, with fewer particles in a
    run; where they do not fit, ``GlobalDraws`` warns, and each block has a posterior of its own.

    Args:
        pair: The pair.
        rows: The data.
        num_samples: S, particles in all.
        numbers: Numbers of a row where latents are summed, from ``numbers_of_a_row``.
    """
    whole = count, size = _in_one_block(rows, num_samples, numbers)
    fields = as_tuple(rows.take(torch.arange(1), pair.device()))
    # Rows with a mask may be padded sequences, and how far they are padded must decide nothing.
    masked = rows.trim is not None or any(f.dtype == torch.bool and f.ndim > 1 for f in fields)
    own = 0 if masked or fields[0].device.type != "cpu" else numbers_of_a_draw(pair, rows)
    if own * count * size > RUN_NUMBERS:
        count = particles_per_run(num_samples, min(PARTICLES, max(1, RUN_NUMBERS // own)))
        size = min(size, max(1, RUN_NUMBERS // (own * count)))
    if size < len(rows):
        outside = GlobalDraws(pair, rows, model=False)
        if outside.names and len(outside.index) == len(rows) and outside.reading_rows():
            if len(rows) <= whole[1]:
                return whole
            most = min(PARTICLES, outside.most_copies)
            return particles_per_run(num_samples, most), len(rows)
    return count, size


def _in_one_block(rows: Rows, num_samples: int, numbers: int) -> tuple[int, int]:
    """Return the particles of a run and the rows of a block, as the data alone have it.

    Args:
        rows: The data.
        num_samples: S, particles in all.
        numbers: Numbers of a row where latents are summed, from ``numbers_of_a_row``.
    """
    count = particles_per_run(num_samples, PARTICLES)
    return count, rows_that_fit(block_rows(rows, count), numbers, count)


def check_numbers(rows: Rows, batch: Batch, index: Tensor, values: Tensor) -> None:
    """Raise if a row's value is NaN, or infinite while a cell of the row is infinite or NaN.

    Args:
        rows: The data, whose columns have names.
        batch: A block of them.
        index: Positions of the block's rows in the data, (rows,).
        values: A log-probability for each row, (rows,).
    """
    values = values.cpu()
    if bool(values.isfinite().all()):
        return
    for described, field in zip(rows.fields, as_tuple(batch), strict=True):
        finite_rows = field.isfinite().reshape(len(field), -1).all(1).cpu()
        bad = ~values.isfinite() & ~finite_rows
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            cell = place_not_finite(field[first : first + 1], described.labels)
            raise ValueError(
                f"{described.name}: expected finite numbers, got NaN or infinity, first in row "
                f"{int(rows.places(index)[first])}{cell}; impute or drop these rows"
            )
    if bool(values.isnan().any()):
        raise ValueError(
            f"{rows.name}: expected rows that have a log-probability, got NaN for row "
            f"{int(rows.places(index)[values.isnan()][0])}; look for NaN or infinity in "
            "the networks' weights"
        )


def _no_likelihood(points: Sequence[str]) -> ValueError:
    """Return the error that a guide gives latents of the rows as points.

    Args:
        points: Names of the latents.
    """
    names = " and ".join(f'site "{name}"' for name in points)
    a_point = "a point (Delta), which has" if len(points) == 1 else "points (Delta), which have"
    return ValueError(
        f"{names}: expected a guide that draws the latent from a distribution, got {a_point} a log "
        "joint density log p(x, z) but no log-likelihood; fit another guide to the model, or call "
        "elbo_terms in Python"
    )
