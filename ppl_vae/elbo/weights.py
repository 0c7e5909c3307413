"""Particles of a pair, their importance weights for every row, and the ELBO taken apart by site.

    z_1, ..., z_P ~ q(z given x)
    log w_p = log sum_y p(x, y, z_p) / q(z_p given y, x)         (particles, rows)

y are discrete latents that ask to be summed (``infer={"enumerate": ...}``), in the model or in
the guide. Weights are unscaled; masked cells are left out. A latent that the guide does not draw is
proposed by the model itself. Latents outside the row plate are drawn once for a particle, so that
a row's weight is conditional on them: their own terms stand apart.

Sources: Kingma & Welling (2014), appendix D, arXiv:1312.6114; Obermeyer et al. (2019),
arXiv:1902.03210 (the sum over y, which is Pyro's).
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.packed import pack
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.compat import name_dims, named_dims
from ppl_vae.core import sites
from ppl_vae.core.handlers import EnumerateInParallel, Particles, Substitute
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch
from ppl_vae.elbo.objectives import closed_forms


def plate_nesting(pair: Pair, batch: Batch) -> int:
    """Dimensions that the pair's plates take, found by one run that leaves no mark."""
    with pair.quiet_run():
        traces = sites.traces(pair, batch)
    frames = [frame for trace in traces for frame in sites.plates(trace).values()]
    return max((-frame.dim for frame in frames if frame.dim is not None), default=0)


