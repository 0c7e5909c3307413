"""The layout of replicates: draws first, then rows, then the cells of a row.

in a trace           (samples, plates inside the rows..., rows, event...)
in ``Replicates``    (samples, rows, plates inside the rows..., event...)
"""

from __future__ import annotations

from torch import Tensor

from ppl_vae.core.sites import Site


def samples_first(value: Tensor, site: Site, dim: int | None) -> Tensor:
    """Return a site's value with draws and rows in front: (samples, rows, ...).

    The dimensions of plates inside the rows follow, then those of an event. Dimensions of size 1
    that belong to no plate are dropped. Outside the row plate there are no rows: (samples, ...).
    ``core.handlers.ReplayReplicates`` is the inverse.

    Args:
        value: The site's value, or a tensor laid out like it (the data, a mask).
        site: The site, from a trace.
        dim: The draws' dimension, counted from the right of the plates; ``None`` if there is none,
            and the result has a first dimension of size 1.
    """
    event_dim = site["fn"].event_dim
    plates = {frame.dim for frame in site["cond_indep_stack"] if frame.dim is not None}
    batch_dim = value.ndim - event_dim
    positions = range(-batch_dim, 0)  # of the plates' dimensions, counted from the right
    draws = [d for d in positions if d == dim]
    rows = [d for d in positions if d == -1 and d in plates]
    inner = [d for d in positions if d in plates and d not in (dim, -1)]
    order = [batch_dim + d for d in (*draws, *rows, *inner)]
    no_plate = [batch_dim + d for d in positions if batch_dim + d not in order]  # each of size 1
    moved = value.permute((*order, *no_plate, *range(batch_dim, value.ndim)))
    shape = [size for i, size in enumerate(moved.shape) if not len(order) <= i < batch_dim]
    moved = moved.reshape(shape)
    return moved if draws else moved[None]
