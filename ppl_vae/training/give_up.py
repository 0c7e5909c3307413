"""What is said of a step whose update was not applied: what stopped being finite, and where.

The rank that the rows belong to runs them again (``explain``), and tells the others what it found
(``told``).
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ppl_vae.core.seeding import forked, seed_generators
from ppl_vae.core.world import World
from ppl_vae.elbo.loss import Gradients
from ppl_vae.training.diagnosis import Culprit, find_culprit, too_large
from ppl_vae.training.equivalence import state_restored
from ppl_vae.training.stepper import Stepper

MEND = "try a smaller learning rate, clip_norm=, or a floor on the scales of the model"


@dataclass(frozen=True)
class FailedStep:
    """A step whose update was not applied, and the rows at fault.

    Attributes:
        index: The rows: the step's batch, or one shard of it, (rows,).
        kl_weight: The step's KL weight.
        rng_state: State of torch's generator before the rows' draws.
        losses: The step's losses; NaN where the step raised.
        cause: What the step raised, on the rank that raised it.
        rank: The rank that the rows belong to.
        gradients: The gradient of the batch, where it is known.
        part: Which part of the batch the rows are, in words that follow on the batch.
    """

    index: Tensor
    kl_weight: float
    rng_state: Tensor
    losses: list[float]
    cause: ValueError | None = None
    rank: int = 0
    gradients: Gradients | None = None
    part: str = ""


def failed_shard(stepper: Stepper, kl_weight: float, losses: list[float]) -> FailedStep:
    """Return the shard at fault in the last step, which was made from shards, as a failed step."""
    assert stepper.sharded is not None
    shard = stepper.sharded.failed
    assert shard is not None
    seed_generators(shard.seed)
    state = torch.get_rng_state()
    return FailedStep(
        shard.index, kl_weight, state, losses, shard.cause, shard.rank, shard.gradients,
        f", shard {shard.number} of {stepper.shards}",
    )  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """What stopped being finite in a step.

    Attributes:
        what: ``"loss became nan"``, ``"gradient is no longer finite"`` or the like.
        site: The site or the parameter at fault, in words.
        culprit: The site; ``None`` where no site can be named.
        cause: What the eager step raised.
    """

    what: str
    site: str
    culprit: Culprit | None
    cause: ValueError | None = None


def explain(stepper: Stepper, failed: FailedStep) -> Explanation:
    """Run the rows of a failed step again, and say what stopped being finite.

    Raises:
        ValueError: What the step raised, where every value turns out to be finite, since the step
            then failed for another reason.
    """
    cause, loss = failed.cause, math.nan
    if cause is None:
        cause = _eager_error(stepper, failed)
        if cause is None:
            loss = max(failed.losses, key=lambda loss: not math.isfinite(loss))
    batch = stepper.rows.take(failed.index, stepper.pair.device())
    positions = stepper.rows.positions_in_data(failed.index)
    culprit = find_culprit(stepper.pair, batch, positions, failed.rng_state)
    if culprit is None and cause is not None:
        raise cause
    large = ""
    if culprit is None and math.isfinite(loss):
        large = _largest_gradient(stepper, failed)
    what = "gradient is too large" if large else "gradient is no longer finite"
    site = (
        str(culprit or large)
        if culprit or large
        else "running the same batch again with the same random state gave finite values, so no "
        "site can be named"
    )
    return Explanation(what if math.isfinite(loss) else f"loss became {loss}", site, culprit, cause)


def told(team: World, explanation: Explanation | None, rank: int) -> Explanation:
    """Return the explanation of one rank on every rank; its cause stays on that rank."""
    text = ""
    if explanation is not None:
        culprit = None if explanation.culprit is None else asdict(explanation.culprit)
        text = json.dumps([explanation.what, explanation.site, culprit])
    what, site, fields = json.loads(team.text(text, "a step that failed", source=rank))
    if explanation is not None:
        return explanation
    if fields is not None:
        fields["parameters"] = tuple(fields["parameters"])
    return Explanation(what, site, None if fields is None else Culprit(**fields))


def _eager_error(stepper: Stepper, failed: FailedStep) -> ValueError | None:
    """Return the error that the eager step raises where a traced step's loss was not finite.

    A traced step cannot raise the errors of Pyro's checks (a negative scale, say); its loss is
    NaN there. The eager step runs again from the same random state to get the error. Weights
    and buffers are restored.

    Returns:
        The error, or ``None`` where there is none or where the step was eager.
    """
    if len(failed.index) not in stepper.traced_steps:
        return None
    torch.set_rng_state(failed.rng_state)
    with state_restored(stepper.pair):
        try:
            stepper.run_eagerly(failed.index, failed.kl_weight)
        except ValueError as error:
            return error
    return None


def _largest_gradient(stepper: Stepper, failed: FailedStep) -> str:
    """Return words for the parameter with the largest gradient in a step that was not applied.

    Returns:
        The words; ``""`` where the gradient is not finite, or is not too large.
    """
    names, limit = list(stepper.pair.trainable()), stepper.eager.limit
    if failed.gradients is not None:
        return too_large(names, failed.gradients, limit)
    with forked(0), state_restored(stepper.pair), contextlib.suppress(ValueError):
        torch.set_rng_state(failed.rng_state)
        _, gradients = stepper.run_eagerly(failed.index, failed.kl_weight)
        return too_large(names, gradients, limit)
    return ""
