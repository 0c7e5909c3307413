"""``fit``: the training loop, and nothing but the loop."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from pyro.infer import ELBO
from torch import Tensor
from tqdm.auto import tqdm

from ppl_vae.history import History
from ppl_vae.linter import lint_pair
from ppl_vae.objectives import Objective
from ppl_vae.pair import Pair
from ppl_vae.passes import mean_loss
from ppl_vae.rows import Rows, as_rows, generator
from ppl_vae.seeding import child, forked
from ppl_vae.step import EagerStep, held_out_loss

Callback = Callable[[dict[str, float], Any, Any], object]


def fit(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Any,
    *,
    validation: Any = None,
    elbo: ELBO | None = None,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    kl_weight: float | Callable[[int], float] = 1.0,
    clip_norm: float | None = None,
    patience: int | None = None,
    seed: int | None = 0,
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
            ``Trace_ELBO(num_particles=8, vectorize_particles=True)``; chosen from the pair's
            sites if ``None`` (``History.reason`` says why).
        optimizer: Makes a torch optimizer of a list of parameters; Adam at 1e-3 by default.
        scheduler: Makes a torch scheduler of the optimizer; stepped once an epoch, one that
            takes a metric gets the held-out loss (the training loss where nothing is held out).
        epochs: Passes over the data, at most.
        batch_size: Rows of one update; above the number of rows it means one full batch.
        kl_weight: Weight of every latent site, a number or a function of the step (from 0; see
            ``ppl_vae.schedules``).
        clip_norm: Largest norm of the whole gradient.
        patience: Epochs without a better held-out ELBO before the fit ends.
        seed: Seeds shuffling, splitting and every draw; the generators are restored afterwards.
            ``None`` uses the global ones.
        callbacks: Called once an epoch as ``callback(row, model, guide)``, ``row`` being the
            epoch's entry of the history; one that returns True ends the fit.
        progress: Whether to show a bar.
        plate: Name of the row plate.

    Returns:
        The history, ELBOs in nats per row.

    Raises:
        ValueError: On bad arguments or data, on a pair with faults (the text of ``lint``), or
            where the loss stops being finite.

    Example:
        >>> from ppl_vae.models.bernoulli import BernoulliModel
        >>> from ppl_vae.guides.normal import NormalGuide
        >>> x = torch.rand(500, 16).bernoulli()
        >>> history = fit(BernoulliModel(16), NormalGuide(16), x, epochs=2, progress=False)
        >>> history.objective
        'TraceMeanField_ELBO'

    Modules train in the mode they are in (``module.train()`` is torch's default).

    Ctrl-C ends the fit after the current step, with the best weights so far; a second one stops
    at once.
    """
    _check_arguments(epochs, batch_size, kl_weight, clip_norm, patience, validation)
    pair = Pair.of(model, guide, plate)
    with forked(seed), _without_frozen_warnings():
        rows, held_out = _split(as_rows(data), validation, seed)
        found = lint_pair(pair, rows, elbo=elbo, kl_weight=kl_weight, seed=seed)
        found.raise_if_failed()
        for finding in found.warnings:
            warnings.warn(str(finding), stacklevel=2)
        assert found.objective is not None
        loop = _Loop(
            pair,
            rows,
            held_out,
            found.objective,
            optimizer,
            scheduler,
            clip_norm,
            batch_size=min(batch_size, len(rows)),
            kl_weight=kl_weight,
            seed=seed,
        )
        return loop.run(epochs, patience, tuple(callbacks), progress)


