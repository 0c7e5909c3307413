"""The density of latents between prior and posterior, in coordinates without bounds.

    log f_b(u) = log p(z) + log |dz/du| + b log p(x given z)      z = t(u), u any real numbers
                                                                  b from 0, the prior, to 1

Each row has its own, and the gradients of all rows and chains are taken at once. Discrete latents
that ask to be summed are summed in p(z) and in p(x, z).

Sources: Neal (2001), section 2, arXiv:physics/9803008 (the path); Carpenter et al. (2017), Stan: a
probabilistic programming language, Journal of Statistical Software 76 (the coordinates).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import biject_to

from ppl_vae.compiled.graphs import trace_graph
from ppl_vae.core import sites
from ppl_vae.core.blocks import quiet_look
from ppl_vae.core.handlers import EnumerateInParallel, Particles, scale_of_plates
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Batch, Rows, as_tuple, batch_rows, in_form_of
from ppl_vae.elbo.enumerated import EnumeratedSum
from ppl_vae.elbo.factors import Factor
from ppl_vae.elbo.importance_weights import Draw
from ppl_vae.elbo.particles import ParticleRuns, with_particles

Points = dict[str, Tensor]
"""``{site: (chains, plates inside the rows..., rows, numbers)}``, in coordinates without bounds."""

SUMMED = {"enumerate": "parallel"}
"""What a site's ``infer`` holds where the site is summed."""

TOLERANCE = 1e-4
"""Relative and absolute: how far the traced density may lie from that of the model's own Python."""


