"""How much memory a row takes where latents are summed, measured on two rows before many are run.

A site that depends on n summed latents of K values has K^n numbers for every row: the latents'
joint configurations. A chain has few, as each site depends on one or two of the latents. How many
there are is known once a row has run; so one row is run first, and then two, under a watch on the
size of every tensor, and a block gets as many rows as fit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.failed_runs import failed_site
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, batch_rows, map_batch
from ppl_vae.elbo.configurations import values_of_event
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import ParticleRuns

LARGEST = 1 << 26  # bytes of the largest tensor that one row may need; lint runs 16 rows
TABLES = 4  # times as large may be a tensor that all rows share
BYTES = 4  # of a number in single precision
NUMBERS = 1 << 24  # most numbers of a block's sites where latents are summed: 64 MiB of floats


class TooManyConfigurationsError(ValueError):
    """Raised where the joint values of summed latents do not fit in memory for a single row.

    Args:
        names: Names of the latents that were enumerated.
        count: Number of their joint values.

    Attributes:
        site: Name of the last latent that was enumerated.
        problem: What was expected and what was found.
        mend: What to change.
    """

    def __init__(self, names: list[str], count: int) -> None:
        self.site = names[-1]
        number = f"{count:,}" if count < 10**15 else f"{float(count):.2g}"
        latents = ", ".join(names if len(names) < 5 else [*names[:2], "...", names[-1]])
        self.problem = (
            "expected summed latents whose joint values fit in memory, got a site that depends on "
            f"up to {number} joint values of {latents}"
        )
        self.mend = (
            "let each site depend on few of them, write a chain with pyro.markov, or draw the "
            "latents in the guide without enumeration"
        )
        super().__init__(f'site "{self.site}": {self.problem}; {self.mend}')


class _TooLarge(Exception):  # noqa: N818  no error that Pyro would raise again in its own words
    """Raised inside a run whose tensors are too large, and never outside of this file."""


def _memory(tensor: Tensor) -> int:
    """Return the bytes of a tensor: of an expanded one or a view, those that are there."""
    if tensor.layout is not torch.strided:
        return 0
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


class _Watch(TorchFunctionMode):
    """Context that stops a run with summed latents as soon as one tensor is too large.

    Args:
        most: Bytes of the largest tensor that is let through.

    Attributes:
        summed: The latents enumerated so far, with their numbers of values.
        largest: Bytes of the largest tensor so far.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.largest = most, 0
        self.summed: dict[str, int] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.summed and isinstance(result, Tensor):
            self.largest = max(self.largest, _memory(result))
            if self.largest > self.most:
                raise _TooLarge
        return result


class _Enumerated(Messenger):
    """Handler that tells a watch which latents Pyro has enumerated."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def _pyro_post_sample(self, msg: Any) -> None:
        dim = msg["infer"].get("_enumerate_dim")
        if dim is not None:
            shape = msg["value"].shape[: msg["value"].ndim - msg["fn"].event_dim]
            self.watch.summed[msg["name"]] = shape[dim] if len(shape) >= -dim else 1


def draw_of_one_row(pair: Pair, batch: Batch) -> Draw:
    """Run a pair on the first row of a batch, its summed latents enumerated, and watch the memory.

    Args:
        pair: The pair. Call the function inside ``Pair.quiet_run``.
        batch: The rows.

    Raises:
        TooManyConfigurationsError: If a tensor is too large.
    """
    return _measured(pair, batch)[0]


def _measured(pair: Pair, batch: Batch) -> tuple[Draw, int]:
    """Return a draw of one row, and the bytes that one more row adds to the largest tensor.

    A table of the model's (words by topics) may be large, and is there once for all rows: a run of
    two rows tells it from what each row needs.

    Args:
        pair: The pair.
        batch: The rows.
    """
    draw, watch = _watched(pair, batch, 1)
    by_row = watch.largest
    if batch_rows(batch) > 1:
        by_row = _watched(pair, batch, 2)[1].largest - watch.largest
    if by_row > LARGEST:
        raise TooManyConfigurationsError([*watch.summed], math.prod(watch.summed.values()))
    return draw, by_row


def _watched(pair: Pair, batch: Batch, count: int) -> tuple[Draw, _Watch]:
    """Return a draw of the first rows of a batch, and what the watch has seen of it."""
    rows = map_batch(batch, lambda field: field[:count])
    runs = ParticleRuns.of(pair, rows, vectorized=False)
    watch = _Watch(count * TABLES * LARGEST)
    try:
        with watch, _Enumerated(watch):
            (draw,) = runs.draws(pair, rows, 1)
            draw.log_weights()
    except _TooLarge:
        count = math.prod(watch.summed.values())
        raise TooManyConfigurationsError([*watch.summed], count) from None
    except ValueError as error:
        site = failed_site(error)
        if site is None or not sites.is_enumerated(site):
            raise
        values = values_of_event(site["fn"])
        if values * site["fn"].event_shape.numel() * BYTES < LARGEST:
            raise
        # the distribution itself has refused a table of all its values
        count = math.prod(watch.summed.values()) * int(values)
        raise TooManyConfigurationsError([*watch.summed, site["name"]], count) from None
    return draw, watch


def numbers_of_a_row(pair: Pair, rows: Rows) -> int:
    """Return how many numbers one row needs at once where latents are summed; 0 where none is.

    They are those of its sites, or those of the largest tensor on the way, such as a wide layer of
    a network, if these are more.

    Args:
        pair: The pair.
        rows: The data; the pair is run on a few rows.

    Raises:
        TooManyConfigurationsError: If not even one row fits in memory.
    """
    with quiet_look(pair, rows) as batch:
        if not any(map(sites.is_enumerated, _sites(*sites.traces(pair, batch)))):
            return 0
        draw, by_row = _measured(pair, batch)
    of_sites: int = sum(
        math.prod(site["fn"].batch_shape + site["fn"].event_shape)
        for site in _sites(draw.model_trace, draw.guide_trace)
    )
    return max(of_sites, by_row // BYTES)


def rows_that_fit(size: int, numbers: int, copies: int = 1) -> int:
    """Return the rows of a block that fit in memory where latents are summed, at least one.

    Args:
        size: Rows of a block where none is summed.
        numbers: Numbers of one row, from ``numbers_of_a_row``.
        copies: Particles of each row that are held at once.

    Example:
        >>> rows_that_fit(8192, 0), rows_that_fit(8192, 3**12)
        (8192, 31)
    """
    return min(size, max(1, NUMBERS // (numbers * copies))) if numbers else size


def _sites(*traces: Any) -> list[sites.Site]:
    """Return the sample sites of some traces."""
    return [site for trace in traces for site in sites.sample_sites(trace).values()]
