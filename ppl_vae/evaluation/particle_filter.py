"""Log-likelihood of every sequence, and of every step, by a particle filter.

    log p(x)                           ~ log 1/K sum over k of prod over t of Z_tk
    log p(x_t given x_1 ... x_(t-1))   ~ log 1/K sum over k of Z_tk

Z_tk is the estimate of filter k for step t (``elbo.path_filter``), k = 1 ... K. The K filters of a
row are independent, so that their spread gives a standard error of the logarithm of their mean,
sd(Z) / (sqrt(K) mean(Z)), in nats. It is at most 1, which says that one filter alone decides.
"""

from __future__ import annotations

import math
import warnings

import pandas as pd
from torch import Tensor
from torch.nn.functional import pad

from ppl_vae.core.blocks import collect
from ppl_vae.core.far_rows import FarRows
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, batch_rows
from ppl_vae.elbo.path_filter import Filtered, filtered, rows_of_filter
from ppl_vae.elbo.state_paths import StatePaths
from ppl_vae.evaluation.particle_pass import check_numbers, draws_bar
from ppl_vae.evaluation.summary import UnreliableWarning

ISLANDS = 8
"""Independent filters of each row. The standard error is itself known to about 1 in 4 from 8."""

LARGEST_ERROR = 0.5
"""Standard error, in nats, from which fewer than 3 of the 8 filters decide the estimate."""

FEWEST = 2 * ISLANDS
"""Effective particles of all filters of a row below which single states decide each of them, so
that all may be wrong alike, and their spread does not tell."""


class FilterPass:
    """A particle filter over the rows of some data, block by block.

    Args:
        pair: The pair, with one latent, a ``MarkovPath``.
        rows: The data.
        num_samples: S, particles of each row in all, shared among the islands (rounded up).
        islands: Independent filters of each row.
        who: What asks for the filter, for messages.

    Attributes:
        paths: The pair, taken apart into steps.
        size: Rows of a block.

    Raises:
        ValueError: If the pair has other latents.
    """

    def __init__(
        self, pair: Pair, rows: Rows, num_samples: int, *, islands: int = ISLANDS, who: str
    ) -> None:
        self.pair, self.rows, self.islands = pair, rows, islands
        self.particles = math.ceil(num_samples / islands)
        self.paths = StatePaths.of(pair, rows, who)
        self.size = min(len(rows), rows_of_filter(rows, self.paths.steps, islands * self.particles))

    def __call__(self, batch: Batch) -> Filtered:
        """Filter a block of rows."""
        return filtered(self.paths.on(batch), self.islands, self.particles)


def filter_columns(
    particle_filter: FilterPass, *, name: str, per_step: bool, seed: int | None,
    progress: bool | None = False, stacklevel: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Return what the filter says of all rows: the log-likelihood, its error, effective particles.

    Args:
        particle_filter: The filter and its rows.
        name: The public function, for warnings and the bar.
        per_step: Whether of each step; else of the whole sequence.
        seed: Seeds the draws.
        progress: Whether to show a bar.
        stacklevel: As ``warnings.warn`` has it, counted from the caller.

    Returns:
        ``log_prob``, ``standard_error`` and ``ess``, (rows,) each; or (rows, steps),
        without a meaning after the end of a row, and ``lengths``, (rows,). NaN in rows on which the
        pair overflows.
    """
    rows, steps = particle_filter.rows, particle_filter.paths.steps
    draws = particle_filter.islands * particle_filter.particles
    bar = draws_bar(name, rows, draws, shown=progress)

    def work(batch: Batch, index: Tensor) -> dict[str, Tensor]:
        found = particle_filter(batch)
        bar.update(draws * batch_rows(batch))
        logs = found.log_steps if per_step else found.log_steps.sum(0, keepdim=True)
        log_prob, error = _mean_and_error(logs)
        ess = found.ess.sum(1)  # (steps, rows)
        columns = {"log_prob": log_prob, "standard_error": error}
        columns["ess"] = ess if per_step else ess.amin(0, keepdim=True)
        check_numbers(rows, batch, index, log_prob.sum(0))
        if not per_step:
            return {key: value[0] for key, value in columns.items()}
        padded = {key: pad(value.T, (0, steps - len(value))) for key, value in columns.items()}
        return {**padded, "lengths": found.lengths.to(log_prob)}

    far_rows = FarRows(particle_filter.pair, rows)
    with bar:
        columns = collect(
            particle_filter.pair, rows, far_rows.marked(work), seed=seed,
            size=particle_filter.size, shared=far_rows.found,
        )  # fmt: skip
    far_rows.warn(name, stacklevel=stacklevel + 1)
    return columns


def filtered_log_likelihood(
    pair: Pair, rows: Rows, num_samples: int, *, seed: int | None, progress: bool | None, name: str,
    stacklevel: int,
) -> pd.DataFrame:  # fmt: skip
    """Return the frame of ``log_likelihood(..., method="particle_filter")``.

    Args:
        pair: The pair.
        rows: The data.
        num_samples: S, particles of each row in all.
        seed: Seeds the draws.
        progress: Whether to show a bar.
        name: The public function, for warnings and the bar.
        stacklevel: As ``warnings.warn`` has it, counted from the caller.
    """
    particle_filter = FilterPass(pair, rows, num_samples, who="the particle filter")
    columns = filter_columns(
        particle_filter, name=name, per_step=False, seed=seed, progress=progress,
        stacklevel=stacklevel + 1,
    )  # fmt: skip
    frame = pd.DataFrame({key: v.numpy() for key, v in columns.items()}, index=rows.index)
    note_errors(frame, name, "rows", stacklevel=stacklevel + 1)
    return frame


def note_errors(frame: pd.DataFrame, name: str, lines: str, stacklevel: int) -> None:
    """Note in a frame how far to trust it, and warn of lines that cannot be trusted.

    Args:
        frame: With the columns ``standard_error``, in nats, and ``ess``.
        name: The public function.
        lines: What a line is: "rows" or "steps".
        stacklevel: As ``warnings.warn`` has it, counted from the caller.
    """
    frame.attrs.update(
        not_covered=[], exact=False, standard_error_threshold=LARGEST_ERROR, ess_threshold=FEWEST
    )
    bad = (frame["standard_error"] > LARGEST_ERROR) | (frame["ess"] < FEWEST)
    if bad.any():
        warnings.warn(
            f"{name}: the particle filter is not reliable in {bad.sum()} of {len(frame)} {lines}, "
            f"whose standard error is above {LARGEST_ERROR} nats, or in which fewer than {FEWEST} "
            "particles count: few states decide their log-likelihood, which may be far too low; "
            "raise num_samples, or train the guide further",
            UnreliableWarning,
            stacklevel=stacklevel + 1,
        )


def _mean_and_error(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the mean of estimates and its standard error, in nats.

    Args:
        logs: Logarithms of independent estimates, (lines, islands, rows).

    Returns:
        (lines, rows) each. The error is NaN where all estimates are 0.
    """
    count = logs.shape[1]
    mean = logs.logsumexp(1) - math.log(count)
    return mean, (logs - mean[:, None]).exp().std(1) / count**0.5
