"""The field that the model reads and does not observe which makes a row impossible.

A size of zero makes every positive count impossible, and a negative one makes the rates of a model
negative: the log-probability of the row is -infinity or NaN, and no site's trace says why. So a
sound row is taken with the latents that the guide draws for it, and it gets one field of the bad
row at a time. The field that makes the sound row's log-probability infinite or NaN is at fault.
"""

from __future__ import annotations

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.failed_runs import Cause
from ppl_vae.core.pair import Pair
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Batch, Rows, as_tuple, in_form_of


def covariate_at_fault(pair: Pair, rows: Rows, bad: int, sound: int) -> Cause | None:
    """Return the field that makes a row's log-probability infinite or NaN, with the value.

    Args:
        pair: The pair.
        rows: The data.
        bad: Position of a row whose log-probability is not finite.
        sound: Position of a row whose log-probability is finite.

    Returns:
        The cause; ``None`` where no single field that the model does not observe is at fault.
    """
    if len(rows.fields) == 1:
        return None
    device = pair.device()
    batch, other = (rows.take(torch.tensor([row]), device) for row in (sound, bad))
    try:
        with pair.quiet_run(), pyro.validation_enabled(False):
            draws = poutine.trace(pair.guide).get_trace(batch)
            if not _is_finite(pair, batch, draws):
                return None
            observed = _observed_fields(pair, batch, draws)
            for position, values in enumerate(as_tuple(other)):
                fields = list(as_tuple(batch))
                fields[position] = values
                if position not in observed and not _is_finite(
                    pair, in_form_of(batch, fields), draws
                ):
                    return _cause(rows, position, values, bad)
    except Exception:  # the pair does not run on one row; whoever runs it says so
        return None
    return None


def _data_sites(pair: Pair, batch: Batch, draws: poutine.Trace) -> dict[str, sites.Site]:
    """Return the model's data sites in the row plate, run on a batch with given latents."""
    trace = poutine.trace(poutine.replay(pair.model, trace=draws)).get_trace(batch)
    data = sites.with_role(trace, "data")
    return {name: site for name, site in data.items() if sites.in_plate(site, pair.plate)}


def _is_finite(pair: Pair, batch: Batch, draws: poutine.Trace) -> bool:
    """Return whether the log-probabilities of all data sites are finite."""
    scores: list[Tensor] = [sites.log_prob(s) for s in _data_sites(pair, batch, draws).values()]
    return all(bool(score.isfinite().all()) for score in scores)


def _observed_fields(pair: Pair, batch: Batch, draws: poutine.Trace) -> set[int]:
    """Return the positions of the fields of which the model observes cells."""
    found = [
        cells_in(batch, site["value"], site["fn"].event_dim)
        for site in _data_sites(pair, batch, draws).values()
    ]
    return {cells[0] for cells in found if cells is not None}


def _cause(rows: Rows, position: int, values: Tensor, row: int) -> Cause:
    """Return the cause for a field whose value in a row is at fault."""
    numbers = ", ".join(f"{number:g}" for number in values.flatten()[:5].tolist())
    name = rows.names[position]
    return Cause(
        f'field "{name}"' if rows.keys else f"data field {name}",
        f"expected values under which the model gives finite log-probabilities, got {numbers} in "
        f"row {row}",
        "leave such rows out, or give them a value that the model takes (a size or a scale is "
        "above 0)",
    )
