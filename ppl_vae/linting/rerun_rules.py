"""The linter's rules that run the pair again: on fewer rows, and on data that were changed.

Each rule compares two runs with the same draws: what differs between them shows what the code
depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.handlers import Substitute
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Batch, as_tuple, map_batch
from ppl_vae.linting.data_rules import row_score
from ppl_vae.linting.equal_distributions import equal_but_for_rounding, same_parameters
from ppl_vae.linting.inspection import (
    CannotRunError,
    Finding,
    Inspection,
    attempt,
    error,
    site_error,
    warning,
)


def coupled_rows(inspection: Inspection) -> Iterator[Finding]:
    """Find code in which a row depends on the other rows, or that runs on one batch size only.

    The pair is run on the first rows of the batch alone, with the draws it made for the whole
    batch. Each row must get the same log-probability in both runs.
    """
    if inspection.row_count < 2:
        return
    try:
        smaller = inspection.smaller()
    except CannotRunError as raised:
        yield raised.finding
        return
    for (half, trace), small_trace in zip(inspection.halves, smaller, strict=True):
        small_sites = sites.sample_sites(small_trace)
        for name, site in sites.with_role(trace, "latent", "data").items():
            if name not in small_sites or not sites.in_plate(site, inspection.pair.plate):
                continue
            in_larger, in_smaller = row_score(site), row_score(small_sites[name])
            if in_larger is None or in_smaller is None:
                continue
            if not (
                _close(in_larger[: inspection.small_count], in_smaller)
                or _same_site(site, small_sites[name], inspection.small_count)
            ):
                yield site_error(
                    name,
                    f"expected each row's distribution in the {half.role} to depend on that row "
                    "alone, got one that changes with the other rows of its batch",
                    "compute each row by itself (a mean over dim 0, or a reshape that mixes rows, "
                    "is the usual cause), and draw random numbers in pyro.sample alone: those of "
                    "np.random or torch.randn differ at every call",
                )


def coupled_outside_rows(inspection: Inspection) -> Iterator[Finding]:
    """Find sites of the model outside the row plate that depend on the rows of the batch.

    A batch stands for the whole data set because each row adds its own terms. A latent outside the
    row plate that reads the rows, or the latents of the rows, has another prior in every batch. The
    model is run on fewer rows with the same draws, and on all rows with new draws of the rows'
    latents: the sites outside the row plate must have the same distributions in all three runs, and
    an observed site the same value, as a constant measured beside the data has. The guide may read
    the rows, as an encoder of the whole data set does.
    """
    plate, model_trace = inspection.pair.plate, inspection.model_trace
    outside = {
        name: site
        for name, site in sites.with_role(model_trace, "latent", "factor", "data").items()
        if not sites.in_plate(site, plate)
    }
    latents = sites.with_role(model_trace, "latent").items()
    held = {name: site["value"] for name, site in latents if not sites.in_plate(site, plate)}
    if not outside or inspection.row_count < 2:
        return
    try:
        fewer = inspection.smaller()[0]
        redrawn = attempt(inspection.pair.model, inspection.batch, plate, Substitute(held))
    except CannotRunError:  # coupled_rows reports it
        return
    for name, site in outside.items():
        if all(_same_score(site, other.nodes.get(name)) for other in (fewer, redrawn)):
            continue
        finding = warning if sites.role(site) == "factor" else error
        yield finding(
            f'site "{name}"',
            "expected a site outside the row plate to be the same for every batch of rows, got one "
            "that changes with the rows of a batch or with their latents: its term depends on the "
            "batch size",
            "put the site into the row plate with a value for each row, or let it depend on "
            "parameters and on latents outside the row plate alone",
        )


def _same_score(site: sites.Site, other: sites.Site | None) -> bool:
    """Return whether a site's value has the same log-probability in another run, if it is there."""
    if other is None:
        return True
    if sites.role(site) == "data" and not _same_value(site["value"], other["value"]):
        return False
    before, now = (_log_prob(half["fn"], site["value"]) for half in (site, other))
    if before is None or now is None or _close(before, now):
        return True
    return same_parameters(site["fn"], other["fn"])


