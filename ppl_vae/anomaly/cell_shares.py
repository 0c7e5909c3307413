"""The share of each cell of a row in the log-likelihood given its latents.

    log p(x given z) = sum_i log p(x_i given z)        i: cells of the row

A likelihood that is a product over cells is taken apart: the ``Independent`` wrappers around the
distribution are opened, and each log-probability goes to the cell of the data that it was read
from, whichever columns a site observes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.pair import Pair
from ppl_vae.data.cells import cells_in
from ppl_vae.data.rows import Batch, Rows, as_tuple
from ppl_vae.elbo.importance_weights import Draw

LOOKED_AT = 64  # rows from which the cells that a site observes are told apart


@dataclass(frozen=True)
class CellShares:
    """Which cells of a row each observed site explains.

    Attributes:
        places: For each observed site, the positions among all labelled cells of the cells that it
            observes, (cells of the site,).
        labels: Names of the cells, such as ``"age"``, ``"3"`` or ``"0,3,5"`` of an image.
    """

    places: dict[str, Tensor]
    labels: list[str]

    @classmethod
    def of(cls, pair: Pair, rows: Rows) -> CellShares:
        """Find the cells that the sites of a pair observe, by a look at a few rows.

        Raises:
            ValueError: If a likelihood is no product over cells, a latent is summed, or what a site
                observes cannot be found in the data.
        """
        with quiet_look(pair, rows, LOOKED_AT, spread=True) as batch:
            model_trace, guide_trace = sites.traces(pair, batch)
            in_model, in_guide = map(sites.sample_sites, (model_trace, guide_trace))
            for name, site in [*in_guide.items(), *in_model.items()]:
                if sites.is_enumerated(site):
                    raise ValueError(
                        f'site "{name}": attribution: expected latents that are drawn, got one '
                        "that is summed, so that the cells of a row depend on each other; leave "
                        "attribution out"
                    )
            found = {
                name: _cells_of(site, batch)
                for name, site in in_model.items()
                if sites.role(site) == "data" and sites.in_plate(site, pair.plate)
            }
        used = sorted({field for field, _ in found.values()})
        starts: dict[int, int] = {}
        labels: list[str] = []
        for field in used:
            starts[field] = len(labels)
            labels += _labels(rows, field, named=len(used) > 1)
        return cls({name: cells + starts[field] for name, (field, cells) in found.items()}, labels)

    def log_probs(self, draw: Draw) -> Tensor:
        """Return log p(x_i given z) of each cell, (particles or 1, rows, cells), in nats."""
        parts = []
        for name, places in self.places.items():
            by_cell = _log_probs_of(draw.model_trace.nodes[name], draw)  # (particles or 1, rows, k)
            whole = by_cell.new_zeros(*by_cell.shape[:2], len(self.labels))
            parts.append(whole.index_add(2, places.to(by_cell.device), by_cell))
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


def _base(site: sites.Site) -> Any:
    """Return the distribution of single cells inside a site's distribution.

    Raises:
        ValueError: If it is a distribution of several cells together.
    """
    fn = site["fn"]
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    if fn.event_dim:
        raise ValueError(
            f'site "{site["name"]}": attribution: expected a likelihood that is a product over the '
            f"cells of a row, got {type(fn).__name__}, which gives the cells a probability "
            "together; leave attribution out"
        )
    return fn


def _cells_of(site: sites.Site, batch: Batch) -> tuple[int, Tensor]:
    """Return the field that a site observes, and the cells of a row, (cells of the site,)."""
    _base(site)
    found = cells_in(batch, site["value"], site["fn"].event_dim)
    if found is None:
        raise ValueError(
            f'site "{site["name"]}": attribution: expected observed values that are cells of the '
            "data, got values that were computed from them; observe the data as they are"
        )
    position, cells = found
    cells = _rows_first(cells, site)
    in_row = as_tuple(batch)[position][0].numel()
    return position, cells[0].reshape(-1) % in_row


def _rows_first(values: Tensor, site: sites.Site) -> Tensor:
    """Return values shaped like a site's, without particles, with the rows' dimension first."""
    return values.movedim(values.ndim - 1 - site["fn"].event_dim, 0)


def _log_probs_of(site: sites.Site, draw: Draw) -> Tensor:
    """Return a site's log-probability cell by cell, (particles or 1, rows, cells of the site)."""
    fn = site["fn"]
    log_prob: Tensor = _base(site).log_prob(site["value"])
    log_prob = log_prob.masked_fill(~sites.unmasked_cells(site), 0.0)
    log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, fn.shape()))
    batch_dims = log_prob.ndim - fn.event_dim
    if draw.dim is None or batch_dims < -draw.dim:
        log_prob, batch_dims = log_prob[None], batch_dims + 1
    rows_second = log_prob.movedim(batch_dims - 1, 1)  # (particles or 1, rows, ...)
    return rows_second.reshape(*rows_second.shape[:2], -1)


def _labels(rows: Rows, position: int, *, named: bool) -> list[str]:
    """Return the names of the cells of a field's rows.

    Args:
        rows: The data.
        position: The field's position.
        named: Whether the field's own name stands before them.
    """
    field = rows.fields[position]
    shape = tuple(field.array.shape[1:])
    if field.source == "frame":
        labels = [str(label) for label in field.labels]
    elif field.source == "series":
        labels = [str(field.labels)]
    else:
        places = torch.ones(shape).nonzero().tolist() if shape else [[0]]
        labels = [",".join(map(str, place)) for place in places]
    return [f"{rows.names[position]}:{label}" for label in labels] if named else labels
