"""The linter's rules on the likelihood: its scale, and the data that its distribution reads.

The pair is run again, on fewer rows and on rows with one changed cell, with the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.handlers import Substitute
from ppl_vae.linting.inspection import (
    CannotRunError,
    Finding,
    Inspection,
    attempt,
    drawn_values,
    site_error,
)
from ppl_vae.linting.trace_rules import range_of_scale, scale_without_plates

# The scale of a site


def scales_by_length(inspection: Inspection) -> Iterator[Finding]:
    """Find sites whose scale changes with the number of rows in the batch.

    A script of plain Pyro multiplies the log-probability of a batch of B out of N rows by N/B
    with ``poutine.scale``, or the terms outside the rows by B/N. ``fit`` does that itself, so the
    factor would be applied twice. A scale that differs between two runs on the same batch depends
    on something else, such as a counter of steps, and is left alone.
    """
    if inspection.row_count < 2:
        return
    try:
        smaller = inspection.smaller()
        again = [
            attempt(half, inspection.batch, inspection.pair.plate, Substitute(drawn_values(trace)))
            for half, trace in inspection.halves
        ]
    except CannotRunError:  # another rule reports it
        return
    for (_, trace), small_trace, same_trace in zip(inspection.halves, smaller, again, strict=True):
        small_sites, same_sites = sites.sample_sites(small_trace), sites.sample_sites(same_trace)
        for name, site in sites.sample_sites(trace).items():
            if name in small_sites and name in same_sites:
                first, small, same = (
                    _first_rows(scale_without_plates(s), inspection)
                    for s in (site, small_sites[name], same_sites[name])
                )
                if _equal(first, same) and not _equal(first, small):
                    yield _scaled_by_length(inspection, name, first, small)


def _first_rows(scale: Tensor, inspection: Inspection) -> Tensor:
    """Return a site's scale in the rows of the smaller batch; one number holds for all rows."""
    one_each = scale.ndim > 0 and scale.shape[-1] == inspection.row_count
    return scale[..., : inspection.small_count] if one_each else scale


def _equal(left: Tensor, right: Tensor) -> bool:
    """Return whether two scales are equal up to rounding."""
    return left.shape == right.shape and torch.allclose(left, right)


def _scaled_by_length(inspection: Inspection, name: str, scale: Tensor, smaller: Tensor) -> Finding:
    """Return the finding for a scale that changes with the length of the batch."""
    return site_error(
        name,
        "expected a scale that does not change with the length of the batch, got "
        f"{range_of_scale(scale)} for {inspection.row_count} rows and {range_of_scale(smaller)} "
        f"for {inspection.small_count}: fit weighs the rows of a batch as the whole data set "
        "itself, so that N/B would be applied twice",
        "remove len(x) from poutine.scale; a constant factor may stay",
    )


RULES: tuple[Callable[[Inspection], Iterator[Finding]], ...] = (scales_by_length,)