class TemperedDensity:
    """The tempered posterior of the rows of a model.

    Args:
        pair: The pair; of the guide, only which latents it sums.
        rows: The data.

    Attributes:
        sites: Names of the latents that have coordinates.

    Raises:
        ValueError: If a latent has no coordinates: a discrete one that is drawn, one outside the
            row plate, or none.
    """

    def __init__(self, pair: Pair, rows: Rows) -> None:
        with quiet_look(pair, rows) as few_rows:
            guide_trace = poutine.trace(pair.guide).get_trace(few_rows)
        in_guide = sites.with_role(guide_trace, "latent").items()
        by_guide = {name for name, site in in_guide if sites.is_enumerated(site)}
        self.pair = Pair.of(pair.model.function, None, pair.plate)
        summed: Any = lambda site: SUMMED if site["name"] in by_guide else {}  # noqa: E731
        self._model = poutine.infer_config(self.pair.model, summed)
        with quiet_look(self.pair, rows) as few_rows:
            self._runs = ParticleRuns.probe(self.pair, few_rows)
            trace = poutine.trace(self._model).get_trace(few_rows)
        self._supports: dict[str, Any] = {}
        self._free_events: dict[str, tuple[int, ...]] = {}
        self._batch_dims: dict[str, int] = {}
        self._event_dims: dict[str, int] = {}
        latents = sites.with_role(trace, "latent").items()
        self._summed = [name for name, site in latents if sites.is_enumerated(site)]
        for name, site in latents:
            if name in self._summed:
                continue
            self._check(name, site)
            self._supports[name] = site["fn"].support
            free = _from_reals(site["fn"].support).inv(site["value"])
            self._free_events[name] = tuple(free.shape[len(site["fn"].batch_shape) :])
            self._batch_dims[name] = len(site["fn"].batch_shape)
            self._event_dims[name] = site["fn"].event_dim
        self.sites = list(self._supports)
        if not self.sites:
            raise ValueError(
                "method: expected a continuous latent of the rows, which annealing moves, got "
                'none; take method="importance"'
            )
        self._rows = 0  # of the blocks that the graph takes
        self._graph: Callable[..., list[Tensor]] | None = None

    @property
    def is_traced(self) -> bool:
        """Whether blocks of the traced size go through a graph."""
        return self._graph is not None

    def _check(self, name: str, site: sites.Site) -> None:
        """Raise ``ValueError`` where a latent has no coordinates."""
        advice = 'take method="importance"'
        if not sites.in_plate(site, self.pair.plate):
            raise ValueError(
                f'site "{name}": expected latents inside the row plate "{self.pair.plate}", got '
                f"one outside, which the chains of a row cannot move; {advice}"
            )
        if sites.is_discrete(site):
            raise ValueError(
                f'site "{name}": expected a continuous latent, or one that the model sums '
                f'(infer={{"enumerate": "parallel"}}), got a discrete one that is drawn; {advice}'
            )
        if not _has_one_support(site):
            raise ValueError(
                f'site "{name}": expected one support for all rows, which a transform of the reals '
                f"has, got {site['fn'].support}; {advice}"
            )

    def points(self, latents: Mapping[str, Tensor], chains: int) -> Points:
        """Return the coordinates of one value of each latent, the same for all chains.

        Args:
            latents: ``{site: (rows, plates inside the rows..., event...)}``.
            chains: Chains of each row.
        """
        found = {}
        for name in self.sites:
            plates = self._batch_dims[name] - 1
            value = latents[name].movedim(0, plates)
            free = self._free(name, value[(None,) * (1 + self._gap(name, value))])
            found[name] = free.expand(chains, *free.shape[1:]).contiguous()
        return found

    def prior_points(self, batch: Batch, chains: int) -> Points:
        """Return the coordinates of draws from the prior, one for each chain of each row."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.sites}
        for particles in self._runs.handlers(chains):
            model = with_particles(self.pair.model, particles)
            with torch.no_grad(), pyro.validation_enabled(False):
                trace = poutine.trace(model).get_trace(batch)
            for name, values in found.items():
                value: Any = trace.nodes[name]["value"]
                values.append(value)
        points = {}
        for name, values in found.items():
            value = values[0] if self._runs.vectorized else torch.stack(values)
            gap = self._gap(name, value[0])
            value = value.reshape(len(value), *(1,) * gap, *value.shape[1:])
            points[name] = self._free(name, value)
        return points

    def of_block(self, batch: Batch) -> Callable[[Points, float], tuple[Tensor, Tensor, Points]]:
        """Return the density of a block of rows.

        Returns:
            A function of points and of b, which returns log f_b(u) and log p(x given z), both
            (chains, rows) in nats, and the gradient of log f_b(u) in the form of the points.
        """
        return partial(self._at, batch)

    def trace(self, batch: Batch, points: Points) -> None:
        """Record the density as a graph for blocks of this size; once.

        Args:
            batch: Rows on which the graph and the model are compared.
            points: Points to compare them at.
        """
        if self._rows:
            return
        self._rows = batch_rows(batch)

        def function(*given: Tensor) -> list[Tensor]:
            named = dict(zip(self.sites, given, strict=False))
            fields = in_form_of(batch, given[len(self.sites) + 1 :])
            density, likelihood, slopes = self._eager(fields, named, given[len(self.sites)])
            zero = density.new_zeros(())  # gets marks of bad arguments
            return [zero, density, likelihood, *slopes.values()]

        temperature = torch.tensor(0.5, dtype=next(iter(points.values())).dtype)
        inputs = [*points.values(), temperature, *as_tuple(batch)]
        try:
            with forked(0):
                graph = trace_graph(function, inputs, ())
                got = graph.module(*graph.constants, *inputs)[1:]
            with forked(0), pyro.validation_enabled(False):
                expected = function(*inputs)[1:]
        except Exception:  # the model's Python may do anything to the tracer
            return
        close = partial(torch.allclose, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        if all(map(close, got, expected)):
            self._graph = partial(graph.module, *graph.constants)

    def _at(
        self, batch: Batch, points: Points, temperature: float
    ) -> tuple[Tensor, Tensor, Points]:
        """Return the density of a block, by the graph where there is one."""
        first = next(iter(points.values()))
        b = torch.tensor(temperature, dtype=first.dtype, device=first.device)
        if self._graph is None or batch_rows(batch) != self._rows:
            with pyro.validation_enabled(False):
                return self._eager(batch, points, b)
        got = self._graph(*points.values(), b, *as_tuple(batch))[1:]
        return got[0], got[1], dict(zip(self.sites, got[2:], strict=False))

    def _eager(
        self, batch: Batch, points: Points, temperature: Tensor
    ) -> tuple[Tensor, Tensor, Points]:
        """Return the density of a block by the model's own Python."""
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in points.items()}
            volumes, values = [], {}
            for name, leaf in leaves.items():
                values[name], volume = self._value(name, leaf)
                volumes.append(volume)
            prior, joint = self._log_densities(batch, values)
            likelihood = joint - prior
            density = prior + torch.stack(volumes).sum(0) + temperature * likelihood
            slopes = torch.autograd.grad(density.sum(), list(leaves.values()))
        named = dict(zip(leaves, slopes, strict=True))
        return density.detach(), likelihood.detach(), named

    def _log_densities(self, batch: Batch, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return log p(z) and log p(x, z), (chains, rows) each.

        Args:
            batch: The rows.
            values: The latents, (chains, plates inside the rows..., rows, event...).
        """
        chains = len(next(iter(values.values())))
        if self._runs.vectorized:
            [particles] = self._runs.handlers(chains)
            return self._scored(batch, values, particles)
        each = []
        for chain in range(chains):
            alone = {}
            for name, value in values.items():
                own = self._batch_dims[name] + self._event_dims[name]
                alone[name] = value[chain].reshape(value.shape[value.ndim - own :])
            each.append(self._scored(batch, alone, None))
        prior, joint = (torch.cat(parts) for parts in zip(*each, strict=True))
        return prior, joint

    def _scored(
        self, batch: Batch, values: Mapping[str, Tensor], particles: Particles | None
    ) -> tuple[Tensor, Tensor]:
        """Return log p(z) and log p(x, z) of one run of the model, (chains of the run, rows)."""
        # a site that is done already would get no names of its dimensions from Pyro
        model = poutine.condition(with_particles(self._model, particles), data=dict(values))
        dim = None if particles is None else -1 - self._runs.nesting
        first = -1 - self._runs.nesting if dim is None else dim - 1
        model = EnumMessenger(first_available_dim=first)(EnumerateInParallel()(model))
        trace = poutine.trace(model).get_trace(batch)
        draw = Draw(trace, Trace(), self.pair.plate, dim, batch_rows(batch))
        in_rows = {
            name: site
            for name, site in sites.sample_sites(trace).items()
            if sites.in_plate(site, self.pair.plate) and sites.role(site) != "deterministic"
        }
        latents = {name: site for name, site in in_rows.items() if self._is_latent(name)}
        prior, joint = self._total(draw, latents), self._total(draw, in_rows)
        count = 1 if particles is None else len(next(iter(values.values())))
        shape = (count, batch_rows(batch))
        return prior.expand(shape), joint.expand(shape)

    def _is_latent(self, name: str) -> bool:
        """Return whether a site is a latent, moved or summed."""
        return name in self._supports or name in self._summed

    def _total(self, draw: Draw, named: Mapping[str, sites.Site]) -> Tensor:
        """Return the sum of log-probabilities over the values of the summed latents."""
        if not self._summed:
            return torch.stack(
                torch.broadcast_tensors(*[draw.log_prob_of(site) for site in named.values()])
            ).sum(0)
        for name, site in named.items():
            if scale_of_plates(site, without=self.pair.plate) != 1:
                raise ValueError(
                    f'site "{name}": expected no subsampling plate beside a latent that is summed; '
                    "open the plate with its full size"
                )
        factors = [Factor(site, 1) for site in named.values()]
        total = EnumeratedSum(draw.model_trace, Trace(), draw.plate, draw.rows, factors)
        return total.log_weights()

    def _gap(self, name: str, value: Tensor) -> int:
        """Return how many plates' dimensions a site's value lacks on the left."""
        return self._runs.nesting - (value.ndim - self._event_dims[name])

    def _free(self, name: str, value: Tensor) -> Tensor:
        """Return coordinates, (chains, plates..., rows, numbers), of values, (..., event...)."""
        free = _from_reals(self._supports[name]).inv(value.detach())
        batch = value.ndim - self._event_dims[name]
        coordinates: Tensor = free.reshape(*free.shape[:batch], -1)
        return coordinates

    def _value(self, name: str, free: Tensor) -> tuple[Tensor, Tensor]:
        """Return values, and the logarithm of their volume, (chains, rows), of coordinates."""
        transform = _from_reals(self._supports[name])
        shaped = free.reshape(*free.shape[:-1], *self._free_events[name])
        value: Tensor = transform(shaped)
        volume: Tensor = transform.log_abs_det_jacobian(shaped, value)
        while volume.ndim > free.ndim - 1:
            volume = volume.sum(-1)
        return value, volume.reshape(len(volume), -1, volume.shape[-1]).sum(1)


def _from_reals(support: Any) -> Any:
    """Return the transform of the reals onto a support; of a mixture, that of its parts."""
    try:
        return biject_to(support)
    except NotImplementedError:
        if not hasattr(support, "base_constraint"):
            raise
        return biject_to(support.base_constraint)


def _has_one_support(site: sites.Site) -> bool:
    """Return whether a transform of the reals has the support of a site, the same in all rows."""
    dim = -1 - site["fn"].event_dim
    try:
        transform = _from_reals(site["fn"].support)
        return bool(transform.inv(site["value"].narrow(dim, 0, 1)).shape[dim] == 1)
    except (NotImplementedError, RuntimeError):
        return False
