"""``fit``: trains a model and a guide by stochastic variational inference.

    minimize over theta, phi   -ELBO = E_q(z|x; phi)[log q(z|x; phi) - log p(x, z; theta)]

by updates from batches of rows, each batch weighed as the whole data set.

Source: Hoffman et al. (2013), stochastic variational inference, arXiv:1206.7051; Kingma & Welling
(2014), arXiv:1312.6114; Bingham et al. (2019), Pyro, arXiv:1810.09538.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

from ppl_vae.compat.of_pyro import pyro_remarks_silenced
from ppl_vae.core.blocks import refuse_rows_outside
from ppl_vae.core.pair import Guide, Model, Pair, pyro_lock
from ppl_vae.core.seeding import forked
from ppl_vae.core.world import world
from ppl_vae.data.rows import Data
from ppl_vae.elbo.objectives import RowBound
from ppl_vae.elbo.points import LOG_JOINT
from ppl_vae.linting.linter import lint_pair
from ppl_vae.saving import runs
from ppl_vae.saving.proof import refuse_within_a_check
from ppl_vae.training import arguments
from ppl_vae.training.agreement import (
    check_settings_alike,
    noise_seed,
    take_weights_of_rank_0,
    warnings_of_rank_0,
)
from ppl_vae.training.history import History
from ppl_vae.training.like_lengths import rows_to_train_on
from ppl_vae.training.loop import Loop
from ppl_vae.training.run_directory import check_recipe, may_continue, recording, shards_of_run
from ppl_vae.training.settings import fit_settings
from ppl_vae.training.stepper import Stepper

WEIGHTED_POINT = (
    "kl_weight: expected 1 where rows are held out and the guide gives a latent as a point, got "
    "another; the held-out log joint density, which chooses the epoch, has log p(z) in full and so "
    "differs from what is trained; leave validation= out, and judge held-out rows by elbo_terms"
)


def fit(
    model: Model,
    guide: Guide,
    data: Data,
    *,
    validation: Any = None,
    elbo: ELBO | RowBound | None = None,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    shards: int | None = None,
    kl_weight: arguments.KLWeight = 1.0,
    clip_norm: float | None = None,
    patience: int | None = None,
    compile: bool | str = "auto",  # noqa: A002  the name that torch gives it
    seed: int | None = 0,
    run: str | Path | None = None,
    resume: bool = False,
    callbacks: Iterable[arguments.Callback] = (),
    progress: bool | None = None,
    plate: str = "data",
) -> History:
    """Train a model and a guide, in place, by stochastic variational inference.

    Args:
        model: Pyro model; called as ``model(x)``, ``model(*batch)`` or by field names.
        guide: Pyro guide over the model's latents; ``None`` where nothing is latent or every
            latent is enumerated in the model.
        data: Rows along the first dimension of a tensor, numpy array or memmap, pandas frame, a
            tuple or mapping of those, or a map-style torch ``Dataset`` (read once into memory).
            The names of a frame's columns are remembered: every function finds them by name in
            later frames, whatever their order.
        validation: Held-out data in the same form, or the fraction of ``data`` to hold out at
            random. The pair then ends with the weights of its best held-out ELBO.
        elbo: One of Pyro's ELBOs with its settings, for example
            ``Trace_ELBO(num_particles=8, vectorize_particles=True)``, or ``IWAE``, ``RowELBO`` or
            ``FIVO``; chosen from the pair's sites if ``None`` (``History.reason`` says why).
        optimizer: Makes a torch optimizer of a list of parameters; Adam at 1e-3 by default.
        scheduler: Makes a torch scheduler of the optimizer; stepped once an epoch, one that
            takes a metric gets the held-out loss (the training loss where no rows are held out).
        epochs: Passes over the data, at most.
        batch_size: Rows of one update; above the number of rows it means one full batch. A last
            batch of one row joins the batch before it where batch normalization refuses one row.
            Batches of ``sequences`` have like lengths, and the steps of their longest one alone.
        shards: Pieces that each batch is cut into, which several processes share (see below): the
            number of processes where ``None``, that of the run where one is resumed. Each shard has
            noise of its own, and the gradient is the mean over shards, weighted by their rows; so a
            fit depends on the number of shards, but not on that of processes.
        kl_weight: Weight of every latent site, a number or a function of the step (from 0; see
            ``ppl_vae.schedules``).
        clip_norm: Largest norm of the gradient of all parameters together; a longer gradient is
            scaled down to it. ``None`` leaves gradients alone.
        patience: Epochs without a better held-out ELBO before the fit ends; ``None`` never ends it.
        compile: ``"auto"`` traces the step into one graph of tensor operations where a few
            hundred steps are to come, and compiles the graph where many thousands are; ``True``
            always does, ``False`` never. A traced step is compared with the eager step before it is
            used and as the fit goes on; where they differ, ``"auto"`` warns and runs the eager
            step, and ``True`` raises. Under ``"auto"`` sequences of different lengths run the eager
            step; ``True`` trains on them as they are padded. What the model or the guide changes
            between steps must be a buffer that is updated in place (``copy_``, ``add_``).
        seed: Seeds shuffling, splitting and every draw; the generators are restored afterwards.
            ``None`` draws from the global generators.
        run: A new directory to store the fit in: snapshots as it goes, the history, the weights and
            how to make the pair again (``load``).
        resume: Continue the fit in ``run`` where it ended or was cut off. On a CPU the resumed fit
            ends bit for bit as one that was never cut off. Data and settings must be those that
            the run began with, but there may be more ``epochs``. Compared are every row of the
            data, by a checksum, and all settings, those of the optimizer's groups and of the
            scheduler as well; of functions (KL schedules, those in a scheduler) the values at the
            steps 0, 1, 2, 5, 10, 20, 50, ... up to the last. Where ``run`` does not exist, a new
            fit begins there.
        callbacks: Called once an epoch as ``callback(row, model, guide)``, where ``row`` is the
            epoch's entry of the history; a callback that returns True ends the fit. Some are in
            ``ppl_vae.callbacks``.
        progress: Whether to show a bar: ``None`` for yes, in a terminal or a notebook, once the
            work has taken two seconds.
        plate: Name of the row plate.

    Returns:
        The history; ELBOs are in nats per row.

    Raises:
        ValueError: On bad arguments or data, on a pair with faults (the text of ``lint``), where
            the loss stops being finite, or under ``compile=True`` where the traced step is not
            equal to the eager one.

    Warns:
        UserWarning: With each warning of ``lint``; where ``kl_weight`` is not 1, rows are held out,
            and the guide gives a latent as a point: epochs are then chosen by another measure.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.rand(500, 16).bernoulli()
        >>> history = fit(BernoulliModel(16), NormalGuide(16), x, epochs=2, progress=False)
        >>> history.objective
        'TraceMeanField_ELBO'

    Floats become torch's default dtype and are moved to the parameters' device. One fit runs at
    a time in a process, because Pyro has one stack of handlers; a fit in another thread waits.

    Modules train in the mode they are in (``module.train()`` is torch's default).

    Ctrl-C ends the fit after the current step, with the best weights so far; a second Ctrl-C stops
    at once.

    Started in several processes by ``torchrun`` or its like, the processes share the work. Every
    one runs the same script on the same data and works on its part of the shards of each batch. All
    begin with the weights of rank 0 and end with the same weights. Rank 0 alone writes the run
    directory, calls the callbacks, warns and shows progress. An error on one rank ends the fit on
    all. A run may be resumed on any number of processes; each must see its directory. Buffers that
    a step changes are averaged over the shards; whole numbers are those of the first shard.
    """
    refuse_within_a_check("fit")
    team = world()
    with team.together("fit"), warnings_of_rank_0(team):
        arguments.check_fit_arguments(
            epochs=epochs, batch_size=batch_size, kl_weight=kl_weight, clip_norm=clip_norm,
            patience=patience, compile=compile, validation=validation, seed=seed, run=run,
            resume=resume, progress=progress, shards=shards,
        )  # fmt: skip
        listed = arguments.check_callbacks(callbacks)
        numbers = [epochs, batch_size, seed, clip_norm, shards]
        epochs, batch_size, seed, clip_norm, shards = arguments.plain_numbers(numbers)
        pair, path = Pair.of(model, guide, plate), None if run is None else Path(run)
    with (
        team.together("fit"), warnings_of_rank_0(team), pyro_lock(), forked(seed),
        pyro_remarks_silenced(), _no_autocast_cache(),
    ):  # fmt: skip
        resumes = path is not None and may_continue(path, team, resume=resume)
        if resumes:
            assert path is not None
            begun = runs.read_run(path)
            pair.remember_columns(begun.columns)
            shards = shards_of_run(begun, shards)
        shards = team.size if shards is None else shards
        given_seed, seed = seed, noise_seed(team, seed, shards)
        take_weights_of_rank_0(team, pair)
        rows, held_out = arguments.split_rows(pair, data, validation, seed)
        report = lint_pair(pair, rows, elbo=elbo, kl_weight=kl_weight, seed=seed)
        report.raise_if_failed()
        if held_out is not None:
            refuse_rows_outside(pair, held_out)
        arguments.check_batch_holds_all_rows(report.summed_over_all_rows, batch_size, len(rows))
        arguments.check_shards(shards, batch_size, len(rows), report.summed_over_all_rows, team)
        arguments.check_sums_fit_in_memory(pair, rows, batch_size)
        for finding in report.warnings:
            warnings.warn(str(finding), stacklevel=2)
        assert report.objective is not None
        weighted = callable(kl_weight) or kl_weight != 1
        if held_out is not None and weighted and report.objective.measure == LOG_JOINT:
            warnings.warn(WEIGHTED_POINT, stacklevel=2)
        parameters = arguments.trainable_parameters(pair)
        take_weights_of_rank_0(team, pair)  # those too that appeared when the pair ran
        made = arguments.make_optimizer(optimizer, parameters)
        schedule = arguments.make_scheduler(scheduler, made)
        rows = rows_to_train_on(pair, rows, compile)
        stepper = Stepper(
            pair, rows, report.objective, parameters, made, clip_norm,
            requested=compile, batch_size=min(batch_size, len(rows)),
            weighted=weighted,
            watched=bool(listed) or callable(kl_weight),
            shards=shards, seed=seed, team=team,
        )  # fmt: skip
        stepper.plan(epochs)
        pair.remember_columns(rows.columns)
        pair.remember_fields(rows)
        loop = Loop(stepper, held_out, schedule, kl_weight, seed)
        if path is None and team.size == 1:
            return loop.run(epochs, patience, listed, show=progress)
        settings = fit_settings(
            loop, epochs=epochs, kl_weight=kl_weight, clip_norm=clip_norm, compiled=compile,
            seed=given_seed,
        )  # fmt: skip
        check_settings_alike(team, settings)
        if path is None:
            return loop.run(epochs, patience, listed, show=progress)
        with recording(path, loop, settings, resumes=resumes):
            history = loop.run(epochs, patience, listed, show=progress)
            check_recipe(loop)
        return history


@contextlib.contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Turn off autocast's cache of converted weights inside the block.

    Under ``torch.autocast`` torch stores the half-precision copy of a weight until the autocast
    block ends. The user's block is around the whole fit, so that every step would run with the
    copies of the first step.
    """
    before = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
