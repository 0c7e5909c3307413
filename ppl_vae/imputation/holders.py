"""The latents of a model that hold missing cells, and models that read what stands in such cells.

Other sites may depend on such a latent (``core.held_cells``), as on the reason for which cells are
missing. A model without it that reads the numbers which stand in missing cells is refused: they say
nothing.
"""

from __future__ import annotations

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.held_cells import holders
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows
from ppl_vae.imputation.missing import Reading, readings
from ppl_vae.predictive.row_form import CellPlaces

LOOKED_AT = 64  # rows with missing cells from which the latents that hold them are found


def holders_of(pair: Pair, rows: Rows, places: CellPlaces) -> dict[str, str]:
    """Return the latents that hold the missing cells of observed sites, ``{site: latent}``.

    Args:
        pair: The pair.
        rows: The rows that have missing cells.
        places: The cells that the sites observe.

    Raises:
        ValueError: If several latents could hold the cells of a site, or if the model reads the
            data's own numbers in missing cells, which say nothing.
    """
    with quiet_look(pair, rows, LOOKED_AT, spread=True) as batch:
        model_trace = sites.traces(pair, batch)[0]
        found = list(readings(pair, rows, places, batch, model_trace))
        held = {}
        for name, latents in holders(model_trace).items():
            if len(latents) > 1:
                raise ValueError(
                    f'site "{name}": expected one latent that holds its missing cells, got '
                    f"{latents}; give one of them another mask"
                )
            held[name] = latents[0]
        _refuse_reading(pair, rows, places, batch, model_trace, found)
    return held


def _refuse_reading(
    pair: Pair, rows: Rows, places: CellPlaces, batch: Batch, trace: Trace, found: list[Reading]
) -> None:
    """Raise if the model reads the numbers that stand in missing cells.

    The missing cells get numbers of other rows, latents are held, and the model runs again. Cells
    that are NaN stay NaN. Where the masks change with the numbers, nothing is concluded.

    Args:
        pair: The pair.
        rows: The rows that have missing cells.
        places: The cells that the sites observe.
        batch: Some rows.
        trace: A run of the model on them.
        found: What the sites read in that run.

    Raises:
        ValueError: With the first site whose log-probability changes.
    """
    fields = [field.clone() for field in as_tuple(batch)]
    for reading in found:
        flat = fields[reading.field].view(batch_rows(batch), -1)
        old = flat.gather(1, reading.places)
        new = torch.where(reading.missing, _other_numbers(old, reading.missing), old)
        flat.scatter_(1, reading.places, torch.where(old.isnan(), old, new))
    held = {n: s["value"] for n, s in sites.with_role(trace, "latent").items()}
    changed = poutine.trace(Substitute(held)(pair.model)).get_trace(rows.batch(fields))
    after = list(readings(pair, rows, places, rows.batch(fields), changed))
    if not all(torch.equal(a.missing, b.missing) for a, b in zip(found, after, strict=True)):
        return
    for name in sites.with_role(trace, "data", "factor"):
        if not sites.in_plate(trace.nodes[name], pair.plate):
            continue
        one, other = (sites.row_log_prob(each.nodes[name]) for each in (trace, changed))
        if not torch.allclose(one, other, 1e-4, 1e-4, equal_nan=True):
            raise ValueError(
                f'site "{name}": expected a model that does not read the numbers in missing cells, '
                "got a log-probability that changes with them; let the site depend on a latent "
                'that holds the missing cells: missing = pyro.sample("missing", fn.mask(~seen)), '
                "torch.where(seen, x, missing)"
            )


def _other_numbers(values: Tensor, missing: Tensor) -> Tensor:
    """Return numbers that other rows have in the same columns, where these are not missing.

    Args:
        values: (rows, cells).
        missing: Which cells are missing, (rows, cells).
    """
    other = values.clone()
    for column in range(values.shape[1]):
        seen = values[~missing[:, column], column]
        if len(seen):
            turn = torch.arange(len(values), device=values.device) % len(seen)
            other[:, column] = seen[turn]
    return other
