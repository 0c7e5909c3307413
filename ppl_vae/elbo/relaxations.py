"""Discrete latents that a guide draws relaxed in train mode: the loss is then no bound.

    ELBO            E_q[log p(x, z) - log q(z given x)],  z discrete         evaluation mode
    training loss   the same expression at relaxed or straight-through z     train mode

A relaxed draw has gradients, and the expression that is differentiated is of no probability model.
So the ELBO of a relaxed guide is computed in evaluation mode, where the guide draws z discrete.

Sources: Jang, Gu & Poole (2017), section 3, arXiv:1611.01144; Maddison, Mnih & Teh (2017), section
3.3, arXiv:1611.00712.
"""

from __future__ import annotations

import warnings

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace

from ppl_vae.compat.of_pyro import pyro_log_silenced
from ppl_vae.core import sites
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch


def relaxed_latents(model_trace: Trace, guide_trace: Trace) -> list[str]:
    """Return the latents that are discrete in the model and have a gradient in the guide.

    Args:
        model_trace: Trace of the model, replayed on the guide's draws, in train mode.
        guide_trace: Trace of the guide, in train mode.
    """
    drawn = sites.with_role(guide_trace, "latent")
    return [
        name
        for name, site in sites.with_role(model_trace, "latent").items()
        if name in drawn and sites.is_discrete(site) and _has_gradient(drawn[name])
    ]


def traces_in_training(pair: Pair, batch: Batch) -> tuple[Trace, Trace]:
    """Return the traces of the model and the guide, as a fit runs them; the pair stays as it was.

    Layers keep the modes that they are in, and buffers that a layer changes in train mode get their
    numbers back.

    Args:
        pair: The pair; call the function outside ``Pair.quiet_run``, which ends train mode.
        batch: Some rows.

    Raises:
        Exception: Whatever the pair raises.
    """
    hide, unchecked = poutine.block(), pyro.validation_enabled(False)
    quiet = pyro_log_silenced(), warnings.catch_warnings(action="ignore"), pair.keeping_buffers()
    with pyro_lock(), forked(0), hide, unchecked, torch.no_grad(), quiet[0], quiet[1], quiet[2]:
        return sites.traces(pair, batch)


def _has_gradient(site: sites.Site) -> bool:
    """Return whether a draw of the guide has a gradient, and is no point."""
    return sites.is_reparameterized(site) and sites.point_of(site["fn"]) is None