@dataclass(frozen=True)
class Draw:
    """Traces of one run of a pair on a batch.

    Attributes:
        model_trace: Of the model, run on the guide's draws.
        guide_trace: Of the guide.
        plate: Name of the row plate.
        dim: The particles' dimension, from the right; ``None`` where there is one particle
            without a dimension.
        rows: Rows of the batch.
    """

    model_trace: Trace
    guide_trace: Trace
    plate: str
    dim: int | None
    rows: int

    @property
    def is_summed(self) -> bool:
        """Whether a latent was summed out."""
        return bool(self._summed(self.model_trace) | self._summed(self.guide_trace))

    def log_weights(self, kl_weight: Tensor | None = None, *, fixed: bool = False) -> Tensor:
        """Log-weight of every particle for every row, (particles, rows), in nats.

        Args:
            kl_weight: Multiplies what is not observed, log p(z) - log q(z given x).
            fixed: Whether log q is a constant, without a gradient.

        Raises:
            ValueError: Where nothing stands in the row plate, or a KL weight meets a sum.
        """
        if self.is_summed:
            if kl_weight is not None:
                raise ValueError(
                    "kl_weight: expected 1 under a bound that sums latents inside its logarithm"
                )
            return self._summed_out(list(self._factors()))
        parts = []
        for site, sign in self._factors():
            if sites.in_plate(site, self.plate):
                part = sign * self._by_row(site)
                part = part.detach() if fixed and sign < 0 else part
                weight = 1.0 if kl_weight is None or site["is_observed"] else kl_weight
                parts.append(weight * part)
        if not parts:
            raise ValueError(f'expected sites in the row plate "{self.plate}", found none')
        return self._total(parts)

    def terms(self, *, closed: bool = True) -> dict[str, Tensor]:
        """The ELBO of every site in the row plate: ``{site: (particles, rows)}``, in nats.

        A likelihood's term is its log-probability; a latent's is log p - log q, or minus the KL
        divergence where that has a closed form (``closed``); expected under the guide where a
        latent is summed there. Sites summed out in the model share one term, by their joined names.
        """
        if self.is_summed:
            return self._expected_terms()
        found: dict[str, Tensor] = {}
        exact = closed_forms(self.model_trace, self.guide_trace) if closed else set()
        for name in exact:
            ours: sites.Site = self.model_trace.nodes[name]
            theirs: sites.Site = self.guide_trace.nodes[name]
            if sites.in_plate(theirs, self.plate):
                kl = kl_divergence(theirs["fn"], ours["fn"])
                found[name] = -self._fold(scale_and_mask(kl, mask=theirs["mask"]), theirs["fn"])
        for site, sign in self._factors():
            name = sites.full_site_name(self.model_trace, site["name"])
            if name not in exact and sites.in_plate(site, self.plate):
                part = sign * self._by_row(site)
                found[name] = found[name] + part if name in found else part
        return {name: found[name] for name in self._order() if name in found}

    def global_terms(self) -> dict[str, Tensor]:
        """The ELBO of every site outside the row plate: ``{site: (particles,)}``, in nats."""
        found: dict[str, Tensor] = {}
        for site, sign in self._factors():
            if not sites.in_plate(site, self.plate):
                value = _log_prob(site).expand(site["fn"].batch_shape)
                value = sign * value.sum_to_size(self._particles(site))
                name = site["name"]
                found[name] = found.get(name, 0) + value.flatten()
        return found

    def _particles(self, site: sites.Site) -> tuple[int, ...]:
        """Shape that keeps the particles of a site outside the row plate alone."""
        shape = list(site["fn"].batch_shape)
        kept = None if self.dim is None or len(shape) < -self.dim else len(shape) + self.dim
        return tuple(size if i == kept else 1 for i, size in enumerate(shape))

    def _order(self) -> list[str]:
        """Names of all sites, likelihoods last."""
        both = {**sites.sample_sites(self.guide_trace), **sites.sample_sites(self.model_trace)}
        likelihoods = ("data", "deterministic")  # "x" of an ``obs_mask`` is deterministic
        return sorted(both, key=lambda name: sites.role(both[name]) in likelihoods)

    def _factors(self) -> Iterator[tuple[sites.Site, int]]:
        """Every factor of the weight: a site and 1, or a proposal of the guide's and -1."""
        ours, theirs = sites.sample_sites(self.model_trace), sites.sample_sites(self.guide_trace)
        for name, site in ours.items():
            if sites.role(site) == "deterministic":
                continue
            if site["is_observed"] or name in theirs or name in self._summed(self.model_trace):
                yield site, 1
        for name, site in theirs.items():
            if not site["is_observed"]:
                if name not in ours:
                    self._check_transformed(name)
                yield site, -1

    def _check_transformed(self, name: str) -> None:
        """Raise where a draw of the guide's alone is not what a latent of the model is made of."""
        theirs = sites.sample_sites(self.guide_trace)
        auxiliary = sites.role(theirs[name]) == "auxiliary"
        if not (auxiliary and any(isinstance(site["fn"], Delta) for site in theirs.values())):
            raise ValueError(
                f'site "{name}": expected the guide to draw latents of the model, got a draw that '
                "the model has not: weights would count its density with nothing against it; draw "
                "it in the model too"
            )

    @staticmethod
    def _summed(trace: Trace) -> set[str]:
        """Names of the sites that were summed where they stand."""
        found = sites.sample_sites(trace).items()
        return {name for name, site in found if site["infer"].get("_enumerate_dim") is not None}

    def _by_row(self, site: sites.Site) -> Tensor:
        return self._fold(_log_prob(site), site["fn"])

    def _fold(self, values: Tensor, fn: Any) -> Tensor:
        """Sum over all dimensions but particles and rows: (particles or 1, rows)."""
        values = values.expand(fn.batch_shape)
        shape = values.shape
        has_particles = self.dim is not None and len(shape) >= -self.dim
        lead = shape[0] if has_particles else 1
        return values.reshape(lead, -1, shape[-1]).sum(1)

    # With latents that are summed: tensors that name their dimensions, as Pyro packs them

    def _summed_out(self, factors: list[tuple[sites.Site, int]]) -> Tensor:
        """Log sum over y of the product of all factors in the row plate."""
        self._name_dims()
        proposed = self._summed(self.guide_trace)
        factors = [
            (site, sign)
            for site, sign in factors
            if sites.in_plate(site, self.plate) and not (sign < 0 and site["name"] in proposed)
        ]
        contracted = self._contract(factors, self._symbols())
        return self._total([self._rows_of(term) for term in contracted])

    def _expected_terms(self) -> dict[str, Tensor]:
        self._name_dims()
        in_model = self._summed(self.model_trace) - set(self.guide_trace.nodes)
        symbols = {_symbol(self.model_trace, name) for name in in_model}
        found: dict[str, list[Tensor]] = {}
        together: list[tuple[sites.Site, int]] = []
        for site, sign in self._factors():
            if sites.in_plate(site, self.plate):
                factor = self._pack(site, sign)
                if symbols & set(named_dims(factor)):
                    together.append((site, sign))
                else:
                    found.setdefault(site["name"], []).append(self._expected(factor))
        if together:
            joined = " + ".join(dict.fromkeys(site["name"] for site, _ in together))
            contracted = self._contract(together, symbols)
            found[joined] = [self._expected(term) for term in contracted]
        return {name: self._total(parts) for name, parts in found.items()}

    def _total(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)

    def _name_dims(self) -> None:
        """Give each dimension its symbol, the same in both traces."""
        for trace in (self.model_trace, self.guide_trace):
            for name in self._summed(trace):
                if not sites.in_plate(trace.nodes[name], self.plate):
                    raise ValueError(
                        f'site "{name}": expected latents that are summed to stand in the row '
                        f'plate "{self.plate}", got one outside; rows have no weights of their own'
                    )
        self.guide_trace.symbolize_dims()
        self.model_trace.symbolize_dims(self.guide_trace.plate_to_symbol)

    def _symbols(self) -> set[str]:
        """Symbols of all dimensions of summed latents."""
        traces = (self.model_trace, self.guide_trace)
        return {_symbol(trace, name) for trace in traces for name in self._summed(trace)}

    def _pack(self, site: sites.Site, sign: int) -> Any:
        """A factor with named dimensions; what sums a latent is not masked, that it sums to 1."""
        summed = site["infer"].get("_enumerate_dim") is not None
        log_prob = site["fn"].log_prob(site["value"]) if summed else _log_prob(site)
        return pack(sign * log_prob, site["infer"]["_dim_to_symbol"])

    def _contract(self, factors: list[tuple[sites.Site, int]], symbols: set[str]) -> list[Any]:
        tree: Any = OrderedDict()
        for site, sign in factors:
            frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
            plates = frozenset(self.model_trace.plate_to_symbol[frame.name] for frame in frames)
            tree.setdefault(plates, []).append(self._pack(site, sign))
        return [term for terms in contract_tensor_tree(tree, symbols).values() for term in terms]

    def _expected(self, cost: Any) -> Tensor:
        """Expectation of a cost under the latents that the guide sums, (particles or 1, rows)."""
        of_symbol = {
            _symbol(self.guide_trace, name): self.guide_trace.nodes[name]
            for name in self._summed(self.guide_trace)
        }
        pending, factors = [d for d in named_dims(cost) if d in of_symbol], {}
        while pending:  # a latent's probability depends on the latents before it
            symbol = pending.pop()
            if symbol not in factors:
                factors[symbol] = self._pack(of_symbol[symbol], 1)
                pending += [d for d in named_dims(factors[symbol]) if d in of_symbol]
        if not factors:
            return self._rows_of(cost)
        values = packed.broadcast_all(cost, *factors.values())
        chance = torch.stack(values[1:]).sum(0).exp()
        terms = (chance * values[0].masked_fill(chance <= 0, 0.0)).clone()
        return self._rows_of(name_dims(terms, named_dims(values[0])))

    def _rows_of(self, term: Any) -> Tensor:
        """Sum over all named dimensions but particles and rows: (particles or 1, rows)."""
        symbols = self.model_trace.plate_to_symbol
        dims = named_dims(term)
        kept = (symbols.get(Particles.NAME), symbols.get(self.plate))
        wanted = [symbol for symbol in kept if symbol is not None and symbol in dims]
        rest = [i for i, d in enumerate(dims) if d not in wanted]
        order = [dims.index(d) for d in wanted]
        term = term.permute((*order, *rest))
        values: Tensor = term.sum(dim=tuple(range(len(order), len(dims)))) if rest else term
        if symbols.get(self.plate) not in wanted:  # one row
            values = values.unsqueeze(-1)
        return values.reshape(-1, values.shape[-1]).expand(-1, self.rows)


