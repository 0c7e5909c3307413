"""The loop of ``fit`` and all of its state: what a snapshot keeps is what is here."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, NoReturn

import pandas as pd
import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm.auto import tqdm

from ppl_vae.core.blocks import mean_loss
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import child
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.loss import BatchLoss
from ppl_vae.elbo.objectives import Objective
from ppl_vae.saving.snapshots import Recorder, read_snapshot, restore_generators
from ppl_vae.training.diagnosis import NotFiniteError, find_culprit
from ppl_vae.training.history import History
from ppl_vae.training.stepper import Stepper

Callback = Callable[[dict[str, float], Any, Any], object]
KLWeight = float | Callable[[int], float]
MEND = "try a smaller learning rate, clip_norm=, or a floor on the scales of the model"


class Loop:
    """Epochs, steps and what they leave behind.

    Args:
        pair: The pair.
        rows: Rows to fit to.
        held_out: Rows to judge by, or ``None``.
        objective: What is minimized.
        optimizer: Makes a torch optimizer; Adam by default.
        scheduler: Makes a torch scheduler, or ``None``.
        clip_norm: Largest norm of the whole gradient, or ``None``.
        batch_size: Rows of a step.
        kl_weight: Number, or function of the step.
        seed: Seeds the order of rows and the held-out draws.
        compiled: Which steps run, see ``Stepper``.
        watched: Whether code of the user's runs between epochs.

    Raises:
        ValueError: Where nothing can be trained.
    """

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
        kl_weight: KLWeight,
        seed: int | None,
        compiled: bool | str,
        watched: bool,
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
        self.optimizer = _make_optimizer(optimizer or default_optimizer, self.parameters)
        self.scheduler = _make_scheduler(scheduler, self.optimizer)
        self.stepper = Stepper(
            pair, rows, objective, self.parameters, self.optimizer, clip_norm,
            requested=compiled, batch_size=batch_size,
            weighted=callable(kl_weight) or kl_weight != 1, watched=watched or callable(kl_weight),
        )  # fmt: skip
        self.loss = BatchLoss(pair, objective, len(rows)).loss
        self.device = pair.device()
        fresh = int(torch.randint(2**31, ())) if seed is None else seed
        self.order = torch.Generator().manual_seed(fresh)
        self.epoch, self.step = 1, 0
        self.order_before = self.order.get_state()  # when this epoch's order was drawn
        self.position, self.total, self.seen = 0, 0.0, 0  # batches, losses, rows of this epoch
        self.records: list[dict[str, float]] = []
        self.best_epoch, self.best_elbo = 0, -math.inf
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0  # spent before this process
        self.recorder: Recorder | None = None

    def run(
        self, epochs: int, patience: int | None, callbacks: Sequence[Callback], *, progress: bool
    ) -> History:
        """Train until the epochs, the patience, a callback or Ctrl-C end it."""
        steps = math.ceil(len(self.rows) / self.batch_size)
        stopped = "patience" if self._waited(patience) else "epochs"
        start = time.perf_counter() - self.seconds
        bar = tqdm(
            total=epochs * steps, initial=self.step, unit="step", disable=not progress,
            mininterval=0.3,
        )  # fmt: skip
        with bar, _interrupts() as interrupted, self._best_on_error():
            bar.set_description("preparing the step")
            self.stepper.prepare()
            while self.epoch <= epochs and stopped == "epochs":
                bar.set_description(f"epoch {self.epoch}/{epochs}", refresh=False)
                began = self.step
                self._train(bar, interrupted, start)
                if interrupted:  # resume goes on within the epoch, though the history closes it
                    self._snapshot(start, now=True)
                row = self._record(start)
                bar.set_postfix_str(_summary(row), refresh=False)
                if self._called_off(callbacks, row):
                    stopped = "callback"
                elif self._waited(patience):
                    stopped = "patience"
                elif interrupted:
                    stopped = "interrupted"
                elif self.epoch <= epochs:
                    self.stepper.check(began, self.step)
                if not interrupted:
                    self._snapshot(start, now=stopped != "epochs" or self.epoch > epochs)
        return self._finish(stopped)

    def _train(self, bar: Any, interrupted: list[bool], start: float) -> None:
        """One epoch of updates, or what is left of it, or what Ctrl-C leaves of it."""
        self.order.set_state(self.order_before)
        batches = torch.randperm(len(self.rows), generator=self.order).split(self.batch_size)
        for index in batches[self.position :]:
            self._step(index)
            self.step += 1
            self.position += 1
            self.seen += len(index)
            bar.update()
            if interrupted:
                break
            if self.recorder is not None and self.recorder.due:
                self._snapshot(start, now=True)

    def _step(self, index: Tensor) -> None:
        weight = check_kl_weight(self.weight(self.step), f" at step {self.step}")
        draws = torch.get_rng_state()
        try:
            loss, applied = self.stepper(index, weight)
        except ValueError as error:  # Pyro's own checks may meet NaN first
            self._give_up(index, draws, math.nan, error)
        if not applied:
            complaint = self.stepper.complaint(index, weight, draws)
            self._give_up(index, draws, math.nan if complaint else loss, complaint)
        self.total += loss * len(index)

    def _give_up(
        self, index: Tensor, draws: Tensor, loss: float, cause: Exception | None
    ) -> NoReturn:
        """Name what stopped being finite, keep the last good weights, and end the fit."""
        batch = self.rows.take(index, self.device)
        culprit = find_culprit(self.pair, batch, self.rows.positions_in_data(index), draws)
        if culprit is None and cause is not None:
            raise cause
        what = "gradient is no longer finite" if math.isfinite(loss) else f"loss became {loss}"
        where = f"epoch {self.epoch}, batch {self.position} (step {self.step})"
        kept = f"those of epoch {self.best_epoch}" if self.best else self._last_finite()
        raise NotFiniteError(
            f"fit: the {what} at {where}: {culprit or 'it did not happen again when looked at'}. "
            f"The update was not applied, the weights are {kept}; {MEND}",
            culprit,
        ) from cause

    def _last_finite(self) -> str:
        """Leave finite weights in the pair, where there are any, and say which they are."""
        if _finite(self.pair.tensors()):
            return "those before it"
        snapshot = None if self.recorder is None else read_snapshot(self.recorder.path)
        if snapshot is None:
            return "not finite themselves: hold out rows or give run=, and good ones are kept"
        with torch.no_grad():
            for name, value in self.pair.tensors().items():
                value.copy_(snapshot[0][f"now/{name}"])
        return f"those of step {snapshot[1]['step']}"

    def _record(self, start: float) -> dict[str, float]:
        """Close the epoch: held-out rows, best weights, scheduler, a row of the history."""
        elbo = -self.total / self.seen / len(self.rows)
        validation_elbo = math.nan
        if self.held_out is not None:
            loss = mean_loss(self.pair, self.held_out, self.loss, seed=child(self.seed, 1))
            validation_elbo = -loss / len(self.rows)
            if not math.isfinite(validation_elbo):
                raise NotFiniteError(
                    f"fit: the held-out ELBO became {validation_elbo} at epoch {self.epoch}; "
                    + MEND,
                    None,
                )
            if validation_elbo > self.best_elbo:
                self.best_elbo, self.best_epoch = validation_elbo, self.epoch
                self.best = {n: t.detach().clone() for n, t in self.pair.tensors().items()}
        if self.scheduler is not None:
            metric = elbo if self.held_out is None else validation_elbo
            with_metric = isinstance(self.scheduler, ReduceLROnPlateau)
            vars(self.optimizer)["_opt_called"] = True  # compiled updates are steps of it as well
            self.scheduler.step(*((-metric,) if with_metric else ()))
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "elbo": elbo,
            "validation_elbo": validation_elbo,
            "seconds": time.perf_counter() - start,
        }
        self.records.append(row)
        if self.recorder is not None:
            self.recorder.epoch(self.records)
        self.epoch += 1
        self.order_before = self.order.get_state()
        self.position, self.total, self.seen = 0, 0.0, 0
        return row

    def _waited(self, patience: int | None) -> bool:
        """Whether the held-out ELBO has not risen for so many epochs."""
        return patience is not None and len(self.records) - self.best_epoch >= patience

    def _called_off(self, callbacks: Sequence[Callback], row: dict[str, float]) -> bool:
        """Call every callback; True where one of them ends the fit."""
        model, guide = self.pair.model.function, self.pair.guide.function
        answers = [callback(dict(row), model, guide) for callback in callbacks]
        return any(answer is True for answer in answers)

    def _restore_best(self) -> None:
        """Put the weights of the best held-out ELBO back, where rows were held out."""
        if self.best:
            with torch.no_grad():
                for name, value in self.pair.tensors().items():
                    value.copy_(self.best[name])

    @contextlib.contextmanager
    def _best_on_error(self) -> Iterator[None]:
        """Whatever ends the fit, the pair has its best weights."""
        try:
            yield
        except BaseException as error:
            self._restore_best()
            if self.recorder is not None and isinstance(error, NotFiniteError):
                self.recorder.finish(self.pair.tensors(), "not finite", {"error": str(error)})
            raise

    def _finish(self, stopped: str) -> History:
        self._restore_best()
        history = History(
            frame=pd.DataFrame(
                self.records, columns=["epoch", "step", "elbo", "validation_elbo", "seconds"]
            ),
            objective=self.objective.name,
            reason=self.objective.reason,
            stopped=stopped,
            best_epoch=self.best_epoch or len(self.records),
            step=self.stepper.kind,
            step_reason=self.stepper.reason,
        )
        if self.recorder is not None:
            summary = {"epochs": len(self.records), "step": self.step, "stopped": stopped,
                       "best_epoch": history.best_epoch, "best": _best_row(history),
                       "step_kind": history.step, "step_reason": history.step_reason}  # fmt: skip
            self.recorder.finish(self.pair.tensors(), "finished", summary)
        return history

    # What a snapshot keeps

    def _snapshot(self, start: float, *, now: bool) -> None:
        if self.recorder is None or not (now or self.recorder.due):
            return
        if not _finite(self.pair.tensors()):  # the next step will say what happened
            return
        tensors = {f"now/{name}": value for name, value in self.pair.tensors().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        self.recorder.snapshot(tensors, {**self.state(), "seconds": time.perf_counter() - start})

    def state(self) -> dict[str, Any]:
        """Everything but the weights and the global generators."""
        kept = ("epoch", "step", "order_before", "position", "total", "seen", "records",
                "best_epoch", "best_elbo")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in kept},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "stepper": self.stepper.state(),
        }

    def resume(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go back to a snapshot: weights, optimizer, scheduler, generators, place in the epoch."""
        with torch.no_grad():
            for name, value in self.pair.tensors().items():
                value.copy_(tensors[f"now/{name}"])
        best = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
        self.best = {name: value.to(self.device or value.device) for name, value in best.items()}
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.stepper.resume(state["stepper"])
        for name in self.state().keys() - {"optimizer", "scheduler", "stepper"}:
            setattr(self, name, state[name])
        self.seconds = state["seconds"]
        restore_generators(state)


