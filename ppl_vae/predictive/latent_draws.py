"""Latents drawn from their approximate posterior, and the model run on given latents.

z  ~ q(z given x) or p(z)      latents: of the guide, or of the prior
y  ~ p(y given z, x)           enumerated latents: exact, given the row and the other latents
x' ~ p(x given y, z)           replicates: the data sites drawn instead of observed
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.blocks import errors_naming_rows, quiet_look
from ppl_vae.core.handlers import EnumerateInParallel, Particles, Substitute, Unobserve
from ppl_vae.core.pair import Pair, pyro_lock
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, Rows, batch_rows
from ppl_vae.elbo.enumerated import EnumeratedSum, marked_value
from ppl_vae.elbo.factors import Factor
from ppl_vae.elbo.log_draws import DrawOfLogs
from ppl_vae.elbo.particles import plate_nesting, with_particles
from ppl_vae.predictive.moments import RunningMoments


def row_latents(trace: Trace, pair: Pair) -> dict[str, sites.Site]:
    """Return the latents of a trace that stand in the row plate, by name."""
    latents = sites.with_role(trace, "latent").items()
    return {name: site for name, site in latents if sites.in_plate(site, pair.plate)}


def data_sites(trace: Trace) -> dict[str, sites.Site]:
    """Return the data sites of a trace in which they were drawn instead of observed, by name."""
    found = sites.sample_sites(trace).items()
    return {name: site for name, site in found if site["infer"].get("was_observed")}


def drawn_latents(trace: Trace) -> dict[str, sites.Site]:
    """Return the latents of a trace in which the data sites were drawn, without the data sites."""
    latents = sites.with_role(trace, "latent").items()
    return {name: site for name, site in latents if not site["infer"].get("was_observed")}


def simulate(
    pair: Pair, batch: Batch, handler: Messenger, particles: Particles | None = None
) -> Trace:
    """Return a trace of the model with its data sites drawn instead of observed.

    Args:
        pair: The pair.
        batch: The rows, for what the model reads without observing it, and for the shapes.
        handler: Gives the latents their values; latents that it leaves alone come from the prior.
        particles: Draws every site once for each particle; ``None`` draws it once.
    """
    model = with_particles(pair.model, particles)
    return poutine.trace(handler(Unobserve()(model))).get_trace(batch)


@contextlib.contextmanager
def seeded_run(pair: Pair, rows: Rows, index: Tensor, seed: int | None) -> Iterator[Batch]:
    """Run a pair on some rows inside, with a seed of its own and without gradients.

    Layers are in evaluation mode, and an error names the rows. ``core.blocks.quiet_look`` has a
    fixed seed; here the draws matter, and ``seed=None`` takes them from the global generators.

    Args:
        pair: The pair.
        rows: The data.
        index: Positions of the rows to run on.
        seed: Seeds the draws; the generators are restored afterwards.

    Yields:
        The rows as a batch, on the pair's device.

    Raises:
        ValueError: If the pair does not run on the rows.
    """
    batch = rows.take(index, pair.device())
    named = errors_naming_rows(pair, batch, index, rows)
    with pyro_lock(), forked(seed), pair.evaluating(), named:
        yield batch


class LatentDraws:
    """Draws the latents of rows from their approximate posterior.

    A latent that the guide draws comes from the guide. A latent that the guide does not draw comes
    from the prior, unless it asks to be enumerated: then it comes from its exact posterior, given
    the row and all latents drawn before.

    Args:
        pair: The pair.
        rows: The data; the pair is run on a few rows to find its sites.

    Attributes:
        nesting: Dimensions of the pair's plates.
        from_prior: Names of the latents that neither the guide draws nor the row decides.
        enumerated: Names of the latents that the model sums and the guide does not draw.
        outside: Names of the latents, and of the guide's auxiliary sites, outside the row plate.
        draws_nothing: Whether the pair has no latent at all.
    """

    def __init__(self, pair: Pair, rows: Rows) -> None:
        self.pair = pair
        with quiet_look(pair, rows) as few_rows:
            self.nesting = plate_nesting(pair, few_rows)
            model_trace, guide_trace = sites.traces(pair, few_rows)
        latents = sites.with_role(model_trace, "latent")
        in_guide = sites.with_role(guide_trace, "latent", "auxiliary")
        model_only = {name: site for name, site in latents.items() if name not in guide_trace}
        self.enumerated = [name for name, site in model_only.items() if sites.is_enumerated(site)]
        self.from_prior = [name for name in model_only if name not in self.enumerated]
        either = {**latents, **in_guide}.items()
        self.outside = {name for name, site in either if not sites.in_plate(site, pair.plate)}
        self.draws_nothing = not either

    def draw(
        self, batch: Batch, given: Mapping[str, Tensor], particles: Particles | None
    ) -> dict[str, Tensor]:
        """Return one draw of every latent for each row, or one for each particle.

        Enumerated latents need three runs. The guide gives its own latents; the model, run on
        these, gives those that come from the prior; last, the enumerated ones are drawn from their
        joint posterior, with all others and the data held fixed.

        Args:
            batch: The rows.
            given: Values of latents that are drawn already, ``{site: value}``.
            particles: Draws every latent once for each particle; ``None`` draws it once.

        Returns:
            ``{site: value}``, with the particles' dimension left of the plates'.

        Raises:
            ValueError: If an enumerated latent stands outside the row plate: its posterior depends
                on all rows, and a block holds only some of them. If no values of the enumerated
                latents allow some row.
        """
        trace = self.guide_trace(batch, given, particles)
        return self.beside_guide(batch, given, trace, particles)

    def guide_trace(
        self, batch: Batch, given: Mapping[str, Tensor], particles: Particles | None
    ) -> Trace:
        """Return a trace of the guide with its draws; arguments and errors as ``draw`` has them."""
        for name in self.outside & set(self.enumerated):
            raise ValueError(
                f'site "{name}": expected the guide to draw it, as it stands outside the row plate '
                f'"{self.pair.plate}"; a block of rows does not tell its posterior: draw it in '
                "the guide"
            )
        guide = with_particles(self.pair.guide, particles)
        return poutine.trace(Substitute(given)(guide)).get_trace(batch)

    def beside_guide(
        self,
        batch: Batch,
        given: Mapping[str, Tensor],
        guide_trace: Trace,
        particles: Particles | None,
    ) -> dict[str, Tensor]:
        """Return the guide's draws, and draws of the latents that the guide does not draw.

        Args:
            batch: The rows.
            given: As ``draw`` has it.
            guide_trace: The guide's draws, from ``guide_trace``.
            particles: As ``draw`` has it.
        """
        in_guide = sites.with_role(guide_trace, "latent", "auxiliary").items()
        values = {**given, **{name: site["value"] for name, site in in_guide}}
        if self.enumerated and self.from_prior:
            trace = simulate(self.pair, batch, Substitute(values), particles)
            values.update({name: trace.nodes[name]["value"] for name in self.from_prior})
        if self.enumerated:
            values.update(self._from_posterior(batch, values, particles))
        return values

    def _from_posterior(
        self, batch: Batch, given: Mapping[str, Tensor], particles: Particles | None
    ) -> dict[str, Tensor]:
        """Return one joint draw of the enumerated latents, given all others; see ``draw``."""
        model = with_particles(self.pair.model, particles)
        # a site that is done already would get no names of its dimensions from Pyro
        model = poutine.condition(model, data=dict(given))
        first = -1 - self.nesting - (particles is not None)
        model = EnumMessenger(first_available_dim=first)(EnumerateInParallel()(model))
        trace = poutine.trace(model).get_trace(batch)
        factors = [Factor(site, 1) for site in sites.sample_sites(trace).values()]
        total = EnumeratedSum(trace, Trace(), self.pair.plate, batch_rows(batch), factors)
        drawn = {}
        for name, share in total.posteriors(DrawOfLogs()).items():
            if share.isnan().any():
                rows = int(share.isnan().flatten(1).any(1).sum())
                raise ValueError(
                    f'site "{name}": expected rows with a finite log-probability, so that the '
                    f"site has a posterior, got {rows} of {len(share)} rows with none; drop the "
                    "rows that no value of the summed latents allows"
                )
            drawn[name] = marked_value(share, trace.nodes[name])
        return drawn


def site_values(trace: Trace, *, expected: bool) -> dict[str, Tensor]:
    """Return a value for each data site of a simulation, ``{site: value}``.

    Args:
        trace: The simulation, a trace of ``simulate``.
        expected: Whether the value is the expected one given the latents (the most probable
            category of a categorical site); else it is the draw.
    """
    drawn = data_sites(trace)
    if not expected:
        return {name: site["value"] for name, site in drawn.items()}
    values = {}
    for name, site in drawn.items():
        moments = RunningMoments()
        moments.add(site)
        values[name] = moments.expected()
    return values
