"""One adapter for Pyro's ELBOs and the library's bounds, and the rule that chooses an ELBO.

    loss         -ELBO estimate at KL weight w, for the whole data set, in nats; its value counts
    surrogate    what is differentiated: its gradient estimates the gradient of the loss
    unweighted   loss + (1 - w) dloss/dw, the loss at w = 1

The loss is linear in w, because w multiplies the terms of the latent sites alone; so one derivative
gives the loss at w = 1, and no second run of the pair is needed.

Sources: Kingma & Welling (2014), arXiv:1312.6114 (sampled and closed-form KL);
Schulman et al. (2015), arXiv:1506.05254 (score function); Obermeyer et al. (2019),
arXiv:1902.03210 (enumeration).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import infer
from pyro.distributions import Delta
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.compat.of_pyro import (
    enumerated_elbo,
    particle_loss,
    particle_traces,
    pyro_log_silenced,
    surrogate_of_graph_elbo,
)
from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch
from ppl_vae.elbo import divergences as _registered  # noqa: F401  torch finds them from now on
from ppl_vae.elbo.log_sums import exact_sums_in_pyro

PYRO_ELBOS = (
    infer.TraceMeanField_ELBO, infer.TraceGraph_ELBO, infer.TraceEnum_ELBO, infer.Trace_ELBO,
)  # fmt: skip
COMPILED_BY_PYRO = (
    infer.JitTraceMeanField_ELBO, infer.JitTraceGraph_ELBO, infer.JitTraceEnum_ELBO,
    infer.JitTrace_ELBO,
)  # fmt: skip


class RowBound(ABC):
    """A bound formed row by row, from unscaled log-probabilities; see ``bounds``.

    Attributes:
        num_particles: Draws of the guide for each row.
        vectorize_particles: Whether all particles are drawn in one run of the pair.
    """

    num_particles: int
    vectorize_particles: bool

    @property
    @abstractmethod
    def estimates_elbo(self) -> bool:
        """Whether the training loss is minus the ELBO in expectation, at a KL weight of 1."""

    @abstractmethod
    def losses_and_surrogate(
        self, pair: Pair, batch: Batch, rows: int, kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return minus the ELBO, the training loss, and the surrogate to differentiate.

        Three scalars, in nats of the whole data set. The ELBO is the average log-weight, at a KL
        weight of 1 and without free bits; the training loss is what the surrogate's gradient is
        the gradient of.

        Args:
            pair: The pair.
            batch: The rows.
            rows: N, the number of rows of the data set that the batch stands for.
            kl_weight: The weight of the latent sites, a scalar; ``None`` is 1.
        """


