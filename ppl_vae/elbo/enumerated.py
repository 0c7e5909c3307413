"""Sums over the values of enumerated latents: importance weights, and expectations under the guide.

    y  discrete latents that ask to be summed: ``infer={"enumerate": "parallel"}``
    z  the drawn latents, which may depend on y

    log w   = log sum_y p(x, y, z) / q(z given y, x)                     (particles, rows)
    E_q[c]  = sum_y q(y given x) c(y)                                    (particles, rows)
    p(y given x, z) = d log w / d log p(y)                               (rows, places, values)

How Pyro lays an enumerated latent out. An enumerated latent is not drawn. Pyro gives the site all
of its K values at once, in a tensor of shape (K, 1, ..., 1): the values lie along a dimension of
their own, left of the particles and of every plate. A site that depends on the latent then has a
log-probability for each of the K values, along that same dimension; other sites have size 1 there.

Why dimensions need names. Pyro uses the same position again for another latent once the first one
is out of reach (``pyro.markov``), so a position does not say which latent a dimension belongs to.
Pyro's answer is one letter, a symbol, for every latent and every plate. A packed tensor has no
dimension of size 1, and its attribute ``_pyro_dims`` spells the symbols of those that it has: "ba"
is a tensor over the latent "b" and the row plate "a". Model and guide must use the same symbols, so
the guide's trace is named first and its plates' symbols are handed to the model's trace.

How the sum is done. A tree sorts the packed factors by the plates that they stand in, and Pyro's
``contract_tensor_tree`` eliminates one symbol after another: it multiplies the factors that share
the symbol and adds over its values, so that the cost is that of the widest product, not of all
combinations of values. A factor in a plate inside the rows is first multiplied over that plate.

Why the result is one number per row. All enumerated latents must stand in the row plate (anything
else is refused), so that no sum ever joins two rows: the symbols of the particles and of the rows
are still there at the end.

What would break this: a release of Pyro that changes ``symbolize_dims``, ``pack`` or the attributes
``_pyro_dims``, ``_enumerate_dim``, ``_enumerate_symbol`` and ``_dim_to_symbol``, which are private.

How a latent that is summed out gets its posterior. Were the logarithm of p(y) raised by a small
number at one value of y, log w would rise by that number times p(y given x, z). So the gradient of
log w with respect to zeros that are added to log p(y) is the posterior of y, for all latents at
once: in a chain it is what the forward-backward algorithm computes. With maxima in the place of the
sums, the gradient is 1 along the most probable joint values, which Viterbi's algorithm finds; with
draws, along values that are drawn from their joint posterior (``log_draws``).

Sources: Obermeyer et al. (2019), Tensor variable elimination for plated factor graphs, sections 3
and 4, arXiv:1902.03210; Darwiche (2003), A differential approach to inference in Bayesian networks,
section 3 (gradients); Rabiner (1989), A tutorial on hidden Markov models, section III.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import Ring
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ppl_vae.compat.of_pyro import name_dims, named_dims
from ppl_vae.core import sites
from ppl_vae.core.handlers import Particles
from ppl_vae.elbo.configurations import support_values
from ppl_vae.elbo.factors import (
    Factor,
    OutsidePlateError,
    Packed,
    enumerated_names,
    latent_symbol,
    missing_plates,
    packed_factor,
    plate_fault,
    total,
)
from ppl_vae.elbo.log_sums import SumOfLogs


def marked_value(share: Tensor, site: sites.Site) -> Tensor:
    """Return the value of an enumerated latent that is marked, laid out as in a plain run.

    Args:
        share: 1 at the value and 0 elsewhere, from ``EnumeratedSum.posteriors``.
        site: The site; the row plate is at dim -1.
    """
    sizes = {frame.dim: frame.size for frame in site["cond_indep_stack"] if frame.vectorized}
    shape = [sizes.get(dim, 1) for dim in range(min(sizes), 0)]
    return support_values(site["fn"])[share.argmax(-1).movedim(0, -1).reshape(shape)]


class EnumeratedSum:
    """The sums over all values of the enumerated latents of one run of a pair.

    Args:
        model_trace: Trace of the model, replayed on the guide's draws.
        guide_trace: Trace of the guide.
        plate: Name of the row plate.
        rows: Rows of the batch.
        factors: All factors of the importance weight; those outside the row plate enter no sum.

    Raises:
        ValueError: If an enumerated latent stands outside the row plate, or a site that depends on
            an enumerated latent stands outside one of the latent's plates.
    """

    def __init__(
        self, model_trace: Trace, guide_trace: Trace, plate: str, rows: int, factors: list[Factor]
    ) -> None:
        self.model_trace, self.guide_trace = model_trace, guide_trace
        self.plate, self.rows = plate, rows
        self.factors = [f for f in factors if sites.in_plate(f.site, plate)]
        self._outside_rows = [f for f in factors if not sites.in_plate(f.site, plate)]
        self._in_model = enumerated_names(model_trace)
        self._in_guide = enumerated_names(guide_trace)
        self._name_dimensions()
        self._check_factors()

    def log_weights(self) -> Tensor:
        """Return log sum_y p(x, y, z) / q(z given y, x): (particles or 1, rows), in nats.

        The guide's own probability of an enumerated latent, q(y given x), is left out: the sum runs
        over every y, so that no y is more likely to be met than another and nothing has to be
        divided out.
        """
        factors = [f for f in self.factors if f.sign > 0 or f.site["name"] not in self._in_guide]
        symbols = {latent_symbol(self.model_trace, name) for name in self._in_model}
        symbols |= {latent_symbol(self.guide_trace, name) for name in self._in_guide}
        return total([self._by_row(term) for term in self._contract(factors, symbols)])

    def log_likelihoods(self) -> Tensor:
        """Return log sum_y p(x given y, z) q(y given x), (particles or 1, rows), in nats.

        A latent y that the model alone has is summed with its own probability p(y given z).
        """
        factors = []
        for factor in self.factors:
            name = factor.site["name"]
            if factor.sign < 0:
                factors += [Factor(factor.site, 1)] if name in self._in_guide else []
            elif sites.role(factor.site) in ("data", "factor") or name in self._own:
                factors.append(factor)
        symbols = {latent_symbol(self.model_trace, name) for name in self._in_model}
        symbols |= {latent_symbol(self.guide_trace, name) for name in self._in_guide}
        return total([self._by_row(term) for term in self._contract(factors, symbols)])

    @property
    def _own(self) -> set[str]:
        """Names of the latents that the model enumerates and the guide does not have."""
        return self._in_model - set(self.guide_trace.nodes)

    def terms(self) -> dict[tuple[str, ...], Tensor]:
        """Return the terms of the ELBO: ``{names of sites: (particles or 1, rows)}``, in nats.

        A factor that depends on no latent that the model alone enumerates is a term by itself,
        under its own name: its expectation under the guide. The factors that do depend on such a
        latent (its own probability and whatever follows it) cannot be told apart once the latent is
        summed out: they are one term, log sum_y of their product, under all of their names.
        """
        symbols = {latent_symbol(self.model_trace, name) for name in self._own}
        terms: dict[tuple[str, ...], list[Tensor]] = {}
        joint: list[Factor] = []
        for factor in self.factors:
            term = packed_factor(factor)
            if symbols & set(named_dims(term)):
                joint.append(factor)
            else:
                names = (factor.site["name"],)
                terms.setdefault(names, []).append(self._expectation(term))
        if joint:
            names = tuple(dict.fromkeys(factor.site["name"] for factor in joint))
            terms[names] = [self._expectation(term) for term in self._contract(joint, symbols)]
        return {names: total(parts) for names, parts in terms.items()}

    def _name_dimensions(self) -> None:
        """Give every dimension its symbol, the same in both traces; check the latents' plates."""
        enumerated_in = ((self.model_trace, self._in_model), (self.guide_trace, self._in_guide))
        for trace, names in enumerated_in:
            for name in names:
                if not sites.in_plate(trace.nodes[name], self.plate):
                    raise ValueError(
                        f'site "{name}": expected an enumerated latent to stand in the row plate '
                        f'"{self.plate}", got one outside it, where the rows have no weights of '
                        "their own; move it into the plate, or draw it"
                    )
        self.guide_trace.symbolize_dims()
        self.model_trace.symbolize_dims(self.guide_trace.plate_to_symbol)

    def _check_factors(self) -> None:
        """Raise if a factor depends on an enumerated latent without standing in all of its plates.

        Raises:
            OutsidePlateError: If ``missing_plates`` finds one.
        """
        for name, latent, plate in missing_plates(
            self.model_trace, self.guide_trace, [*self.factors, *self._outside_rows]
        ):
            problem, fix = plate_fault(latent, plate)
            raise OutsidePlateError(f'site "{name}": {problem}; {fix}')

    def posteriors(self, ring: Ring) -> dict[str, Tensor]:
        """Return the posterior of every latent that the model enumerates, given the row and z.

        Args:
            ring: How to sum. ``SumOfLogs`` gives the probabilities of each latent by itself;
                ``MaxOfLogs`` 1 at the most probable joint values of all of them and 0 elsewhere;
                ``DrawOfLogs`` 1 at joint values that are drawn from their posterior.

        Returns:
            ``{site: (rows, ..., values)}``, with the particles and the places of plates inside the
            rows, from left to right, between the rows and the values; NaN in a row that no value
            allows, and in one whose log-probability is not finite.
        """
        symbols = {latent_symbol(self.model_trace, name) for name in self._in_model}
        in_order = [name for name in self.model_trace.nodes if name in self._in_model]
        zeros = {name: self._zeros(name) for name in in_order}
        factors = [factor for factor in self.factors if factor.sign > 0]
        with torch.enable_grad():
            by_row = [self._by_row(term) for term in self._contract(factors, symbols, ring, zeros)]
            shares = torch.autograd.grad(total(by_row).sum(), list(zeros.values()))
        undefined = ~total(by_row).isfinite().T  # (rows, particles or 1)
        return {
            name: share.masked_fill(
                undefined.reshape(*undefined.shape, *[1] * (share.ndim - 2)), torch.nan
            )
            for name, share in zip(zeros, shares, strict=True)
        }

    def _zeros(self, name: str) -> Packed:
        """Return zeros to add to an enumerated latent's log-probability: (rows, ..., values)."""
        site: sites.Site = self.model_trace.nodes[name]
        frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
        frames.sort(key=lambda frame: (frame.name != self.plate, frame.dim))
        dims = [self.model_trace.plate_to_symbol[frame.name] for frame in frames]
        values = len(site["fn"].enumerate_support(expand=False))
        fitting = packed_factor(Factor(site, 1)).new_zeros(
            [*(frame.size for frame in frames), values]
        )
        named = name_dims(fitting, "".join(dims) + latent_symbol(self.model_trace, name))
        return named.requires_grad_()

    def _contract(
        self,
        factors: list[Factor],
        symbols: set[str],
        ring: Ring | None = None,
        added: Mapping[str, Packed] | None = None,
    ) -> list[Packed]:
        """Sum the product of the factors over the symbols' values; return the logarithm.

        Args:
            factors: The factors.
            symbols: The dimensions to sum over.
            ring: How to sum; exact sums by default.
            added: ``{site: numbers to add to its factor}``.

        Returns:
            Packed tensors, whose sum is the logarithm: one for each set of plates that factors are
            left in.
        """
        tree: Any = OrderedDict()
        for factor in factors:
            frames = [frame for frame in factor.site["cond_indep_stack"] if frame.vectorized]
            plates = frozenset(self.model_trace.plate_to_symbol[frame.name] for frame in frames)
            term = packed_factor(factor)
            if added and factor.site["name"] in added:
                both = packed.broadcast_all(term, added[factor.site["name"]])
                term = name_dims(both[0] + both[1], named_dims(both[0]))
            tree.setdefault(plates, []).append(term)
        summed = contract_tensor_tree(tree, symbols, ring=ring or SumOfLogs())
        return [term for terms in summed.values() for term in terms]

    def _expectation(self, term: Packed) -> Tensor:
        """Return sum_y q(y given x) term(y), y enumerated in the guide: (particles or 1, rows).

        The sum needs the probability of every latent that the term depends on, and of every latent
        that those probabilities depend on in turn. Where a probability is 0, the term counts 0,
        even if it is infinite there: 0 times infinity would be NaN.
        """
        site_of = {
            latent_symbol(self.guide_trace, name): self.guide_trace.nodes[name]
            for name in self._in_guide
        }
        pending, log_q = [symbol for symbol in named_dims(term) if symbol in site_of], {}
        while pending:
            symbol = pending.pop()
            if symbol not in log_q:
                log_q[symbol] = packed_factor(Factor(site_of[symbol], 1))
                pending += [other for other in named_dims(log_q[symbol]) if other in site_of]
        if not log_q:
            return self._by_row(term)
        values = packed.broadcast_all(term, *log_q.values())
        probability = torch.stack(values[1:]).sum(0).exp()
        weighted = (probability * values[0].masked_fill(probability <= 0, 0.0)).clone()
        return self._by_row(name_dims(weighted, named_dims(values[0])))

    def _by_row(self, term: Packed) -> Tensor:
        """Sum over every dimension but particles and rows: (particles or 1, rows).

        Packing drops the row plate's dimension where the batch has a single row; it is put back.
        """
        symbol_of = self.model_trace.plate_to_symbol
        dims, row_symbol = named_dims(term), symbol_of.get(self.plate)
        leading = [s for s in (symbol_of.get(Particles.NAME), row_symbol) if s and s in dims]
        others = [i for i, symbol in enumerate(dims) if symbol not in leading]
        term = term.permute((*(dims.index(symbol) for symbol in leading), *others))
        values: Tensor = term.sum(dim=tuple(range(len(leading), len(dims)))) if others else term
        if row_symbol not in leading:
            values = values.unsqueeze(-1)
        return values.reshape(-1, values.shape[-1]).expand(-1, self.rows)
