"""The linter's rules on the shape of an observed value: a place for each row, rows of one shape.

    shape of a value   (plates inside the rows..., rows, event...)

A site whose event has one dimension, and whose value has one dimension too, reads the rows as the
cells of a single event. torch broadcasts the two shapes and adds up numbers of different rows,
without an error.
"""

from __future__ import annotations

from collections.abc import Iterator

from ppl_vae.core import sites
from ppl_vae.core.failed_runs import size_cause
from ppl_vae.linting.inspection import Finding, Inspection, error, site_error


def rows_read_as_an_event(inspection: Inspection) -> Iterator[Finding]:
    """Find observed values that have dimensions for one event, of another size, and none for rows.

    A value of one event alone, of the right size, is a constant that all rows share, and no fault.
    """
    for name, site in sites.with_role(inspection.model_trace, "data").items():
        event_shape, got = tuple(site["fn"].event_shape), tuple(site["value"].shape)
        if not sites.in_plate(site, inspection.pair.plate) or len(got) > len(event_shape):
            continue
        last_sizes = event_shape[len(event_shape) - len(got) :]
        if all(size in (1, wanted) for size, wanted in zip(got, last_sizes, strict=True)):
            continue
        batch_shape = tuple(site["fn"].batch_shape)
        yield site_error(
            name,
            f"expected an observed value of shape {batch_shape + event_shape}, that is "
            f"batch_shape {batch_shape} and event_shape {event_shape}, got {got}",
            "give the value the missing dimension, y[:, None], or take .to_event off the "
            "distribution and squeeze(-1) its parameters",
        )


def rows_of_another_shape(inspection: Inspection) -> Iterator[Finding]:
    """Find observed rows whose shape is not that of the likelihood's event, such as smaller images.

    A row that torch broadcasts to the event's shape is no fault.
    """
    for site in sites.with_role(inspection.model_trace, "data").values():
        cause = size_cause(site) if sites.in_plate(site, inspection.pair.plate) else None
        if cause is not None:
            yield error(*cause)
