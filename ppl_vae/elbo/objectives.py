"""Pyro's ELBOs behind one adapter, and the rule that chooses among them.

    loss            -ELBO estimate with KL weight w, for the whole data set, in nats
    surrogate       what is differentiated: its gradient estimates that of the loss
    unweighted      loss + (1 - w) dloss/dw: the loss is linear in w, so w = 1 costs no second run

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

import torch
from pyro.infer import (
    ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.compat import particle_loss, particle_traces, surrogate_of_graph_elbo
from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch

Run = Callable[..., Any]


class RowBound(ABC):
    """A bound formed row by row, from unscaled log-probabilities; see ``bounds``.

    Attributes:
        num_particles: Draws of the guide for each row.
        vectorize_particles: Whether they are drawn in one run.
    """

    num_particles: int
    vectorize_particles: bool

    @abstractmethod
    def loss_and_surrogate(
        self, pair: Pair, batch: Batch, rows: int, kl_weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Loss at a KL weight of 1, and what is differentiated, for a data set of ``rows``."""


@dataclass(frozen=True)
class Objective:
    """An ELBO of Pyro's or a bound of ours, private to one fit, and the reason it is the one.

    An ELBO object remembers the plate nesting of the first pair it saw, so each fit has a copy.
    """

    elbo: Any
    reason: str

    @classmethod
    def of(cls, elbo: ELBO | RowBound, reason: str) -> Objective:
        """Adapt a user's ELBO.

        Raises:
            ValueError: Where it is none of Pyro's or ours, or no bound in minibatches.
        """
        if isinstance(elbo, type):
            raise ValueError(f"elbo: expected an instance, got a class; write {elbo.__name__}()")
        if isinstance(elbo, RowBound):
            return cls(copy.copy(elbo), reason)
        if not isinstance(elbo, ELBO):
            raise ValueError(
                f"elbo: expected one of Pyro's ELBOs, IWAE or RowELBO, got {type(elbo).__name__}"
            )
        if isinstance(elbo, RenyiELBO):
            raise ValueError(
                "elbo: RenyiELBO applies a plate's N/B inside its logsumexp, so it is no bound "
                "in minibatches; use ppl_vae.IWAE(num_particles)"
            )
        if not isinstance(elbo, TraceGraph_ELBO) and not hasattr(elbo, "differentiable_loss"):
            raise ValueError(
                f"elbo: {type(elbo).__name__} has no differentiable loss; expected Trace_ELBO, "
                "TraceMeanField_ELBO, TraceGraph_ELBO or TraceEnum_ELBO"
            )
        return cls(copy.copy(elbo), reason)

    @property
    def name(self) -> str:
        """The ELBO's class."""
        return type(self.elbo).__name__

    @property
    def options(self) -> dict[str, Any]:
        """Settings of a bound of ours, beyond its particles, as JSON can hold them."""
        if not isinstance(self.elbo, RowBound):
            return {}
        return {name: value for name, value in vars(self.elbo).items() if name[0] != "_"}

    @property
    def enumerates(self) -> bool:
        """Whether discrete latents that ask for it are summed out."""
        return isinstance(self.elbo, TraceEnum_ELBO | RowBound)

    def loss_and_surrogate(self, model: Run, guide: Run, batch: Any) -> tuple[Any, Any]:
        """Loss, whose value counts, and surrogate, whose gradient counts: two scalars."""
        elbo = self.elbo
        if isinstance(elbo, TraceGraph_ELBO):
            bound, surrogate = surrogate_of_graph_elbo(elbo, model, guide, batch)
            return -bound, surrogate
        if not isinstance(elbo, Trace_ELBO):
            loss = elbo.differentiable_loss(model, guide, batch)
            return loss, loss
        closed_form = isinstance(elbo, TraceMeanField_ELBO)
        loss = surrogate = torch.zeros(())
        for model_trace, guide_trace in particle_traces(elbo, model, guide, batch):
            part = particle_loss(elbo, model_trace, guide_trace)
            surrogate = surrogate + part
            sampled = not closed_form
            loss = loss + (
                guide_trace.log_prob_sum() - model_trace.log_prob_sum() if sampled else part
            )
        return loss / elbo.num_particles, surrogate / elbo.num_particles

    def loss(self, model: Run, guide: Run, batch: Any) -> float:
        """Loss alone, without gradients."""
        with torch.no_grad():
            return float(self.elbo.loss(model, guide, batch))


def loss_at_unit_weight(loss: Tensor, kl_weight: Tensor) -> Tensor:
    """The loss at a KL weight of 1, from the loss at any weight (a leaf that needs gradients)."""
    if not loss.requires_grad:
        return loss
    slope = torch.autograd.grad(loss, kl_weight, retain_graph=True, allow_unused=True)[0]
    return loss.detach() if slope is None else loss.detach() + (1 - kl_weight.detach()) * slope


def choose_objective(model_trace: Trace, guide_trace: Trace) -> Objective:
    """The objective that fits a pair, from one run of it.

    Enumeration where a site asks for it; a score function where a site is not reparameterized;
    closed-form KL where every latent has one and the guide draws the latents in the model's
    order (then no latent's model parent can descend from it in the guide, which is where
    ``TraceMeanField_ELBO`` is wrong in silence); sampled KL otherwise.
    """
    model_sites, guide_sites = sites.sample_sites(model_trace), sites.sample_sites(guide_trace)
    for name, site in {**model_sites, **guide_sites}.items():
        if sites.is_enumerated(site):
            return Objective(TraceEnum_ELBO(), f'site "{name}" asks for enumeration')
    for name, site in guide_sites.items():
        if sites.role(site) in ("latent", "auxiliary") and not sites.is_reparameterized(site):
            return Objective(TraceGraph_ELBO(), f'site "{name}" is not reparameterized')
    latents = list(sites.with_role(model_trace, "latent"))
    if not latents:
        return Objective(Trace_ELBO(), "nothing is latent: maximum likelihood")
    if list(guide_sites) != latents:
        shared = [name for name in guide_sites if name in latents]
        why = (
            "the guide draws the latents in another order than the model"
            if sorted(shared) == sorted(latents) == sorted(guide_sites)
            else "the guide has auxiliary sites"
        )
        return Objective(Trace_ELBO(), f"sampled KL: {why}")
    exact = closed_forms(model_trace, guide_trace)
    for name in latents:
        if name not in exact:
            return Objective(Trace_ELBO(), f'sampled KL: site "{name}" has none in closed form')
    return Objective(
        TraceMeanField_ELBO(),
        "closed-form KL for every latent, drawn by the guide in the model's order",
    )


def closed_forms(model_trace: Trace, guide_trace: Trace) -> set[str]:
    """Latents whose KL divergence may stand for log p - log q: none, or those where torch knows it.

    None unless the guide draws the model's latents in the model's order.
    """
    latents, theirs = sites.with_role(model_trace, "latent"), sites.sample_sites(guide_trace)
    if list(latents) != list(theirs):
        return set()
    return {n for n in latents if _has_closed_form(theirs[n]["fn"], latents[n]["fn"])}


def _has_closed_form(guide_fn: Any, model_fn: Any) -> bool:
    if (guide_fn.batch_shape, guide_fn.event_shape) != (model_fn.batch_shape, model_fn.event_shape):
        return False
    try:
        kl_divergence(guide_fn, model_fn)
    except NotImplementedError:
        return False
    return True