def draw_particles(
    pair: Pair,
    batch: Batch,
    *,
    count: int | None,
    nesting: int,
    shared: bool = False,
    handler: Messenger | None = None,
) -> Draw:
    """Run the guide and the model on it.

    Args:
        pair: The pair.
        batch: The rows.
        count: P, particles in one run, along a dimension left of the plates; ``None`` is one
            particle without a dimension.
        nesting: Dimensions of the pair's plates.
        shared: Whether all particles share one draw of the latents outside the row plate.
        handler: Acts on the guide's draws.
    """
    dim = None if count is None else -1 - nesting
    guide: Any = pair.guide
    model: Any = pair.model
    left: Any = lambda half: half  # noqa: E731
    if count is not None and dim is not None:
        left = Particles(count, dim, pair.plate if shared else None)
    first = -1 - nesting if dim is None else dim - 1
    guide = EnumMessenger(first_available_dim=first)(EnumerateInParallel()(left(guide)))
    model = EnumMessenger()(EnumerateInParallel()(left(model)))
    with handler or contextlib.nullcontext():  # around the trace, which sees what it leaves
        guide_trace = poutine.trace(guide).get_trace(batch)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(batch)
    rows = len(next(iter(batch.values() if isinstance(batch, dict) else batch)))
    return Draw(model_trace, guide_trace, pair.plate, dim, rows)


