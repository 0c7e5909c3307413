"""Observed values that a likelihood cannot have, refused before any function computes with them.

A count of -1, a pixel of 300 or a category that a column does not have gives a log-probability of
minus infinity or, without Pyro's checks, a number that means nothing. Functions that never score
the data (``encode``, ``reconstruct``, the replicates of ``predictive_check``) would not notice. So
the one pass over the data (``core.blocks``) compares every row with the supports, once.

Which supports there are is found on the first few rows. Where all of them hold every real number,
nothing more is done. Else the model runs once on each block of rows, with its latents from the
prior: an observed value and its support do not depend on latents, apart from the cases below, and
a far row on which the guide overflows does not matter. Three things are not judged here:

- Cells under a mask, and NaN, which says that a value is missing.
- A distribution that the user made with ``validate_args=False``.
- A support whose bounds depend on latents, as that of Uniform(0, z) does. The bounds of two runs
  differ then. A value outside is a log-probability of minus infinity for these latents only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.failed_runs import Cause, failed_site, outside_cause, size_cause
from ppl_vae.core.pair import Pair
from ppl_vae.core.supports import cells_outside, is_unbounded, support_of, validation_is_off
from ppl_vae.data.rows import Batch, Rows, map_batch

FEW_ROWS = 5  # rows that show which supports a model has


@dataclass
class Judged:
    """How far the observed values of some data have been compared with their supports.

    Attributes:
        sites: Names of the sites whose values are compared; ``None`` before the first rows.
        rows: Which rows have been compared, (N,) of bool.
    """

    sites: list[str] | None
    rows: Tensor


def refuse_outside(pair: Pair, batch: Batch, index: Tensor, rows: Rows) -> None:
    """Raise if an observed value of a block of rows is outside its likelihood's support.

    Args:
        pair: The pair, which stores the rows that have been compared already.
        batch: The block.
        index: The positions of its rows among the data, (rows,).
        rows: The data, N rows.

    Raises:
        ValueError: With the site, the support, the value, its row, its column and what to do.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> pair, rows = Pair.of(BernoulliModel(4), None, "data"), Rows(torch.ones(3, 4) / 2)
        >>> index = torch.arange(3)
        >>> try:
        ...     refuse_outside(pair, rows.take(index), index, rows)
        ... except ValueError as error:
        ...     print(str(error).partition(";")[0])
        site "x": expected values in the support of Bernoulli (0 or 1), got 0.5 in row 0, column 0
    """
    known = pair.judged.setdefault(rows, Judged(None, torch.zeros(len(rows), dtype=torch.bool)))
    if known.sites is None:
        known.sites = _bounded_sites(pair, map_batch(batch, lambda field: field[:FEW_ROWS]))
    if not known.sites or bool(known.rows[index].all()):
        return
    for name, site in _data_sites(pair, batch).items():
        if name not in known.sites:
            continue
        outside = cells_outside(site, sites.unmasked_cells(site))
        if bool(outside.any()):
            positions = rows.positions_in_data(index)
            labels = [field.labels for field in rows.fields]
            source = rows.fields[0].name.partition("[")[0]
            raise ValueError(str(outside_cause(site, outside, batch, positions, labels, source)))
    known.rows[index] = True


def row_shape_cause(pair: Pair, batch: Batch) -> Cause | None:
    """Return the cause where the model gives rows of another shape than the batch has.

    The model runs alone, with latents from the prior. Its guide may fail on such rows before the
    model sees them, in a layer whose message speaks of matrices.

    Args:
        pair: The pair.
        batch: The rows.
    """
    try:
        with pair.quiet_run():
            trace = poutine.trace(pair.model).get_trace(batch)
    except Exception as error:  # a distribution that does not fit into the row plate
        site = failed_site(error)
        return None if site is None else size_cause(site)
    data = sites.with_role(trace, "data").values()
    causes = (size_cause(site) for site in data if sites.in_plate(site, pair.plate))
    return next((cause for cause in causes if cause is not None), None)


def swapped_cause(model_trace: Trace, guide_trace: Trace) -> Cause | None:
    """Return the cause where the model observes nothing and the guide does: each is the other.

    Args:
        model_trace: Trace of what was passed as the model.
        guide_trace: Trace of what was passed as the guide.
    """
    observed = sites.with_role(guide_trace, "data")
    if not observed or sites.with_role(model_trace, "data", "factor"):
        return None
    return Cause(
        "model and guide",
        f"expected sites with obs= in the model, got none there and {list(observed)} in the guide",
        "model and guide are swapped: pass the model first",
    )


def refuse_swapped(pair: Pair, batch: Batch) -> None:
    """Raise if the guide was passed as the model, and the model as the guide.

    Such a pair would give numbers: the "ELBO" of a model that observes nothing.

    Args:
        pair: The pair.
        batch: A few rows. Where the pair fails on them, whoever runs it next tells the cause.

    Raises:
        ValueError: If the model observes nothing, and the guide does.
    """
    with pair.quiet_run():
        try:
            model_trace = poutine.trace(pair.model).get_trace(batch)
            if sites.with_role(model_trace, "data", "factor"):
                return
            guide_trace = poutine.trace(pair.guide).get_trace(batch)
        except Exception:
            return
    cause = swapped_cause(model_trace, guide_trace)
    if cause is not None:
        raise ValueError(str(cause))


def _bounded_sites(pair: Pair, few_rows: Batch) -> list[str]:
    """Return the data sites with a support to compare with: with bounds, and those no latent's."""
    try:
        first = _data_sites(pair, few_rows, checked=True)
        with pyro.validation_enabled(True):
            unchecked = {name for name, site in first.items() if validation_is_off(site["fn"])}
    except Exception:  # a parameter of a distribution is not valid for the latents of this run
        first, unchecked = _data_sites(pair, few_rows), set[str]()
    supports = {name: support_of(site["fn"]) for name, site in first.items()}
    bounded = [n for n, s in supports.items() if not is_unbounded(s) and n not in unchecked]
    if not any(_tensors_of(supports[name]) for name in bounded):
        return bounded
    second = _data_sites(pair, few_rows, seed=1)
    again = {name: support_of(site["fn"]) for name, site in second.items()}
    return [n for n in bounded if n in again and _equal_bounds(supports[n], again[n])]


def _data_sites(
    pair: Pair, batch: Batch, *, seed: int = 0, checked: bool = False
) -> dict[str, sites.Site]:
    """Run the model with latents from the prior, and return its data sites in the row plate.

    Where the model fails there are none: whoever runs it next meets the failure and tells its
    cause.

    Args:
        pair: The pair.
        batch: The rows.
        seed: Seeds the draws of the latents.
        checked: Whether to run under Pyro's checks, with which a distribution shows whether the
            user made it without them; a failure is then raised.
    """
    with pair.quiet_run(seed), pyro.validation_enabled(checked):
        try:
            trace = poutine.trace(pair.model).get_trace(batch)
        except Exception:
            if checked:
                raise
            return {}
    data = sites.with_role(trace, "data").items()
    return {name: site for name, site in data if sites.in_plate(site, pair.plate)}


def _tensors_of(support: Any) -> list[Tensor]:
    """Return the bounds of a support that are tensors."""
    return [value for value in vars(support).values() if isinstance(value, Tensor)]


def _equal_bounds(support: Any, other: Any) -> bool:
    """Return whether the bounds of two supports that are tensors are equal."""
    pairs = _tensors_of(support), _tensors_of(other)
    return len(pairs[0]) == len(pairs[1]) and all(map(torch.equal, *pairs))
