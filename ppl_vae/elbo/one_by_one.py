"""Latents of the guide that are summed one value at a time, in one run of the pair for each value.

    y  discrete latents of the guide with ``infer={"enumerate": "sequential"}``
    z  the drawn latents, which may depend on y

    log w  = log sum_y p(x, y, z_y) / q(z_y given y, x)          (particles, rows), in nats
    E_q[c] = sum_y q(y given x) c(y)                             (particles, rows)

A latent that is enumerated in parallel has all of its values in a tensor dimension of their own,
which a network that concatenates (``torch.cat([x, y], -1)``), or reads its dimensions from the
left, does not take. Here every run has one value of y in all rows, in the shape of a draw. Latents
that the guide draws before y, and those outside the row plate, have the same values in all runs.

This is right for latents in the row plate alone: rows do not depend on each other, so that the sums
of all rows are taken together. In a plate inside the rows, each place would need a sum of its own;
there, and beside a latent that the guide enumerates in parallel, "sequential" means parallel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.pair import Pair
from ppl_vae.data.rows import Batch
from ppl_vae.elbo.factors import SUMMED, refuse_kl_weight, total
from ppl_vae.elbo.importance_weights import Draw


class FixedValues(Messenger):
    """Handler that gives discrete latents one of their values in all rows, and marks them summed.

    Args:
        positions: ``{site: position}`` of each value in the latent's support.
    """

    def __init__(self, positions: Mapping[str, int]) -> None:
        super().__init__()
        self.positions = positions

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.positions and not msg["is_observed"]:
            values = msg["fn"].enumerate_support(expand=True)
            msg["value"], msg["done"] = values[self.positions[msg["name"]]], True
            infer = {key: value for key, value in msg["infer"].items() if key != "enumerate"}
            msg["infer"] = {**infer, SUMMED: True}


def values_one_by_one(pair: Pair, batch: Batch) -> dict[str, int]:
    """Return the guide's latents to be summed one value at a time, with their numbers of values.

    Args:
        pair: The pair. Call the function inside ``Pair.quiet_run``, so that the run that it needs
            leaves no trace.
        batch: A few rows.
    """
    guide_trace = poutine.trace(pair.guide).get_trace(batch)
    summed = [
        (name, site)
        for name, site in sites.sample_sites(guide_trace).items()
        if sites.is_enumerated(site) and site["infer"].get("num_samples") is None
    ]
    for _, site in summed:
        plates = [frame.name for frame in site["cond_indep_stack"] if frame.vectorized]
        if site["infer"]["enumerate"] != "sequential" or plates != [pair.plate]:
            return {}
    return {name: len(site["fn"].enumerate_support(expand=False)) for name, site in summed}


def combinations(values: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield every combination of values, ``{site: position}``.

    Example:
        >>> list(combinations({"y": 2}))
        [{'y': 0}, {'y': 1}]
    """
    for positions in itertools.product(*map(range, values.values())):
        yield dict(zip(values, positions, strict=True))


def shared_values(draw: Draw, summed: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the guide's draws that the runs for all values have in common, by site.

    They are the draws before the first latent that is summed, and those outside the row plate.
    """
    shared, before = {}, True
    for name, site in sites.sample_sites(draw.guide_trace).items():
        before = before and name not in summed
        drawn = not site["is_observed"] and name not in summed
        if drawn and (before or not sites.in_plate(site, draw.plate)):
            shared[name] = site["value"]
    return shared


@dataclass(frozen=True)
class SummedDraw(Draw):
    """The runs of a pair for all values of the summed latents; its traces are those of the first.

    Attributes:
        runs: One run for each combination of values.
        summed: Names of the summed latents.
    """

    runs: tuple[Draw, ...] = ()
    summed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, runs: list[Draw], summed: Mapping[str, int]) -> SummedDraw:
        """Return the draw that sums over some runs."""
        first = runs[0]
        return cls(
            first.model_trace, first.guide_trace, first.plate, first.dim, first.rows,
            first.excluded, tuple(runs), frozenset(summed),
        )  # fmt: skip

    @property
    def has_enumerated(self) -> bool:
        """Whether a latent was summed: always."""
        return True

    @property
    def draws_discrete(self) -> bool:
        """Whether a discrete site in the row plate was drawn in these runs, and not summed."""
        return any(run.draws_discrete for run in self.runs)

    def log_weights(self, kl_weight: Tensor | None = None, *, fixed_guide: bool = False) -> Tensor:
        """Return log sum_y p(x, y, z) / q(z given y, x), (particles or 1, rows), in nats.

        As where latents are enumerated in parallel, q(y given x) is left out, and a KL weight is
        refused.
        """
        refuse_kl_weight(kl_weight)
        weights = [
            replace(run, excluded=run.excluded | self.summed).log_weights(fixed_guide=fixed_guide)
            for run in self.runs
        ]
        return torch.stack(torch.broadcast_tensors(*weights)).logsumexp(0)

    def log_likelihoods(self) -> Tensor:
        """Return log sum_y p(x given y, z) q(y given x), (particles or 1, rows), in nats."""
        parts = [self._log_probability(run) + run.log_likelihoods() for run in self.runs]
        return torch.stack(torch.broadcast_tensors(*parts)).logsumexp(0)

    def terms(self, *, closed: bool = True) -> dict[tuple[str, ...], Tensor]:
        """Return the ELBO's terms, their expectations under q(y given x); see ``Draw.terms``.

        Where the probability of a value is 0, its terms count 0, even if they are infinite.
        """
        expected: dict[tuple[str, ...], list[Tensor]] = {}
        for run in self.runs:
            probability = self._log_probability(run).exp()
            for names, term in run.terms(closed=closed).items():
                weight, value = torch.broadcast_tensors(probability, term)
                part = weight * value.masked_fill(weight <= 0, 0.0)
                expected.setdefault(names, []).append(part)
        return {names: total(parts) for names, parts in expected.items()}

    def _log_probability(self, run: Draw) -> Tensor:
        """Return log q(y given x) of the values of a run, (particles or 1, rows)."""
        summed: list[sites.Site] = [run.guide_trace.nodes[name] for name in self.summed]
        return total([run.fold(site["fn"].log_prob(site["value"]), site["fn"]) for site in summed])
