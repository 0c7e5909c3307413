"""The one reader of traces: a pair and a batch in, sites with roles and log-probabilities out.

    log p(x, z) = sum over sites of log p(site given what it depends on)

Everything downstream asks here; nothing else knows a site's name or a distribution's class.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor

from ppl_vae.pair import Pair
from ppl_vae.rows import Batch, as_tuple

Site = Any  # a node of a trace: fn, value, mask, scale, infer, cond_indep_stack, ...


def run(pair: Pair, batch: Batch) -> tuple[Trace, Trace]:
    """Traces of the guide and of the model replayed against it, as (model, guide)."""
    guide_trace = poutine.trace(pair.guide).get_trace(batch)
    model_trace = poutine.trace(poutine.replay(pair.model, trace=guide_trace)).get_trace(batch)
    return model_trace, guide_trace


def sites(trace: Trace) -> dict[str, Site]:
    """The sample sites of a trace by name, without the plates' subsample sites."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def role(site: Site) -> str:
    """What a site is: data, latent, deterministic, factor or auxiliary."""
    if site["infer"].get("_deterministic"):
        return "deterministic"
    if site_is_factor(site):
        return "factor"
    if site["infer"].get("is_auxiliary"):
        return "auxiliary"
    return "data" if site["is_observed"] else "latent"


def with_role(trace: Trace, *roles: str) -> dict[str, Site]:
    """Sites of a trace that have one of the roles, in the order they ran."""
    return {name: site for name, site in sites(trace).items() if role(site) in roles}


def plates(trace: Trace) -> dict[str, Any]:
    """Every plate's frame by name."""
    return {f.name: f for site in sites(trace).values() for f in site["cond_indep_stack"]}


def in_plate(site: Site, plate: str) -> bool:
    """Whether the site stands inside the plate."""
    return any(frame.name == plate for frame in site["cond_indep_stack"])


def enumerated(site: Site) -> bool:
    """Whether the site asks to be summed out."""
    return bool(site["infer"].get("enumerate"))


def reparameterized(site: Site) -> bool:
    """Whether gradients flow through the site's draw."""
    return bool(site["fn"].has_rsample)


def row_log_prob(site: Site) -> Tensor:
    """Unscaled log-probability of each row, masked cells left out: (rows,), in nats.

    The site must stand in the row plate, at dim -1.
    """
    log_prob: Tensor = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
    log_prob = log_prob.expand(site["fn"].batch_shape)
    return log_prob.flatten(0, -2).sum(0) if log_prob.ndim > 1 else log_prob


def observed_cells(batch: Batch, value: Tensor) -> tuple[int, Tensor] | None:
    """Where in the data an observed value was read.

    A view of a field is found by its storage; a converted copy by comparing whole columns.

    Args:
        batch: What the model was called with.
        value: An observed site's value, rows first.

    Returns:
        The field's position and, shaped like ``value``, the flat positions of its cells in that
        field; ``None`` where the value is no selection of the data's cells.
    """
    for position, field in enumerate(as_tuple(batch)):
        same_memory = value.untyped_storage().data_ptr() == field.untyped_storage().data_ptr()
        if same_memory and value.dtype == field.dtype and field.is_contiguous():
            cells = torch.arange(field.numel(), device=field.device)
            offset = value.storage_offset() - field.storage_offset()
            return position, cells.as_strided(value.shape, value.stride(), offset)
    for position, field in enumerate(as_tuple(batch)):
        cells_or_none = _matching_columns(field, value)
        if cells_or_none is not None:
            return position, cells_or_none
    return None


def _matching_columns(field: Tensor, value: Tensor) -> Tensor | None:
    """Cells of a field whose columns equal the value's, taken from left to right."""
    if value.ndim == 0 or len(value) != len(field):
        return None
    columns = field.reshape(len(field), -1).double().T  # (columns, rows)
    wanted = value.reshape(len(value), -1).double().T
    if columns.shape == wanted.shape and torch.equal(columns, wanted):
        chosen = list(range(len(columns)))
    else:
        chosen = []
        for column in wanted:
            equal = (columns == column).all(1)
            equal[chosen] = False
            if not bool(equal.any()):
                return None
            chosen.append(int(equal.nonzero()[0, 0]))
    starts = torch.arange(len(field), device=field.device)[:, None] * len(columns)
    return (starts + torch.tensor(chosen, device=field.device)).reshape(value.shape)