class _Loop:
    """State of one fit between epochs."""

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        held_out: Rows | None,
        objective: Objective,
        optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None,
        scheduler: Callable[[torch.optim.Optimizer], Any] | None,
        clip_norm: float | None,
        *,
        batch_size: int,
        kl_weight: float | Callable[[int], float],
        seed: int | None,
    ) -> None:
        self.pair, self.rows, self.held_out = pair, rows, held_out
        self.objective, self.batch_size, self.seed = objective, batch_size, seed
        self.weight = kl_weight if callable(kl_weight) else _constant(kl_weight)
        self.parameters = list(pair.trainable().values())
        if not self.parameters:
            raise ValueError(
                "fit: the pair has nothing to train; unfreeze a parameter, or register the "
                "networks of plain functions with pyro.module"
            )
        self.optimizer = (optimizer or default_optimizer)(self.parameters)
        self.scheduler = scheduler(self.optimizer) if scheduler else None
        self.update = EagerStep(
            pair, objective, len(rows), self.parameters, self.optimizer, clip_norm
        )
        self.loss = held_out_loss(pair, objective, len(rows))
        self.order = generator(seed)
        self.device = pair.device()
        self.step = 0
        self.records: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_elbo = -math.inf
        self.best_weights: list[Tensor] = []

    def run(
        self, epochs: int, patience: int | None, callbacks: Sequence[Callback], progress: bool
    ) -> History:
        """Train until the epochs, the patience, a callback or Ctrl-C end it."""
        steps = math.ceil(len(self.rows) / self.batch_size)
        stopped = "epochs"
        start = time.perf_counter()
        bar = tqdm(total=epochs * steps, unit="step", disable=not progress, mininterval=0.3)
        with bar, _interrupts() as interrupted:
            for epoch in range(1, epochs + 1):
                bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
                elbo = self.train(epoch, bar, interrupted)
                row = self.record(epoch, elbo, time.perf_counter() - start)
                bar.set_postfix_str(_summary(row), refresh=False)
                if self.called_off(callbacks, row):
                    stopped = "callback"
                elif patience is not None and epoch - self.best_epoch >= patience:
                    stopped = "patience"
                elif interrupted:
                    stopped = "interrupted"
                if stopped != "epochs":
                    break
        self.restore_best()
        return self.history(stopped)

    def train(self, epoch: int, bar: Any, interrupted: list[bool]) -> float:
        """One epoch of updates, or what Ctrl-C leaves of it: its mean ELBO per row."""
        count = len(self.rows)
        order = torch.randperm(count, generator=self.order)
        total, seen = 0.0, 0
        for number, index in enumerate(order.split(self.batch_size)):
            batch = self.rows.take(index, self.device)
            weight = self.weight(self.step)
            loss = self.update(batch, None if weight == 1.0 else weight)
            if not math.isfinite(loss):
                self.restore_best()
                raise ValueError(
                    f"fit: the loss became {loss} at epoch {epoch}, batch {number} (step "
                    f"{self.step}); the update was not applied. Try a smaller learning rate, "
                    "clip_norm=, or a floor on the scales of the model"
                )
            self.step += 1
            total += loss * len(index)
            seen += len(index)
            bar.update()
            if interrupted:
                break
        return -total / seen / count

    def record(self, epoch: int, elbo: float, seconds: float) -> dict[str, float]:
        """Evaluate the held-out rows, keep the best weights, step the scheduler, add a row."""
        validation_elbo = math.nan
        if self.held_out is not None:
            loss = mean_loss(self.pair, self.held_out, self.loss, seed=child(self.seed, 1))
            validation_elbo = -loss / len(self.rows)
            if not math.isfinite(validation_elbo):
                self.restore_best()
                raise ValueError(
                    f"fit: the held-out ELBO became {validation_elbo} at epoch {epoch}"
                )
            if validation_elbo > self.best_elbo:
                self.best_elbo, self.best_epoch = validation_elbo, epoch
                self.best_weights = [value.detach().clone() for value in self.state()]
        if self.scheduler is not None:
            with_metric = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            metric = elbo if math.isnan(validation_elbo) else validation_elbo
            self.scheduler.step(*((-metric,) if with_metric else ()))
        row = {
            "epoch": epoch,
            "step": self.step,
            "elbo": elbo,
            "validation_elbo": validation_elbo,
            "seconds": seconds,
        }
        self.records.append(row)
        return row

    def called_off(self, callbacks: Sequence[Callback], row: dict[str, float]) -> bool:
        """Call every callback; True where one of them ends the fit."""
        model, guide = self.pair.model.function, self.pair.guide.function
        answers = [callback(dict(row), model, guide) for callback in callbacks]
        return any(answer is True for answer in answers)

    def state(self) -> list[Tensor]:
        """Everything that training changes in the pair."""
        return [*self.parameters, *self.pair.buffers().values()]

    def restore_best(self) -> None:
        """Put the weights of the best held-out ELBO back, where rows were held out."""
        with torch.no_grad():
            for value, best in zip(self.state(), self.best_weights, strict=False):
                value.copy_(best)

    def history(self, stopped: str) -> History:
        """The record so far."""
        columns = ["epoch", "step", "elbo", "validation_elbo", "seconds"]
        return History(
            frame=pd.DataFrame(self.records, columns=columns),
            objective=self.objective.name,
            reason=self.objective.reason,
            stopped=stopped,
            best_epoch=self.best_epoch or len(self.records),
        )


def default_optimizer(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam at 1e-3, fused where the parameters' devices and dtypes allow it."""
    fusable = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    one_device = len({p.device for p in parameters}) == 1
    return torch.optim.Adam(parameters, lr=1e-3, fused=fusable and one_device)


def _split(rows: Rows, validation: Any, seed: int | None) -> tuple[Rows, Rows | None]:
    """Training rows and held-out rows."""
    if len(rows) < 2:
        raise ValueError(f"data: expected at least 2 rows to fit to, got {len(rows)}")
    if validation is None:
        return rows, None
    if isinstance(validation, float):
        return rows.split(validation, seed)
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


def _check_arguments(
    epochs: int,
    batch_size: int,
    kl_weight: Any,
    clip_norm: float | None,
    patience: int | None,
    validation: Any,
) -> None:
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("patience", patience)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: expected a whole number of at least 1, got {value}")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm: expected a positive number, got {clip_norm}")
    if not callable(kl_weight) and not 0 <= kl_weight < math.inf:
        raise ValueError(f"kl_weight: expected a number of at least 0, got {kl_weight}")
    if patience is not None and validation is None:
        raise ValueError("patience: needs held-out rows; give validation=0.1 or data")


def _constant(weight: float) -> Callable[[int], float]:
    return lambda step: float(weight)


def _summary(row: dict[str, float]) -> str:
    held_out = row["validation_elbo"]
    name, value = ("ELBO", row["elbo"]) if math.isnan(held_out) else ("held-out ELBO", held_out)
    return f"{name} {value:.2f} nats/row"


@contextlib.contextmanager
def _interrupts() -> Iterator[list[bool]]:
    """A list that is non-empty after Ctrl-C; a second Ctrl-C interrupts as usual."""
    interrupted: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        interrupted.append(True)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _without_frozen_warnings() -> Iterator[None]:
    """Pyro warns at every step about frozen parameters, which are ordinary use here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        yield
