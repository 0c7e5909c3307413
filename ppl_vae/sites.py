"""The one reader of traces: a pair and a batch in, sites with roles and log-probabilities out.

    log p(x, z) = sum over sites of log p(site given what it depends on)

Everything downstream asks here; nothing else knows a site's name or a distribution's class.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor
from torch.distributions import TransformedDistribution

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


def whole(trace: Trace, name: str) -> str:
    """The site that an observed piece belongs to: ``obs_mask`` makes "x_observed" of "x"."""
    base = name.removesuffix("_observed")
    return base if base in trace.nodes else name


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


def kept_cells(site: Site) -> Tensor:
    """The cells of a site's value that no mask hides, whoever set it: bool, like the value."""
    value, fn = site["value"], site["fn"]
    masks = [(site["mask"], fn.event_dim)]
    while hasattr(fn, "base_dist") and not isinstance(fn, TransformedDistribution):
        if isinstance(fn, MaskedDistribution):
            masks.append((fn._mask, fn.event_dim))
        fn = fn.base_dist
    kept = torch.ones(value.shape, dtype=torch.bool, device=value.device)
    for mask, event_dim in masks:
        if mask is not None:
            cells = torch.as_tensor(mask, device=value.device)
            kept = kept & cells.reshape(cells.shape + (1,) * event_dim)
    return kept


def observed_cells(batch: Batch, value: Tensor) -> tuple[int, Tensor] | None:
    """Where in the data an observed value was read: by its storage, where it is a view.

    Args:
        batch: What the model was called with.
        value: An observed site's value.

    Returns:
        The field's position and, shaped like ``value``, the flat positions of its cells in that
        field; ``None`` where the value is no view of a field.
    """
    for position, field in enumerate(as_tuple(batch)):
        same_memory = value.untyped_storage().data_ptr() == field.untyped_storage().data_ptr()
        if same_memory and value.dtype == field.dtype and field.is_contiguous():
            cells = torch.arange(field.numel(), device=field.device)
            offset = value.storage_offset() - field.storage_offset()
            return position, cells.as_strided(value.shape, value.stride(), offset)
    return None


def observed_columns(batch: Batch, value: Tensor) -> tuple[int, list[int]] | None:
    """Where in the data a converted copy (``x[:, 2].long()``) was read: by its columns' values.

    A NaN in the data matches anything: the model may have filled it.

    Args:
        batch: What the model was called with; the more rows, the surer.
        value: An observed site's value, rows first.

    Returns:
        The field's position and its columns, one for each column of the value; ``None`` where no
        field has such columns.

    Raises:
        ValueError: Where several columns of a field are alike, so that nobody can tell.
    """
    if value.ndim == 0:
        return None
    wanted = value.reshape(len(value), -1).double().T  # (columns, rows)
    for position, field in enumerate(as_tuple(batch)):
        if len(value) != len(field):
            continue
        columns = field.reshape(len(field), -1).double().T
        open_cells = columns.isnan()
        if columns.shape == wanted.shape and bool(((columns == wanted) | open_cells).all()):
            return position, list(range(len(columns)))
        chosen = []
        for column in wanted:
            alike = ((columns == column) | open_cells).all(1).nonzero().flatten().tolist()
            if len(alike) > 1:
                raise ValueError(
                    f"columns {alike[:5]} of the data hold the same values, so that a converted "
                    "copy of one cannot be told from the others; pass the data as floats and "
                    "observe a slice of them, or pass these columns as a field of their own"
                )
            chosen += alike
        if len(chosen) == len(wanted):
            return position, chosen
    return None


def cells_in(batch: Batch, value: Tensor) -> tuple[int, Tensor] | None:
    """Cells of the data that a value was read from, view or copy; ``None`` where nobody can tell.

    Args:
        batch: What the model was called with.
        value: An observed site's value, rows first.
    """
    viewed = observed_cells(batch, value)
    if viewed is not None:
        return viewed
    try:
        copied = observed_columns(batch, value)
    except ValueError:
        return None
    if copied is None:
        return None
    position, columns = copied
    return position, column_cells(as_tuple(batch)[position], columns, value.shape)


def column_cells(field: Tensor, columns: list[int], shape: torch.Size) -> Tensor:
    """Flat positions, in a field, of some of its columns in every row; shaped as asked."""
    starts = field[0].numel() * torch.arange(len(field), device=field.device)[:, None]
    return (starts + torch.tensor(columns, device=field.device)).reshape(shape)