def can_vectorize(pair: Pair, batch: Batch, nesting: int) -> bool:
    """Whether particles may be drawn in one run: each by itself must have the same weights.

    Networks that do not act on the last dimensions alone (batch normalization, convolutions,
    a ``view``) fail here, loudly or in silence. Where a half cannot be run on given values (a flow
    without an inverse), nothing can be said, and it may.
    """
    try:
        together = draw_particles(pair, batch, count=3, nesting=nesting)
        weights = together.log_weights()
        weights = weights.expand(3, -1)
    except Exception:  # whatever a network says to one more dimension
        return False
    drawn = {**sites.sample_sites(together.model_trace), **sites.sample_sites(together.guide_trace)}
    for particle in range(3):
        values = {
            name: select_particle(site["value"], site, particle, nesting)
            for name, site in drawn.items()
            if not site["is_observed"] and site["infer"].get("_enumerate_dim") is None
        }
        try:
            with Substitute(values):
                alone = draw_particles(pair, batch, count=None, nesting=nesting).log_weights()[0]
        except KeyError:
            return True
        if not torch.allclose(alone, weights[particle], 1e-3, 1e-3, equal_nan=True):
            return False
    return True


def select_particle(
    value: Tensor, site: sites.Site, particle: int, nesting: int, event_dim: int | None = None
) -> Tensor:
    """What one particle has at a site, laid out as without the particles' dimension.

    Args:
        value: The site's value, or what is shaped like it.
        site: The site, of a run with particles.
        particle: Which one.
        nesting: Dimensions of the pair's plates.
        event_dim: Dimensions of one event in ``value``; the site's own by default.
    """
    event = site["fn"].event_dim if event_dim is None else event_dim
    position = value.ndim - event - 1 - nesting
    if position < 0:  # drawn once for all
        return value
    value = value.select(position, particle if value.shape[position] > 1 else 0)
    own = [
        f.dim for f in site["cond_indep_stack"] if f.name != Particles.NAME and f.dim is not None
    ]
    kept = value.shape[value.ndim - event - max((-dim for dim in own), default=0) :]
    return value.reshape(kept) if value.numel() == kept.numel() else value  # else: summed along


def _symbol(trace: Trace, name: str) -> str:
    """Of the dimension that a latent is summed along."""
    site: sites.Site = trace.nodes[name]
    symbol: str = site["infer"]["_enumerate_symbol"]
    return symbol


def _log_prob(site: sites.Site) -> Tensor:
    """Unscaled log-probability, masked cells left out."""
    value: Tensor = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
    return value