@dataclass(frozen=True)
class Objective:
    """One of Pyro's ELBOs or of the library's bounds, and the reason why it was chosen.

    One of Pyro's ELBO objects remembers the plate nesting of the first pair that it met, so every
    fit has a copy of the user's object.

    Attributes:
        elbo: The ELBO or bound.
        reason: Why it was chosen, in words for the history.
        measure: What the pair's "ELBO" is: ``"ELBO"``, or ``"log joint density"`` where the guide
            gives a latent of the rows as a point.
        relaxes: Whether the guide draws a discrete latent relaxed in train mode, so that the
            training loss is no bound, and the ELBO needs a run in evaluation mode.
    """

    elbo: Any
    reason: str
    measure: str = "ELBO"
    relaxes: bool = False

    @classmethod
    def of(cls, elbo: infer.ELBO | RowBound, reason: str) -> Objective:
        """Return the objective of an ELBO that a user gave.

        Raises:
            ValueError: If the object is no ELBO, has no differentiable loss, or is no bound
                when it is estimated from a batch.

        Example:
            >>> Objective.of(infer.Trace_ELBO(num_particles=3), "asked for").name
            'Trace_ELBO'
        """
        if isinstance(elbo, type):
            raise ValueError(f"elbo: expected an instance, got a class; write {elbo.__name__}()")
        if isinstance(elbo, RowBound):
            return cls(copy.copy(elbo), reason)
        if not isinstance(elbo, infer.ELBO):
            raise ValueError(
                "elbo: expected one of Pyro's ELBOs, IWAE, RowELBO or FIVO, got "
                f"{type(elbo).__name__}"
            )
        if isinstance(elbo, infer.RenyiELBO):
            raise ValueError(
                "elbo: RenyiELBO applies a plate's N/B inside its logsumexp, so it is no bound "
                "in minibatches; use ppl_vae.IWAE(num_particles)"
            )
        if isinstance(elbo, infer.TraceTailAdaptive_ELBO):
            raise ValueError(
                "elbo: TraceTailAdaptive_ELBO has a gradient and no loss, so that there is no ELBO "
                "to report; use ppl_vae.IWAE(num_particles) or Trace_ELBO()"
            )
        if not isinstance(elbo, infer.TraceGraph_ELBO) and not hasattr(elbo, "differentiable_loss"):
            raise ValueError(
                f"elbo: {type(elbo).__name__} has no differentiable loss; expected Trace_ELBO, "
                "TraceMeanField_ELBO, TraceGraph_ELBO or TraceEnum_ELBO"
            )
        own = _own_methods(elbo)
        if "loss_and_grads" in own and "differentiable_loss" not in own:
            raise ValueError(
                f"elbo: {type(elbo).__name__} has its own loss_and_grads, which fit does not call; "
                "write the loss in differentiable_loss or in _differentiable_loss_particle"
            )
        return cls(_uncompiled(elbo), reason)

    @property
    def name(self) -> str:
        """Name of the ELBO's class."""
        return type(self.elbo).__name__

    @property
    def options(self) -> dict[str, Any]:
        """Settings of one of the library's bounds that are not ``None``; empty for Pyro's ELBOs.

        So a run of an older version, which knew fewer settings, goes on with the same bound.
        """
        if not isinstance(self.elbo, RowBound):
            return {}
        options = {name: value for name, value in vars(self.elbo).items() if name[0] != "_"}
        return {name: value for name, value in options.items() if value is not None}

    @property
    def is_derived(self) -> bool:
        """Whether the class derives from one of Pyro's ELBOs and may compute another loss."""
        return not isinstance(self.elbo, RowBound) and bool(_own_methods(self.elbo))

    @property
    def of_pyro(self) -> Objective:
        """The objective of Pyro's ELBO that a derived class derives from, else this objective."""
        if not self.is_derived:
            return self
        elbo = self.elbo
        base = next((c for c in type(elbo).__mro__ if c in PYRO_ELBOS), infer.Trace_ELBO)
        options = ("num_particles", "max_plate_nesting", "vectorize_particles")
        return Objective(
            base(**{name: getattr(elbo, name) for name in options}),
            self.reason, self.measure, self.relaxes,
        )  # fmt: skip

    @property
    def estimates_elbo(self) -> bool:
        """Whether the training loss is minus the ELBO in expectation, at a KL weight of 1.

        Of a class of the user's it is not known; a relaxed guide's loss is no bound at all.
        """
        if isinstance(self.elbo, RowBound):
            return self.elbo.estimates_elbo and not self.relaxes
        return not (self.is_derived or self.relaxes)

    @property
    def enumerates(self) -> bool:
        """Whether discrete latents are summed out where their sites ask for enumeration."""
        return isinstance(self.elbo, infer.TraceEnum_ELBO | RowBound)

    def loss_and_surrogate(
        self, model: Callable[..., Any], guide: Callable[..., Any], batch: Any
    ) -> tuple[Any, Any]:
        """Return the loss (the negative ELBO), to report, and the surrogate, to differentiate.

        Both are scalars in nats. They differ if differentiating the loss would give a wrong
        gradient: under ``TraceGraph_ELBO`` and ``Trace_ELBO``, if a site needs the score-function
        estimator.
        """
        with pyro_log_silenced(), exact_sums_in_pyro(self.elbo):
            return self._loss_and_surrogate(model, guide, batch)

    def _loss_and_surrogate(
        self, model: Callable[..., Any], guide: Callable[..., Any], batch: Any
    ) -> tuple[Any, Any]:
        """Return what ``loss_and_surrogate`` returns; Pyro may log its guess of the plates."""
        elbo = self.elbo
        if isinstance(elbo, infer.TraceGraph_ELBO):
            bound, surrogate = surrogate_of_graph_elbo(elbo, model, guide, batch)
            return torch.as_tensor(-bound), surrogate
        own = _own_methods(elbo)
        if not isinstance(elbo, infer.Trace_ELBO) or "differentiable_loss" in own:
            loss = elbo.differentiable_loss(model, guide, batch)
            return loss, loss
        loss = surrogate = torch.zeros(())
        for model_trace, guide_trace in particle_traces(elbo, model, guide, batch):
            value, part = particle_loss(elbo, model_trace, guide_trace)
            surrogate = surrogate + part
            if isinstance(elbo, infer.TraceMeanField_ELBO) and not own:
                value = part
            elif not own:
                value = guide_trace.log_prob_sum() - model_trace.log_prob_sum()
            loss = loss + value
        return loss / elbo.num_particles, surrogate / elbo.num_particles

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], batch: Any) -> Tensor:
        """Return the loss, a scalar in nats, without gradients.

        Pyro's own ``TraceEnum_ELBO.loss`` returns a number, which no traced step can follow, and
        is computed here from its traces. ``TraceMeanField_ELBO`` checks that every draw has a
        gradient, which a loss without gradients does not need: a relaxed guide draws discrete
        values in evaluation mode. So it runs without the check, on traces that were checked.
        """
        elbo = self.elbo
        with torch.no_grad(), pyro_log_silenced(), exact_sums_in_pyro(self.elbo):
            by_particle = isinstance(elbo, infer.TraceEnum_ELBO | infer.TraceMeanField_ELBO)
            if not by_particle or "loss" in _own_methods(elbo):
                return torch.as_tensor(elbo.loss(model, guide, batch))
            total = torch.zeros(())
            for traces in particle_traces(elbo, model, guide, batch):
                if isinstance(elbo, infer.TraceEnum_ELBO):
                    total = total - enumerated_elbo(*traces)
                    continue
                with pyro.validation_enabled(False):
                    total = total + particle_loss(elbo, *traces)[1]
            return torch.as_tensor(total / elbo.num_particles)


