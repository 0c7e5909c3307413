"""Rows from the model: observed sites un-observed and drawn, then put where the data had them.

    x' ~ p(x given z)        z given: from the guide, the prior, or a line through the latent space

A site's value returns to the cells that it observed, so that rows come back in the data's form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.handlers import EnumerateInParallel, Particles, Substitute, Unobserve
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import child, forked
from ppl_vae.data.rows import Batch, Rows
from ppl_vae.elbo.weights import plate_nesting
from ppl_vae.predictive.moments import RunningMoments


def row_latents(trace: Any, pair: Pair) -> list[tuple[str, sites.Site]]:
    """The latents of a trace that stand in the row plate."""
    found = sites.with_role(trace, "latent").items()
    return [(name, site) for name, site in found if sites.in_plate(site, pair.plate)]


def data_sites(trace: Any) -> dict[str, sites.Site]:
    """Sites that were data before they were un-observed."""
    found = sites.sample_sites(trace).items()
    return {name: site for name, site in found if site["infer"].get("was_observed")}


def simulate(
    pair: Pair, batch: Batch, handler: Messenger, particles: Particles | None = None
) -> Any:
    """Trace of the model with its data sites drawn; ``handler`` decides the latents."""
    model: Any = pair.model if particles is None else particles(pair.model)
    return poutine.trace(handler(Unobserve()(model))).get_trace(batch)


class LatentDraws:
    """Draws the latents of rows from their approximate posterior.

    Those of the guide; then those that neither the guide draws nor the model sums out, from the
    prior; then those that are summed out, from their posterior given the row and all before.

    Args:
        pair: The pair.
        rows: Its data; a few of them are looked at.

    Attributes:
        nesting: Dimensions of the pair's plates.
        outside: Names of latents, and of the guide's auxiliary sites, outside the row plate.
    """

    def __init__(self, pair: Pair, rows: Rows) -> None:
        self.pair = pair
        with quiet_look(pair, rows) as few:
            self.nesting = plate_nesting(pair, few)
            model_trace, guide_trace = sites.traces(pair, few)
        latents = sites.with_role(model_trace, "latent")
        drawn = sites.with_role(guide_trace, "latent", "auxiliary")
        alone = {name: site for name, site in latents.items() if name not in guide_trace}
        self._summed = [name for name, site in alone.items() if sites.is_enumerated(site)]
        self._from_prior = [name for name in alone if name not in self._summed]
        self.outside = {
            name for name, site in {**latents, **drawn}.items()
            if not sites.in_plate(site, pair.plate)
        }  # fmt: skip

    def draw(
        self,
        batch: Batch,
        given: Mapping[str, Tensor] | None = None,
        particles: Particles | None = None,
    ) -> dict[str, Tensor]:
        """``{site: value}``, so many times as there are particles, left of the plates.

        Args:
            batch: The rows.
            given: Latents that are drawn already.
            particles: Draws each so many times.

        Raises:
            ValueError: Where a latent outside the row plate is summed out: a block of rows does
                not tell its posterior.
        """
        for name in self.outside & set(self._summed):
            raise ValueError(
                f'site "{name}": expected the guide to draw it, as it stands outside the row plate '
                f'"{self.pair.plate}"; summed out in the model it cannot be drawn block by block'
            )
        given = given or {}
        left: Any = (lambda half: half) if particles is None else particles
        trace = poutine.trace(Substitute(given)(left(self.pair.guide))).get_trace(batch)
        drawn = sites.with_role(trace, "latent", "auxiliary").items()
        values = {**given, **{name: site["value"] for name, site in drawn}}
        if self._summed and self._from_prior:
            trace = simulate(self.pair, batch, Substitute(values), particles)
            values.update({name: trace.nodes[name]["value"] for name in self._from_prior})
        if self._summed:
            model = EnumerateInParallel()(poutine.condition(left(self.pair.model), data=values))
            first = -1 - self.nesting - (particles is not None)
            trace = poutine.trace(infer_discrete(model, first, temperature=1)).get_trace(batch)
            values.update({name: trace.nodes[name]["value"] for name in self._summed})
        return values


def site_values(trace: Any, *, expected: bool) -> dict[str, Tensor]:
    """What a simulation drew at the data sites, or what it expected there given the latents."""
    if not expected:
        return {name: site["value"] for name, site in data_sites(trace).items()}
    result = {}
    for name, site in data_sites(trace).items():
        average = RunningMoments()
        average.add(site)
        result[name] = average.expected()
    return result


def global_latents(
    pair: Pair, rows: Rows, seed: int | None, *, from_prior: bool
) -> dict[str, Tensor]:
    """One draw of the latents outside the row plate."""
    batch = rows.take(torch.arange(min(len(rows), 16)), pair.device())
    with pyro_lock(), forked(child(seed, 2)), pair.evaluating():
        half = Unobserve()(pair.model) if from_prior else pair.guide
        trace = poutine.trace(half).get_trace(batch)
    return {
        name: site["value"]
        for name, site in sites.with_role(trace, "latent").items()
        if not sites.in_plate(site, pair.plate) and not site["infer"].get("was_observed")
    }
