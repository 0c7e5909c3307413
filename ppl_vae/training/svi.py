"""``fit``: checks what it is given, then hands over to the loop."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor

from ppl_vae.core.pair import Guide, Model, Pair, pyro_lock
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Data, Rows, as_rows
from ppl_vae.elbo.objectives import RowBound
from ppl_vae.linting.linter import lint_pair
from ppl_vae.saving import runs, snapshots
from ppl_vae.training.history import History
from ppl_vae.training.loop import Callback, KLWeight, Loop, check_kl_weight


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
    kl_weight: KLWeight = 1.0,
    clip_norm: float | None = None,
    patience: int | None = None,
    compile: bool | str = "auto",  # noqa: A002  the name that torch gives it
    seed: int | None = 0,
    run: str | Path | None = None,
    resume: bool = False,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    plate: str = "data",
) -> History:
    """Train a model and a guide, in place, by stochastic variational inference.

    Args:
        model: Pyro model; called as ``model(x)``, ``model(*batch)`` or by field names.
        guide: Pyro guide over the model's latents; ``None`` where nothing is latent or every
            latent is enumerated in the model.
        data: Rows, first dimension: a tensor, numpy array or memmap, pandas frame, a tuple or
            mapping of those, or a map-style torch ``Dataset`` (read once into memory).
        validation: Held-out data in the same form, or the fraction of ``data`` to hold out at
            random. With it the pair ends with the weights of its best held-out ELBO.
        elbo: One of Pyro's ELBOs with its settings, for example
            ``Trace_ELBO(num_particles=8, vectorize_particles=True)``, or ``IWAE`` or ``RowELBO``;
            chosen from the pair's sites if ``None`` (``History.reason`` says why).
        optimizer: Makes a torch optimizer of a list of parameters; Adam at 1e-3 by default.
        scheduler: Makes a torch scheduler of the optimizer; stepped once an epoch, one that
            takes a metric gets the held-out loss (the training loss where nothing is held out).
        epochs: Passes over the data, at most.
        batch_size: Rows of one update; above the number of rows it means one full batch.
        kl_weight: Weight of every latent site, a number or a function of the step (from 0; see
            ``ppl_vae.schedules``).
        clip_norm: Largest norm of the whole gradient.
        patience: Epochs without a better held-out ELBO before the fit ends.
        compile: ``"auto"`` traces the step into one graph of tensor operations where enough steps
            are to come, and compiles it for more; ``True`` always does, ``False`` never. A traced
            step is proved equal to the eager one before it is used and as the fit goes; where it
            is not, ``"auto"`` falls back with a warning and ``True`` raises. What the model or
            guide changes between steps must be a buffer updated in place (``copy_``, ``add_``).
        seed: Seeds shuffling, splitting and every draw; the generators are restored afterwards.
            ``None`` uses the global ones.
        run: A new directory to keep the fit in: snapshots as it goes, the history, the weights and
            how to make the pair again (``load``).
        resume: Continue the fit in ``run`` where it ended or was cut off, bit for bit as if it
            had not been (on a CPU); data and settings must be those it began with, but there
            may be more ``epochs``. Where ``run`` does not exist the fit begins there.
        callbacks: Called once an epoch as ``callback(row, model, guide)``, ``row`` being the
            epoch's entry of the history; one that returns True ends the fit.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        The history, ELBOs in nats per row.

    Raises:
        ValueError: On bad arguments or data, on a pair with faults (the text of ``lint``), where
            the loss stops being finite, or under ``compile=True`` where the step cannot be proved.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.rand(500, 16).bernoulli()
        >>> history = fit(BernoulliModel(16), NormalGuide(16), x, epochs=2, progress=False)
        >>> history.objective
        'TraceMeanField_ELBO'

    Floats become torch's default dtype and are moved to where the parameters are. One fit runs at
    a time in a process: Pyro's handlers stand on one stack, so another thread's fit waits.

    Modules train in the mode they are in (``module.train()`` is torch's default).

    Ctrl-C ends the fit after the current step, with the best weights so far; a second one stops
    at once.
    """
    _check_arguments(epochs, batch_size, kl_weight, clip_norm, patience, validation, run, resume)
    if not isinstance(compile, bool) and compile != "auto":
        raise ValueError(f'compile: expected True, False or "auto", got {compile!r}')
    listed = _listed(callbacks)
    pair = Pair.of(model, guide, plate)
    with pyro_lock(), forked(seed), _own_words(), _fresh_casts(), contextlib.ExitStack() as stack:
        path = None if run is None else Path(run)
        going_on = path is not None and resume and path.exists() and any(path.iterdir())
        if path is not None and seed is None and isinstance(validation, Real):
            raise ValueError("seed: a kept fit splits its rows by a seed; give one, or data")
        if path is not None and not going_on:
            runs.check_new(path)
        rows, held_out = _split(as_rows(data), validation, seed)
        found = lint_pair(pair, rows, elbo=elbo, kl_weight=kl_weight, seed=seed)
        found.raise_if_failed()
        for finding in found.warnings:
            warnings.warn(str(finding), stacklevel=2)
        assert found.objective is not None
        loop = Loop(
            pair, rows, held_out, found.objective, optimizer, scheduler, clip_norm,
            batch_size=min(int(batch_size), len(rows)), kl_weight=kl_weight, seed=seed,
            compiled=compile, watched=bool(listed),
        )  # fmt: skip
        loop.stepper.plan(int(epochs))
        if path is not None:
            settings = _settings(loop, kl_weight, clip_norm, compile)
            try:
                if going_on:
                    stack.enter_context(_continue(path, loop, settings))
                else:
                    _begin(path, loop, settings)
            except OSError as error:
                raise ValueError(f"run: {path} cannot be written: {error.strerror}") from error
            except (KeyError, TypeError, AttributeError, RuntimeError) as error:
                raise ValueError(f"resume: {path} is damaged ({error!r})") from error
            assert loop.recorder is not None
            stack.callback(loop.recorder.close)
        history = loop.run(int(epochs), patience, listed, progress=progress)
        if path is not None:
            runs.remove_outdated_recipe(path, pair, rows)
        return history


def _begin(path: Path, loop: Loop, settings: dict[str, Any]) -> None:
    """Write what a new run is, and record the fit in it."""
    info = runs.create_run(
        path,
        loop.pair,
        loop.rows,
        {
            "settings": settings,
            "seed": loop.seed,
            "objective": loop.objective.name,
            "reason": loop.objective.reason,
            "stepper": loop.stepper.state(),
        },
    )
    loop.recorder = snapshots.Recorder(path, info)


@contextlib.contextmanager
def _continue(path: Path, loop: Loop, settings: dict[str, Any]) -> Iterator[None]:
    """Put the loop where the run's snapshot is, on as many threads as the run began with."""
    info = runs.read_run(path).info
    before = info.get("settings")
    if before is None:
        raise ValueError(f"run: {path} holds a saved pair, not a fit; choose another directory")
    _check_same(path, before, settings)
    changed = runs.changed_sources(path, info, loop.pair)
    if changed:
        raise ValueError(
            f"resume: {changed[0]} is not as it was when {path} began; undo the edit, or begin "
            "another run"
        )
    if not runs.recipe_matches(info, loop.pair, loop.rows):
        raise ValueError(
            f"resume: {path} was made with other constructor arguments of the model or the guide; "
            "pass the same, or choose another directory"
        )
    loop.stepper.resume(info["stepper"])
    snapshot = snapshots.read_snapshot(path)
    if snapshot is not None:
        loop.resume(*snapshot)
    loop.recorder = snapshots.Recorder(path, info, loop.step)
    loop.recorder.restart(loop.records)
    threads = torch.get_num_threads()
    torch.set_num_threads(info["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ``ValueError`` at the first setting that is not as the run began."""
    for name in {**before, **now}:
        if before.get(name) == now.get(name):
            continue
        if name in ("data", "validation"):
            raise ValueError(
                f"resume: {path} was made with other {name}; pass the same rows, or choose another "
                "directory"
            )
        old, new = before.get(name), now.get(name)
        if name == "trained":  # lists of [parameter, shape]
            pairs = zip_longest(old or [], new or [])
            old, new = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"resume: {path} was made with {name}={old!r}, got {new!r}; pass the same, or choose "
            "another directory"
        )


def _settings(
    loop: Loop, kl_weight: KLWeight, clip_norm: float | None, compiled: bool | str
) -> dict[str, Any]:
    """What must be the same when a fit goes on, as JSON can hold it."""
    elbo = loop.objective.elbo
    return {
        "compile": compiled,
        "seed": loop.seed,
        "dtype": str(torch.get_default_dtype()),
        "data": loop.rows.fingerprint(),
        "validation": None if loop.held_out is None else loop.held_out.fingerprint(),
        "batch_size": loop.batch_size,
        "kl_weight": "a function of the step" if callable(kl_weight) else float(kl_weight),
        "clip_norm": clip_norm,
        "objective": loop.objective.name,
        "objective_options": loop.objective.options,
        "num_particles": elbo.num_particles,
        "vectorize_particles": elbo.vectorize_particles,
        "optimizer": type(loop.optimizer).__name__,
        "optimizer_defaults": {k: repr(v) for k, v in sorted(loop.optimizer.defaults.items())},
        "scheduler": type(loop.scheduler).__name__,
        "trained": [[name, list(p.shape)] for name, p in loop.pair.trainable().items()],
    }


def _split(rows: Rows, validation: Any, seed: int | None) -> tuple[Rows, Rows | None]:
    """Training rows and held-out rows."""
    if len(rows) < 2:
        raise ValueError(f"data: expected at least 2 rows to fit to, got {len(rows)}")
    if validation is None:
        return rows, None
    if isinstance(validation, Real):
        return rows.split(float(validation), seed)
    held_out = as_rows(validation, "validation")
    shapes = [
        {name: tuple(f.array.shape[1:]) for name, f in zip(r.names, r.fields, strict=True)}
        for r in (rows, held_out)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"validation: expected rows like the data's, shapes {shapes[0]}; got {shapes[1]}"
        )
    for ours, theirs in zip(rows.fields, held_out.fields, strict=True):
        if ours.source == theirs.source == "frame" and list(ours.labels) != list(theirs.labels):
            raise ValueError(
                f"validation: expected the data's columns {list(ours.labels)[:9]} in their order, "
                f"got {list(theirs.labels)[:9]}; select them: validation[data.columns]"
            )
    return rows, held_out


def _listed(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise ValueError("callbacks: expected a list of functions, got one; write [function]")
    return tuple(callbacks)


def _check_arguments(
    epochs: int,
    batch_size: int,
    kl_weight: Any,
    clip_norm: float | None,
    patience: int | None,
    validation: Any,
    run: str | Path | None,
    resume: bool,
) -> None:
    if resume and run is None:
        raise ValueError("resume: needs the directory of the run; give run=")
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("patience", patience)):
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if value is not None and not (whole and value >= 1):
            raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    if clip_norm is not None and not (isinstance(clip_norm, Real) and clip_norm > 0):
        raise ValueError(f"clip_norm: expected a positive number, got {clip_norm!r}")
    if not callable(kl_weight):
        check_kl_weight(kl_weight)
    if patience is not None and validation is None:
        raise ValueError("patience: needs held-out rows; give validation=0.1 or data")


@contextlib.contextmanager
def _own_words() -> Iterator[None]:
    """Without Pyro's warnings of frozen parameters, of NaN (an error here) and of its own reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encountered (NaN|[+-]?inf)")
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        yield


@contextlib.contextmanager
def _fresh_casts() -> Iterator[None]:
    """Without autocast's cache, which would hold the weights of the first step."""
    before = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
