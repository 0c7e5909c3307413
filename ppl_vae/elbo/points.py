"""Latents of rows that the guide gives as a point, not as a distribution.

    a distribution   log w = log p(x, z) - log q(z given x),   E[w] = p(x)
    a point z*       log p(x, z*), the log joint density: it says nothing about p(x)

Pyro writes a point as a ``Delta`` (MAP estimation, ``AutoDelta``). A ``Delta`` is no point where
its value is computed from auxiliary draws of the guide, as autoguides and normalizing flows do:
then the auxiliary draws are the distribution, and the log-density of the ``Delta`` is the Jacobian.
What a value is computed from cannot be read in a trace, so the auxiliary draws of the rows are
drawn anew while everything else is held: the value of a point stays as it was.
"""

from __future__ import annotations

import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch, Rows

LOG_JOINT = "log joint density"  # what an "ELBO" is where a latent is a point
REDRAWS = 8  # new auxiliary draws; a discrete one may repeat its value by chance


def point_latents(pair: Pair, batch: Batch) -> list[str]:
    """Return the latents in the row plate that the guide gives as a point in some row.

    A point outside the row plate is not among them: the rows' weights are then conditional on it.

    Args:
        pair: The pair; run it inside ``Pair.quiet_run``, so that the redraws leave no trace.
        batch: A few rows.
    """
    trace = poutine.trace(pair.guide).get_trace(batch)
    drawn = sites.with_role(trace, "latent", "auxiliary")
    in_rows = {name: site for name, site in drawn.items() if sites.in_plate(site, pair.plate)}
    points = {
        name: site
        for name, site in in_rows.items()
        if sites.role(site) == "latent" and sites.point_of(site["fn"]) is not None
    }
    auxiliary = {name for name, site in in_rows.items() if sites.role(site) == "auxiliary"}
    if not points or not auxiliary:
        return list(points)
    held = {n: site["value"] for n, site in drawn.items() if n not in points.keys() | auxiliary}
    moved = {
        name: torch.zeros_like(_by_row(site, site["value"] != 0)) for name, site in points.items()
    }
    for _ in range(REDRAWS):
        again = poutine.trace(Substitute(held)(pair.guide)).get_trace(batch)
        for name, site in points.items():
            moved[name] |= _by_row(site, again.nodes[name]["value"] != site["value"])
    return [
        name
        for name, site in points.items()
        if bool((~moved[name] & _by_row(site, sites.unmasked_cells(site))).any())
    ]


def points_given(pair: Pair, rows: Rows) -> list[str]:
    """Return the latents of the rows that the guide gives as a point, from a look at a few rows.

    Args:
        pair: The pair.
        rows: The data.
    """
    with quiet_look(pair, rows) as few_rows:
        return point_latents(pair, few_rows)


def _by_row(site: sites.Site, cells: Tensor) -> Tensor:
    """Return whether a condition holds in any cell of an event, shaped like the site's batch."""
    event_dim = site["fn"].event_dim
    return cells.flatten(cells.ndim - event_dim).any(-1) if event_dim else cells
