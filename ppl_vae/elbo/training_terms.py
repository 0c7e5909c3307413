"""Terms of the guide that the training loss holds and the ELBO does not.

    ELBO    = E_q[log p(x, z) - log q(z given x)]

log q(z given x) is the density of the guide's draws. Pyro subtracts the log-probability of every
site of the guide, so that two kinds of sites enter a training loss and are no part of that density:
an observed site (``obs=`` with ``infer={"is_auxiliary": True}``, as a classifier beside the guide
has it), and a ``pyro.factor`` whose value does not depend on any draw of the guide. A factor that
does depend on the draws may be part of their density (a change of variables by hand), and is
subtracted everywhere, as Pyro does.
"""

from __future__ import annotations

from collections.abc import Collection

from pyro import poutine
from pyro.infer.inspect import TrackProvenance
from pyro.ops.provenance import get_provenance
from pyro.poutine.trace_struct import Trace

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch


def training_terms(pair: Pair, batch: Batch) -> frozenset[str]:
    """Return the names of the guide's sites that are no part of the density of its draws.

    Args:
        pair: The pair. Call the function inside ``Pair.quiet_run``, so that the run that it needs
            leaves no trace.
        batch: Some rows.
    """
    guide_trace = poutine.trace(pair.guide).get_trace(batch)
    observed = {
        name
        for name, site in sites.with_role(guide_trace, "auxiliary", "data").items()
        if site["is_observed"]
    }
    factors = sites.with_role(guide_trace, "factor")
    return frozenset(observed | _independent_of_draws(pair, batch, factors, guide_trace))


def _independent_of_draws(
    pair: Pair, batch: Batch, factors: Collection[str], guide_trace: Trace
) -> set[str]:
    """Return the factors of the guide whose value is computed from none of the guide's draws.

    Pyro's provenance tensors carry the names of the sites that a value was computed from. Where the
    guide's Python does not take such tensors, no factor is returned.
    """
    if not factors:
        return set()
    drawn = {n for n, s in sites.sample_sites(guide_trace).items() if not s["is_observed"]}
    try:
        with TrackProvenance():
            tracked = poutine.trace(pair.guide).get_trace(batch)
    except Exception:  # the guide's Python may do anything to a tensor
        return set()
    return {name for name in factors if not drawn & _origin(tracked.nodes[name])}


def _origin(factor: sites.Site) -> frozenset[str]:
    """Return the names of the sites that a factor's value was computed from."""
    origin: frozenset[str] = get_provenance(factor["fn"].log_factor)
    return origin
