"""How much each latent tells of which row it belongs to, and how far its values are from the prior.

    KL_i = mean over n of KL(q(z_i given x_n), p(z_i)) = I_i + M_i          n = 1 ... N rows
    I_i  = mean over n of KL(q(z_i given x_n), q(z_i))                      mutual information
    M_i  = KL(q(z_i), p(z_i)),     q(z_i) = 1/N sum_n q(z_i given x_n)      the aggregate posterior

I_i is the mutual information of z_i and the number n of a row; it is log N at most. For discrete
latents all three are sums over the categories. For others I_i is an average over draws of the
guide, with q(z_i) at each draw from the densities under all N rows. KL_i is in closed form where
there is one, else an average over the same draws; M_i is their difference.

Source: Hoffman & Johnson (2016), ELBO surgery, NIPS workshop on advances in approximate Bayesian
inference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pyro.distributions import Independent, TransformedDistribution
from torch import Tensor

from ppl_vae.elbo.importance_weights import latent_groups
from ppl_vae.latents.latent_runs import LatentRun, path_of, probabilities_of

NUMBERS = 1 << 22
"""Densities that are computed at once."""

PAIRS = 1 << 20
"""Most pairs of a draw and a row whose density is the search for an inverse."""

SAME = 0.01
"""Nats by which the guide's densities in two runs differ on average, up to rounding."""

