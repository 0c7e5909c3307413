"""The exact gradient of the ELBO, by a sum over all configurations of the discrete latents.

    g   = d/d(theta, phi) sum_y q(y given x) [log p(x, y) - log q(y given x)]     per row

Every discrete latent of the guide is enumerated, whether it asks for it or not, in evaluation mode,
where a relaxed guide is discrete. Beside continuous latents, which are drawn, the sum has noise
left: it is then the mean over draws, with its variance.

Rows do not depend on each other, so the gradient is taken in blocks of rows, which bound the
memory. The blocks also tell how much the gradient varies from batch to batch.

Source: Obermeyer et al. (2019), arXiv:1902.03210 (enumeration).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.core import sites
from ppl_vae.core.handlers import scale_of_plates
from ppl_vae.core.supports import is_discrete
from ppl_vae.data.rows import Batch, batch_rows, map_batch
from ppl_vae.elbo.configurations import inner_plates, is_summed_by_place, joint_configurations
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective
from ppl_vae.elbo.relaxations import relaxed_latents
from ppl_vae.evaluation.gradient_draws import Estimator, Groups, Moments

MOST_CONFIGURATIONS = 2**14
"""Most joint configurations of a row's latents that are summed."""

AT_ONCE = 2**17  # configurations of all rows in a block, which bound the memory
BLOCKS = 16  # of rows, to tell the variance from batch to batch


@dataclass(frozen=True)
class ExactGradient:
    """The gradient of the ELBO of one batch, per row.

    Attributes:
        moments: Of the gradient, by group: a single vector where nothing is left to draw.
        batch_variance: How much the gradient varies from one batch of as many rows to another: the
            trace of the covariance, by group. 0 where the batch holds all rows; NaN where
            continuous latents are drawn.
    """

    moments: dict[str, Moments]
    batch_variance: dict[str, float]


def _has_discrete_point(model_trace: Trace, guide_trace: Trace) -> bool:
    """Return whether the guide gives a latent that is discrete in the model as a point."""
    given = sites.with_role(guide_trace, "latent").items()
    points = {name for name, site in given if sites.point_of(site["fn"]) is not None}
    latents = sites.with_role(model_trace, "latent").items()
    return any(name in points and sites.is_discrete(site) for name, site in latents)


class EnumerateDiscrete(Messenger):
    """Handler that enumerates every discrete latent in parallel, asked for or not."""

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["is_observed"] or site_is_subsample(msg)) and is_discrete(msg["fn"]):
            kept = {key: value for key, value in msg["infer"].items() if key != "num_samples"}
            msg["infer"] = {**kept, "enumerate": "parallel"}


def exact_gradient(estimator: Estimator, num_draws: int) -> ExactGradient | None:
    """Return the ELBO's gradient on an estimator's batch; ``None`` where it cannot be computed.

    It cannot where a discrete latent has no list of values (counts without an end, ``.to_event`` of
    a Pyro distribution), stands outside the row plate, or has too many configurations; where the
    guide relaxes a latent in evaluation mode as well, or gives a discrete one as a point, whose
    gradient past it (straight through) is the pair's own; or where a plate subsamples.

    Args:
        estimator: A pair with its batch; the pair's objective does not matter.
        num_draws: Times that continuous latents are drawn, where there are some.
    """
    pair, batch = estimator.pair, estimator.batch
    with pair.evaluating():
        model_trace, guide_trace = sites.traces(pair, batch)
        count = _configurations(estimator, model_trace, guide_trace)
        if count > MOST_CONFIGURATIONS or _has_discrete_point(model_trace, guide_trace):
            return None
        drawn = sites.with_role(guide_trace, "latent", "auxiliary").values()
        is_sum = all(sites.is_discrete(site) or sites.point_of(site["fn"]) for site in drawn)
        summed, split = (
            _Summed(estimator),
            _blocks(batch, int(count), least=BLOCKS if is_sum else 1),
        )
        moments = {group: Moments() for group in estimator.parameters}
        between = {group: Moments() for group in estimator.parameters}
        for _ in range(1 if is_sum else num_draws):
            total: dict[str, Tensor] = {}
            for block in split:
                share = batch_rows(block) / batch_rows(batch)
                for group, vector in summed(block).items():
                    total[group] = total.get(group, 0) + share * vector
                    between[group].add(vector)
            for group, vector in total.items():
                moments[group].add(vector)
    left_over = 1 - batch_rows(batch) / estimator.rows  # share of the rows that the batch lacks
    return ExactGradient(
        moments,
        {
            group: left_over * blocks.variance_of_mean if is_sum else math.nan
            for group, blocks in between.items()
        },
    )


def _configurations(
    estimator: Estimator, model_trace: poutine.Trace, guide_trace: poutine.Trace
) -> int | float:
    """Return how many configurations of a row are summed; infinity where no sum is right."""
    plate = estimator.pair.plate
    every = [*sites.sample_sites(model_trace).values(), *sites.sample_sites(guide_trace).values()]
    if any(scale_of_plates(site, without=plate) != 1 for site in every):
        return math.inf
    if relaxed_latents(model_trace, guide_trace):
        return math.inf
    drawn = sites.with_role(guide_trace, "latent", "auxiliary")
    latents = {name: site for name, site in drawn.items() if sites.is_discrete(site)}
    for name, site in latents.items():
        listed = sites.in_plate(site, plate) and site["fn"].has_enumerate_support
        apart = not inner_plates(site, plate) or is_summed_by_place(name, model_trace, plate)
        if not (listed and apart):
            return math.inf
    return joint_configurations(latents, model_trace, plate)


def _blocks(batch: Batch, count: int, least: int) -> list[Batch]:
    """Return a batch in blocks of rows, of equal sizes up to one row.

    Args:
        batch: The rows.
        count: Configurations of a row.
        least: Least number of blocks, where there are as many rows.
    """
    rows = batch_rows(batch)
    number = min(rows, max(least, math.ceil(rows * count / AT_ONCE)))
    pieces = torch.arange(rows).tensor_split(number)
    return [
        map_batch(batch, lambda field, index=piece: field[index[0] : index[-1] + 1])
        for piece in pieces
    ]


class _Summed:
    """The gradient of a block of rows, per row, with all discrete latents of the guide summed.

    Args:
        estimator: A pair with its parameters.
    """

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator
        self.objective = Objective.of(TraceEnum_ELBO(strict_enumeration_warning=False), "summed")
        loss = BatchLoss(estimator.pair, self.objective, estimator.rows)  # scales block and latents
        self.model, self.guide = loss.model, EnumerateDiscrete()(loss.guide)

    def __call__(self, block: Batch) -> Groups:
        """Return the gradient by group."""
        parameters = [p for group in self.estimator.parameters.values() for p in group]
        with torch.enable_grad():
            _, surrogate = self.objective.loss_and_surrogate(self.model, self.guide, block)
            gradients = torch.autograd.grad(surrogate, parameters, allow_unused=True)
        vectors = self.estimator.by_group(list(gradients))
        return {group: vector / self.estimator.rows for group, vector in vectors.items()}