def _finite(tensors: dict[str, Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in tensors.values())


def check_kl_weight(weight: Any, when: str = "") -> float:
    """A KL weight; ``ValueError`` unless it is a finite number of at least 0."""
    number = float(weight) if isinstance(weight, Real) else math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"kl_weight: expected a number of at least 0{when}, got {weight!r}")
    return number


def _make_optimizer(make: Any, parameters: list[Tensor]) -> torch.optim.Optimizer:
    hint = "pass a function of the parameters: lambda p: torch.optim.Adam(p, lr=1e-3)"
    if isinstance(make, torch.optim.Optimizer | PyroOptim) or not callable(make):
        raise ValueError(f"optimizer: expected a function, got {type(make).__name__}; {hint}")
    optimizer = make(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"optimizer: expected it to return a torch optimizer, got {type(optimizer).__name__}; "
            + hint
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("optimizer: LBFGS evaluates the loss itself; expected one that does not")
    return optimizer


def _make_scheduler(make: Any, optimizer: torch.optim.Optimizer) -> Any:
    if make is None:
        return None
    hint = "lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)"
    try:
        return make(optimizer)
    except TypeError as error:
        raise ValueError(
            f"scheduler: expected a function of the optimizer, got {error}; write {hint}"
        ) from error


def default_optimizer(parameters: list[Tensor], lr: float = 1e-3) -> torch.optim.Optimizer:
    """Adam, fused where the parameters' devices and dtypes allow it."""
    fusable = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    one_device = len({p.device for p in parameters}) == 1
    return torch.optim.Adam(parameters, lr=lr, fused=fusable and one_device)


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


def _best_row(history: History) -> dict[str, float | None]:
    frame = history.frame
    row = frame.loc[frame["epoch"] == history.best_epoch].iloc[-1]
    values = {str(name): float(value) for name, value in row.items()}
    return {name: None if math.isnan(value) else value for name, value in values.items()}