def loss_at_unit_weight(loss: Tensor, kl_weight: Tensor) -> Tensor:
    """Return the loss at a KL weight of 1: loss + (1 - w) dloss/dw, detached where w has a part.

    Args:
        loss: The loss at ``kl_weight``, a scalar, linear in it.
        kl_weight: The weight w, a scalar and a leaf that requires gradients.

    Example:
        >>> w = torch.tensor(0.25, requires_grad=True)
        >>> loss_at_unit_weight(3.0 + 8.0 * w, w).item()
        11.0
    """
    if not loss.requires_grad:
        return loss
    slope = torch.autograd.grad(loss, kl_weight, retain_graph=True, allow_unused=True)[0]
    return loss.detach() if slope is None else loss.detach() + (1 - kl_weight.detach()) * slope


def choose_objective(model_trace: Trace, guide_trace: Trace) -> Objective:
    """Return the objective that suits a pair, from the traces of one run.

    - ``TraceEnum_ELBO`` where a site asks for enumeration;
    - ``TraceGraph_ELBO`` (score function) where a site of the guide is not reparameterized;
    - ``TraceMeanField_ELBO`` (closed-form KL) where every latent has a KL divergence in closed form
      and the guide draws the latents in the model's order. In another order a latent's parent in
      the model may descend from that latent in the guide, and ``TraceMeanField_ELBO`` is then wrong
      without saying so;
    - ``Trace_ELBO`` (sampled KL) otherwise.

    Args:
        model_trace: Trace of the model.
        guide_trace: Trace of the guide.
    """
    model_sites, guide_sites = sites.sample_sites(model_trace), sites.sample_sites(guide_trace)
    for name, site in {**model_sites, **guide_sites}.items():
        if sites.is_enumerated(site):
            return Objective(infer.TraceEnum_ELBO(), f'site "{name}" asks for enumeration')
    for name, site in guide_sites.items():
        if not site["is_observed"] and not sites.is_reparameterized(site):
            return Objective(infer.TraceGraph_ELBO(), f'site "{name}" is not reparameterized')
    latents = list(sites.with_role(model_trace, "latent"))
    if not latents:
        return Objective(infer.Trace_ELBO(), "nothing is latent: maximum likelihood")
    if list(guide_sites) != latents:
        shared = [name for name in guide_sites if name in latents]
        why = (
            "the guide draws the latents in another order than the model"
            if sorted(shared) == sorted(latents) == sorted(guide_sites)
            else "the guide has auxiliary sites"
        )
        return Objective(infer.Trace_ELBO(), f"sampled KL: {why}")
    exact = closed_forms(model_trace, guide_trace)
    for name in latents:
        point = sites.point_of(guide_sites[name]["fn"])
        plain_point = point is not None and not has_log_density(point)
        if name not in exact and not plain_point:
            why = f'sampled KL: site "{name}" has none in closed form'
            return Objective(infer.Trace_ELBO(), why)
    why = "closed-form KL for every latent, drawn by the guide in the model's order"
    return Objective(infer.TraceMeanField_ELBO(), why)