FAULTS = (NotImplementedError, KeyError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Information:
    """What one latent tells of the rows, (groups,) each, in nats; NaN where it is not known.

    Attributes:
        kl: KL divergence of the guide from the prior, averaged over the rows.
        mutual_information: Of the latent and the number of the row.
        error: Standard error of the mutual information over the rows.
        marginal_kl: KL divergence of the aggregate posterior from the prior.
        notes: Why a number is not known, or what the numbers are given.
    """

    kl: np.ndarray
    mutual_information: np.ndarray
    error: np.ndarray
    marginal_kl: np.ndarray
    notes: list[str] = field(default_factory=list)


class RunsOfLatent:
    """The runs of a pair as they concern one latent, and the information in them.

    Args:
        name: The latent's site.
        point: Whether the guide gives the latent as a point.
        sums: Whether the model sums a latent that the guide does not draw.
    """

    def __init__(self, name: str, *, point: bool, sums: bool) -> None:
        self.name, self.point, self.sums = name, point, sums
        self._values: list[Tensor] = []  # draws, (..., rows, event), as ``source`` has them
        self._kl: list[Tensor] = []
        self._probabilities: Any = 0.0
        self._count, self._depends = 0, False

    def add(self, run: LatentRun, *, keep: bool) -> None:
        """Take one more run of the pair; ``keep`` its draw and its KL divergence."""
        probabilities = probabilities_of(run.fn, run.value)
        if not self._count:
            self._first, self._discrete = run, probabilities is not None
            if run.draw is not None and not self.point and probabilities_of(run.prior) is None:
                self._discrete = False  # a prior of whole vectors: one KL divergence for all
        elif not self._depends:
            self._depends = _differs(self._first, run)
        self._count += 1
        if probabilities is not None:
            self._probabilities = self._probabilities + probabilities
        if not keep:
            return
        if run.source is not None:
            self._values.append(run.source[1])
        if run.draw is not None and not self.point:
            self._kl.append(self._kl_of(run, probabilities))

    def result(self, *, varies: bool, told: Callable[[int], object]) -> Information:
        """Return the information of the latent.

        Args:
            varies: Whether the prior differs from row to row.
            told: Is called with the number of rows that are done.
        """
        kl, notes = self._mean_kl(), []
        unknown, summed = np.full(len(kl), math.nan), self._first.draw is None
        if self.point:
            notes.append("the guide gives a point, which has no KL divergence")
        elif varies and (summed or self.sums):
            kl = unknown
            notes.append("its prior depends on a latent that the model sums: no KL divergence")
        elif varies:
            notes.append("its prior differs from row to row: no marginal KL")
        if summed and self._depends:
            notes.append(
                f"its probabilities are averaged over {self._count} draws of other latents"
            )
        why = self._why_unknown()
        if why:
            return Information(kl, unknown, unknown, unknown, [*notes, why])
        terms = self._terms_of_categories() if self._discrete else self._terms_of_draws(told)
        information = terms.mean(0)
        error = terms.std(0, correction=1) / len(terms) ** 0.5
        if not bool(information.isfinite().all()):
            notes.append("its density at other rows' draws is not finite: no mutual information")
        marginal = unknown if varies else kl - information.cpu().numpy()
        return Information(kl, information.cpu().numpy(), error.cpu().numpy(), marginal, notes)

    def _kl_of(self, run: LatentRun, probabilities: Tensor | None) -> Tensor:
        """Return the KL divergences of one run, averaged over the rows, (groups,)."""
        assert run.draw is not None
        if self._discrete and probabilities is not None:
            prior = probabilities_of(run.prior)
            if prior is not None and prior.shape[1:] == probabilities.shape[1:]:
                return _divergence(probabilities, prior).mean(0)
            return torch.full_like(probabilities[0, :, 0], math.nan)
        if run.source is not None and run.source[0] is not run.fn:  # of an autoguide
            names = [names for names in run.draw.terms() if names[0] in (self.name, _name(run))]
            return -sum((run.draw.terms()[n].mean() for n in names), torch.zeros(())).reshape(1)
        groups = latent_groups(run.draw, self.name)
        return groups if _by_dimension(run) else groups.sum().reshape(1)

    def _mean_kl(self) -> np.ndarray:
        """Return the KL divergences, (groups,); NaN where they are not known."""
        if self._kl:
            found: np.ndarray = torch.stack(self._kl).mean(0).double().cpu().numpy()
            return found
        if not self._discrete:
            return np.full(1, math.nan)
        mean = self._probabilities / self._count
        prior = probabilities_of(self._first.prior)
        if self.point or prior is None or prior.shape[1:] != mean.shape[1:]:
            return np.full(mean.shape[1], math.nan)
        return np.asarray(_divergence(mean, prior).mean(0).cpu().numpy())

    def _why_unknown(self) -> str | None:
        """Return why the mutual information is not known; ``None`` where it is."""
        first = self._first
        rows_differ = "have different lengths" if path_of(first.fn) else "hide different cells"
        reasons = {
            "it is a vector that the model sums": first.draw is None and not self._discrete,
            "its points have no density": self.point and not self._discrete,
            f"the rows {rows_differ}": not bool(first.cells.all()),
            "the guide draws it together with others": first.draw and first.source is None,
            "the guide draws it given another latent": first.draw and self._depends,
        }
        found = [reason for reason, holds in reasons.items() if holds]
        if not found and not self._discrete:
            try:
                self._density(self._values[0], slice(0, 2))
            except FAULTS:
                found = ["the guide has no density at other rows' draws"]
        return f"{found[0]}: no mutual information of the latent and the row" if found else None

    def _terms_of_categories(self) -> Tensor:
        """Return KL(q(y given x_n), q(y)) of each row, (rows, variables), in nats."""
        each = self._probabilities / self._count
        return _divergence(each, each.mean(0, keepdim=True))

    def _terms_of_draws(self, told: Callable[[int], object]) -> Tensor:
        """Return log q(z given x_n) - log q(z), averaged over the draws z of a row, (rows, groups).

        Where a density takes the search for an inverse, some rows stand for all.
        """
        first, rows = self._first, self._first.draw.rows  # type: ignore[union-attr]
        values, index = self._values, torch.arange(rows)
        size = NUMBERS // (rows * max(1, self._values[0].numel() // rows))
        if isinstance(_bare(first.fn), TransformedDistribution):
            values, size = values[:1], size // 16
            index = index[:: max(1, math.ceil(rows * rows / PAIRS))]
        total: Any = 0.0
        for value in values:
            parts = []
            for start in range(0, len(index), max(1, size)):
                chosen = index[start : start + max(1, size)]
                log_prob = self._density(value, chosen)  # (chosen, rows, groups)
                own = log_prob[torch.arange(len(chosen)), chosen]
                parts.append(own - log_prob.logsumexp(1) + math.log(rows))
            total = total + torch.cat(parts)
            told(rows)
        told(rows * (len(self._values) - len(values)))
        terms: Tensor = total / len(values)
        return terms

    def _density(self, value: Tensor, chosen: Any) -> Tensor:
        """Return the density of some rows' draws under every row, (chosen, rows, groups), in nats.

        Args:
            value: The draws of all rows.
            chosen: The rows whose draws are looked at.
        """
        assert self._first.source is not None
        fn = self._first.source[0]
        axis = -1 - fn.event_dim
        draws = value.movedim(axis, 0)[chosen].unsqueeze(axis)  # (chosen, plates, 1, event)
        if _by_dimension(self._first):
            log_prob = fn.base_dist.log_prob(draws).movedim(axis, 1)  # (chosen, rows, ...)
            by_dimension: Tensor = log_prob.flatten(2).double()
            return by_dimension
        shape = [*draws.shape]
        shape[axis] = value.shape[axis]
        log_prob = fn.log_prob(draws.expand(shape)).double()  # (chosen, plates, rows)
        whole: Tensor = log_prob.reshape(len(log_prob), -1, log_prob.shape[-1]).sum(1)
        return whole[..., None]


def _by_dimension(run: LatentRun) -> bool:
    """Return whether the numbers of a latent are independent, for the guide and for the prior."""
    if run.source is None or run.source[0] is not run.fn:
        return False
    fns = run.fn, run.prior
    independent = all(isinstance(fn, Independent) and not fn.base_dist.event_dim for fn in fns)
    return independent and len({fn.reinterpreted_batch_ndims for fn in fns}) == 1


def _bare(fn: Any) -> Any:
    """Return what a distribution is inside ``Independent``."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def _name(run: LatentRun) -> str:
    """Return the name of the auxiliary site of an autoguide that a latent is computed from."""
    assert run.draw is not None
    source = run.source and run.source[0]
    nodes = run.draw.guide_trace.nodes.items()
    return next((name for name, node in nodes if node.get("fn") is source), "")


def _differs(first: LatentRun, run: LatentRun) -> bool:
    """Return whether the guide's distribution of a latent differs between two runs.

    It does where the guide computes the distribution from something that it has drawn.
    """
    probabilities = [probabilities_of(each.fn, each.value) for each in (first, run)]
    if probabilities[0] is not None and probabilities[1] is not None:
        return bool((probabilities[0] - probabilities[1]).abs().mean() > SAME / 10)
    if first.source is None or run.source is None:
        return False
    value = first.source[1]
    try:
        gap = run.source[0].log_prob(value) - first.source[0].log_prob(value)
    except FAULTS:  # said later, as the density is not known
        return False
    return bool(gap.abs().nan_to_num(0.0).mean() > SAME)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return the KL divergence of categories, summed over the last dimension, in nats."""
    divergence: Tensor = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)
    return divergence
