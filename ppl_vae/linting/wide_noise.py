"""The linter's rule on a likelihood of fixed noise that is many times as wide as the data.

    I(x; z) <= 1/2 sum_j log(1 + d_j^2 / s_j^2)      in nats a row, for additive normal noise
                                                     d_j: sd of the data; s_j: sd of the noise

Where the noise is fixed and this bound is near 0, rows say nothing of their latents: a fit is as
good without them, and nothing else says so. A scale of 1 on data in small units is the usual case.

Source: Cover & Thomas (2006), Elements of information theory, section 9.1 (the Gaussian channel).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.core import sites
from ppl_vae.core.supports import support_of
from ppl_vae.data.rows import evenly_spaced
from ppl_vae.linting.inspection import CannotRunError, Finding, Inspection, run_pair, warning

LEAST = 0.01  # nats a row; one feature tells less where the noise is 7 times as wide as the data
FEWEST_ROWS = 20  # fewer do not tell how wide the data are
COMPARED_ROWS = 512  # rows, spread evenly over the data, that measure how wide the data are


def wide_noise(inspection: Inspection) -> Iterator[Finding]:
    """Find pairs whose rows can say nothing of their latents, as all noise is fixed and too wide.

    The pair is run with gradients on: a variance that requires a gradient is learned.
    """
    rows, pair = inspection.rows, inspection.pair
    if len(rows) < FEWEST_ROWS:
        return
    positions = evenly_spaced(len(rows), min(len(rows), COMPARED_ROWS))
    try:
        with torch.enable_grad():
            trace, _ = run_pair(pair, rows.take(positions, pair.device()))
            found = {name: _variances(s) for name, s in sites.with_role(trace, "data").items()}
    except CannotRunError:  # by chance of the draws: earlier runs did not fail
        return
    known = {name: variances for name, variances in found.items() if variances is not None}
    latents = sites.with_role(trace, "latent").values()
    if len(known) < len(found) or not any(sites.in_plate(site, pair.plate) for site in latents):
        return
    told = sum(float((data / noise).log1p().sum()) / 2 for data, noise in known.values())
    if 0 < told < LEAST:
        name, variances = next(iter(known.items()))
        of_data, of_noise = (f"{float(variance.mean().sqrt()):.3g}" for variance in variances)
        yield warning(
            f'site "{name}"',
            f"expected noise below the spread of the data, got a fixed standard deviation of "
            f"{of_noise} where the data's is {of_data}: a row tells at most {told:.1g} nats of its "
            "latents, and a fit is as good without them",
            "learn the scale, or fix it near the noise of the data",
        )


def _variances(site: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Return the variances over rows of what a site observes, and of its fixed noise, by cell.

    Args:
        site: A data site of a run with gradients on.

    Returns:
        (cells,) each; ``None`` for a site of bounded or discrete values, for one whose variance is
        learned, differs between rows, or is not known, and for one with missing values.
    """
    fn, value = site["fn"], site["value"]
    if support_of(fn) is not constraints.real or value.ndim <= fn.event_dim:
        return None
    try:
        noise = fn.variance
    except NotImplementedError:
        return None
    if not isinstance(noise, Tensor) or noise.requires_grad:
        return None
    row_dim = value.ndim - 1 - fn.event_dim
    lowest, noise = noise.double().expand(value.shape).aminmax(dim=row_dim)
    data = value.double().var(row_dim, correction=0)
    usable = (noise > 0) & (noise - lowest <= 1e-3 * noise) & noise.isfinite() & data.isfinite()
    return (data.flatten(), noise.flatten()) if bool(usable.all()) else None