def closed_forms(model_trace: Trace, guide_trace: Trace) -> set[str]:
    """Return the latents whose KL divergence in closed form may replace log q - log p.

    The set is empty unless the guide draws the model's latents in the model's order (see
    ``choose_objective``). A ``Delta`` is left out: its difference log q - log p is exact as it is,
    and the "KL divergence" that Pyro has for it ignores the log-density of a change of variables.
    """
    latents, proposed = sites.with_role(model_trace, "latent"), sites.sample_sites(guide_trace)
    if list(latents) != list(proposed):
        return set()
    return {n for n in latents if _has_closed_form(proposed[n]["fn"], latents[n]["fn"])}


def closed_form_kl(guide_fn: Any, model_fn: Any, device: torch.device | None = None) -> Tensor:
    """Return the KL divergence in closed form of two distributions of one shape, in nats.

    Pyro's divergence of distributions that ``.mask(False)`` hides whole is the Python number 0.0,
    which has no shape; so the result is made a tensor of the distributions' batch shape.

    Args:
        guide_fn: The guide's distribution.
        model_fn: The model's distribution.
        device: Device of the zeros for a distribution that is hidden whole.

    Returns:
        The divergence of the guide's distribution from the model's, of the batch shape.

    Raises:
        NotImplementedError: If torch and Pyro know no closed form.

    Example:
        >>> from pyro.distributions import Normal
        >>> closed_form_kl(Normal(1.0, 1.0).mask(False), Normal(0.0, 1.0).mask(False))
        tensor(0.)
    """
    kl = kl_divergence(guide_fn, model_fn)
    return kl if isinstance(kl, Tensor) else torch.zeros(guide_fn.batch_shape, device=device)


def has_log_density(point: Delta) -> bool:
    """Return whether a ``Delta`` has a log-density other than 0, as a change of variables has."""
    return bool((torch.as_tensor(point.log_density) != 0).any())


def _has_closed_form(guide_fn: Any, model_fn: Any) -> bool:
    """Return whether torch knows the KL divergence of two distributions of one shape."""
    if sites.point_of(guide_fn) is not None:
        return False
    if (guide_fn.batch_shape, guide_fn.event_shape) != (model_fn.batch_shape, model_fn.event_shape):
        return False
    try:
        closed_form_kl(guide_fn, model_fn)
    except NotImplementedError:
        return False
    return True


def _uncompiled(elbo: infer.ELBO) -> infer.ELBO:
    """Return a copy of an ELBO; one that Pyro compiles becomes the ELBO that it is compiled from.

    Pyro's compiled functions look the parameters up in the global store, by the names that the
    tracer met. A pair's parameters are not there, and ``fit`` compiles the step by itself.
    """
    plain = copy.copy(elbo)
    if type(elbo) in COMPILED_BY_PYRO:
        plain.__class__ = next(base for base in type(elbo).__mro__ if base in PYRO_ELBOS)
    return plain


def _own_methods(elbo: infer.ELBO) -> set[str]:
    """Return the names that the class of an ELBO defines beyond Pyro's own classes."""
    own: set[str] = set()
    for base in type(elbo).__mro__:
        if base in PYRO_ELBOS:
            break
        if base not in COMPILED_BY_PYRO:
            own |= vars(base).keys()
    return {name for name in own if not name.startswith("__")}