def _same_value(value: Tensor, other: Tensor) -> bool:
    """Return whether two observed values are the same, NaN at the same places included."""
    return value.shape == other.shape and torch.allclose(value, other, equal_nan=True)


def _same_site(site: sites.Site, other: sites.Site, few_rows: int) -> bool:
    """Return whether a site has the same value and parameters, to rounding, in a run on few rows.

    A log-probability may differ by far more than the parameters that it was computed from.
    """
    return equal_but_for_rounding(site["value"], other["value"], few_rows) and same_parameters(
        site["fn"], other["fn"], few_rows
    )


def leaks(inspection: Inspection) -> Iterator[Finding]:
    """Find sites that read the argument instead of the value that ``pyro.sample`` returned.

    Two runs of the model have the same value at every site. In the second run, the cells of the
    data that are observed are changed. A site whose distribution differs between the two runs
    therefore reads an observed cell from the argument. Then the data sites are changed one at a
    time, to find the site whose returned value should have been used.
    """
    data = sites.with_role(inspection.model_trace, "data")
    try:
        same = inspection.rerun_model(inspection.batch)
        changed = inspection.rerun_model(_with_shifted_cells(inspection, data))
        for name in _sites_that_differ(same, changed, after=next(iter(data), "")):
            for source in data:
                batch = _with_shifted_cells(inspection, {source: data[source]})
                if name in _sites_that_differ(same, inspection.rerun_model(batch), after=source):
                    yield _leak(name, source)
                    break
    except CannotRunError:  # for example a network that rejects the changed data
        return


def _leak(name: str, source: str) -> Finding:
    """Return the finding for a site that reads the argument that another site observes."""
    return site_error(
        name,
        f'expected a distribution that depends on what pyro.sample("{source}", ...) returned, got '
        f'one that reads the argument that "{source}" observes: replicates would leak the data',
        f'write {source} = pyro.sample("{source}", ..., obs=...) and use that value',
    )


def _with_shifted_cells(inspection: Inspection, data: dict[str, sites.Site]) -> Batch:
    """Return the batch with the cells that the sites observe taken from the next row."""
    fields = [field.clone() for field in as_tuple(inspection.batch)]
    for site in data.values():
        located = cells_in(inspection.batch, site["value"], site["fn"].event_dim)
        if located is not None and site["value"].ndim > site["fn"].event_dim:
            position, cells = located
            shifted = site["value"].roll(1, -1 - site["fn"].event_dim)
            fields[position].view(-1)[cells] = shifted.to(fields[position].dtype)
    replaced = iter(fields)
    return map_batch(inspection.batch, lambda field: next(replaced))


def _sites_that_differ(first: Trace, second: Trace, after: str) -> list[str]:
    """Return the sites after ``after`` whose value has another log-probability in the second run.

    Args:
        first: A trace.
        second: A trace with the same values.
        after: Name of a site; it and the sites before it are left out.
    """
    names = list(sites.with_role(first, "latent", "data"))
    differing = []
    for name in names[names.index(after) + 1 :] if after in names else []:
        site: sites.Site = first.nodes[name]
        other: sites.Site = second.nodes.get(name)
        if not _same_score(site, other):
            differing.append(name)
    return differing


def _log_prob(fn: Any, value: Tensor) -> Tensor | None:
    """Return the log-probability of a value, or ``None`` where the distribution cannot score it."""
    try:
        return cast("Tensor", fn.log_prob(value))
    except Exception:  # for example a value outside the changed support
        return None


def _close(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors are equal up to the rounding of products in another order."""
    size = float(left.nan_to_num(0.0, 0.0, 0.0).abs().max()) if left.numel() else 0.0
    return left.shape == right.shape and torch.allclose(
        left, right, rtol=1e-3, atol=1e-4 * max(size, 1e-3), equal_nan=True
    )


RULES: tuple[Callable[[Inspection], Iterator[Finding]], ...] = (
    coupled_rows, coupled_outside_rows, leaks,
)  # fmt: skip
