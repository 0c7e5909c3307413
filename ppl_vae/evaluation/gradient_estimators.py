"""Which gradient estimator: several pairs and objectives measured on one model and one batch.

The gradients are drawn in turn, so that all estimators share the machine alike; bias, variance and
time are in ``estimator_table``, the exact gradient in ``exact_gradients``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from ppl_vae.arguments import check_arguments, check_count, check_memory, shown
from ppl_vae.bars import Bar
from ppl_vae.compat.of_pyro import pyro_remarks_silenced
from ppl_vae.core import sites
from ppl_vae.core.handlers import Substitute
from ppl_vae.core.pair import Guide, Model, Pair, pyro_lock
from ppl_vae.core.seeding import child, forked, seed_generators
from ppl_vae.data.rows import Data, Rows, generator
from ppl_vae.elbo.objectives import Objective, RowBound
from ppl_vae.evaluation.estimator_table import GradientEstimators
from ppl_vae.evaluation.exact_gradients import ExactGradient, exact_gradient
from ppl_vae.evaluation.gradient_draws import Estimator
from ppl_vae.linting.linter import lint_pair

BATCH_ROWS = 128
"""Most rows of the batch, as in ``fit``."""

ToEstimate: TypeAlias = Guide | tuple[Guide, ELBO | RowBound | None]
"""A guide under the objective that suits it, or a guide and an objective."""


def gradient_estimators(
    model: Model,
    estimators: Mapping[str, ToEstimate],
    data: Data,
    *,
    num_draws: int = 1000,
    seed: int | None = 0,
    progress: bool | None = None,
    plate: str = "data",
) -> GradientEstimators:
    """Measure the bias, the variance and the time of gradient estimators on one batch.

    Each estimator is the model with a guide and an objective. On the same rows, at the weights as
    they are, its gradient is drawn many times, in the modes that the layers are in, as in a fit.
    Nothing is trained, and model and guides are left as they were. To compare estimators and not
    guides, give all guides the same networks (``encoder=``). A network that predicts a baseline is
    better the longer it has been trained.

    The exact gradient is that of the ELBO with all discrete latents of the guide summed over their
    joint configurations, up to 16,384 of a row, and all layers in evaluation mode, so that dropout
    counts as a bias. Beside continuous latents, the sum is averaged over as many draws, and its
    noise enters ``bias_se``. Pyro does not enumerate ``.to_event`` distributions: there, the bias
    is NaN, and for ``ppl_vae.distributions.BernoulliVector`` and ``CategoricalVector`` it is not.
    ``IWAE``, free bits and objectives of your own have other gradients than the ELBO's; their bias
    is NaN, too.

    A bias counts as found if it is above three standard errors of the mean and above 2 % of the
    exact gradient's norm. A relaxed guide has a bias in any case; it counts as none where it is
    below 2 % with three standard errors added.

    Args:
        model: The model.
        estimators: By name, a guide, under the objective that ``fit`` would choose; or a tuple of a
            guide and one of Pyro's ELBOs, ``IWAE`` or ``RowELBO``.
        data: Rows, in any form that ``fit`` takes; the batch is 128 of them, chosen by the seed, or
            all if they are fewer.
        num_draws: Times that each gradient is drawn, 2 or more.
        seed: Seeds all draws; the generators are restored afterwards.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Raises:
        ValueError: If ``estimators`` is no mapping from names to guides, a pair has faults (the
            text of ``lint``), or there are no parameters to train.

    Example:
        >>> from ppl_vae import RowELBO
        >>> from ppl_vae.guides.bernoulli import BernoulliGuide
        >>> from ppl_vae.models.discrete import DiscreteModel
        >>> x = (torch.rand(50, 4) > 0.5).float()
        >>> guide, summed = BernoulliGuide(4, 2), BernoulliGuide(4, 2, enumerated=True)
        >>> summed.load_state_dict(guide.state_dict())
        <All keys matched successfully>
        >>> found = gradient_estimators(
        ...     DiscreteModel(4, 2, 2),
        ...     {"summed": summed, "drawn": (guide, RowELBO(2, baseline="leave_one_out"))},
        ...     x, num_draws=20,
        ... )
        >>> found.recommended
        'summed'
    """
    check_arguments(seed=seed, progress=progress)
    check_count("num_draws", num_draws, least=2)
    check_memory("num_draws", num_draws, 16 * num_draws, "take fewer draws")
    given = _named(estimators)
    pairs = {name: Pair.of(model, guide, plate) for name, (guide, _) in given.items()}
    rows = {name: pair.rows(data) for name, pair in pairs.items()}
    with pyro_lock(), forked(seed), poutine.block(), pyro_remarks_silenced():
        objectives = {
            name: _objective(name, pair, rows[name], given[name][1], seed)
            for name, pair in pairs.items()
        }
        with contextlib.ExitStack() as stack:
            for pair in pairs.values():
                stack.enter_context(pair.keeping_buffers())
            measured = {
                name: _estimator(pair, objectives[name], rows[name], seed)
                for name, pair in pairs.items()
            }
            exact = _exact_gradients(measured, num_draws, seed)
            _draw_in_turn(list(measured.values()), num_draws, seed, progress=progress)
            same = _same_guides(list(measured.values()))
    return GradientEstimators.of(measured, exact, num_draws, same_guides=same)


def _named(estimators: Any) -> dict[str, tuple[Guide, ELBO | RowBound | None]]:
    """Return guide and objective of each estimator, by name.

    Raises:
        ValueError: If the argument is no mapping from names to guides or tuples.
    """
    if not isinstance(estimators, Mapping) or not estimators:
        raise ValueError(
            "estimators: expected a mapping {name: guide or (guide, elbo)}, got "
            f"{shown(estimators)}"
        )
    named: dict[str, tuple[Guide, ELBO | RowBound | None]] = {}
    for name, given in estimators.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"estimators: expected names as text, got {shown(name)}")
        guide, elbo = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        if guide is not None and not callable(guide):
            raise ValueError(
                f'estimators["{name}"]: expected a guide, or a tuple of a guide and an ELBO, got '
                f"{shown(given)}"
            )
        named[name] = guide, elbo
    return named


def _objective(
    name: str, pair: Pair, rows: Rows, elbo: ELBO | RowBound | None, seed: int | None
) -> Objective:
    """Return the objective of an estimator, as ``fit`` would choose it.

    Raises:
        ValueError: If ``lint`` finds an error in the pair.
    """
    report = lint_pair(pair, rows, elbo=elbo, kl_weight=1.0, seed=seed)
    try:
        report.raise_if_failed()
    except ValueError as error:
        raise ValueError(f'estimators["{name}"]: {error}') from error
    assert report.objective is not None
    return report.objective


def _estimator(pair: Pair, objective: Objective, rows: Rows, seed: int | None) -> Estimator:
    """Return an estimator on the batch that all estimators share.

    Raises:
        ValueError: If the pair has no parameters to train.
    """
    # in random order, so that the rows of a block are no more alike than others
    positions = torch.randperm(len(rows), generator=generator(seed))[:BATCH_ROWS]
    batch = rows.take(positions, pair.device())
    estimator = Estimator(pair, objective, len(rows), batch)
    if not estimator.parameters:
        raise ValueError(
            "model and guide: expected parameters to train, got none; make them parameters of a "
            "module, or thaw them with requires_grad_(True)"
        )
    return estimator


def _exact_gradients(
    measured: Mapping[str, Estimator], num_draws: int, seed: int | None
) -> dict[str, ExactGradient | None]:
    """Return the exact gradient for each estimator, computed once for each guide."""
    by_guide: dict[int, ExactGradient | None] = {}
    for position, estimator in enumerate(measured.values()):
        guide = id(estimator.pair.guide.function)
        if guide not in by_guide:
            _seed(seed, 0, position)
            by_guide[guide] = exact_gradient(estimator, num_draws)
    return {name: by_guide[id(each.pair.guide.function)] for name, each in measured.items()}


def _draw_in_turn(
    estimators: list[Estimator], num_draws: int, seed: int | None, *, progress: bool | None
) -> None:
    """Draw the gradient of each estimator in turn, many times, so that all share the machine alike.

    The draws of an estimator depend on the seed and its position alone.
    """
    for estimator in estimators:
        estimator.draw()  # the first one finds the plates and the particles, which takes time
        estimator.forget()
    for draw in Bar("gradients", progress).over(range(num_draws), unit="draw"):
        for position, estimator in enumerate(estimators):
            _seed(seed, 1, position, draw)
            estimator.draw()


def _seed(seed: int | None, *path: int) -> None:
    """Seed the generators for one part of the measurement; nothing for no seed."""
    own = child(seed, *path)
    if own is not None:
        seed_generators(own)


def _same_guides(estimators: list[Estimator]) -> bool:
    """Return whether all guides give the same draws the same probability, row by row."""
    first, *others = estimators
    with first.pair.quiet_run():
        trace = poutine.trace(first.pair.guide).get_trace(first.batch)
    latents = sites.with_role(trace, "latent")
    values = {name: site["value"] for name, site in latents.items()}

    def log_prob(estimator: Estimator) -> Tensor:
        with estimator.pair.quiet_run(), Substitute(values):
            own = poutine.trace(estimator.pair.guide).get_trace(estimator.batch)
        found = sites.with_role(own, "latent")
        if found.keys() != values.keys():
            raise ValueError
        return torch.stack([sites.log_prob(site).sum() for site in found.values()])

    try:
        expected = log_prob(first)
        return all(torch.allclose(log_prob(each), expected, rtol=1e-3) for each in others)
    except (ValueError, RuntimeError):  # another latent, or one of another shape
        return False
