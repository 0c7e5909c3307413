"""The loop of ``fit``: epochs of steps, held-out rows, snapshots, and how a fit ends.

An epoch draws an order of the rows, cuts it into batches, and gives each batch to the ``Stepper``.
Then held-out rows are evaluated, the scheduler is stepped, a row of the history is written,
callbacks are called, and the traced step is compared again with the eager one.

A fit that was killed goes on bit for bit, because everything that the rest of the fit depends on
is stored in a snapshot:

- the weights as they are now, and the weights of the best epoch so far;
- ``Progress``: the epoch, the step, the place within the epoch, the history;
- the state of the generator from which this epoch's order was drawn (an epoch that is cut off
  draws the same order again and leaves out the batches that are done);
- the states of the optimizer and of the scheduler;
- which kind of step runs (``Stepper.state``): the kinds differ in rounding, so a resumed fit must
  not choose again;
- torch's, numpy's and Python's global generators (added by ``Recorder``), from which the draws of
  the model and the guide come; the draws of shards come from the seed and the step alone.

Of several processes that run this loop, rank 0 alone ends the fit, calls callbacks and records.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ppl_vae.bars import Bar
from ppl_vae.compat.of_torch import mark_as_stepped
from ppl_vae.compiled.layout import write_back
from ppl_vae.core.rounds import Rounds
from ppl_vae.core.seeding import seed_generators
from ppl_vae.core.threads import on_threads
from ppl_vae.core.world import alone
from ppl_vae.data.rows import Rows
from ppl_vae.saving.metrics import COLUMNS, Metrics
from ppl_vae.saving.snapshots import Recorder, restore_generators
from ppl_vae.training.agreement import check_weights_alike, take_weights_of_rank_0
from ppl_vae.training.arguments import Callback, KLWeight, kl_weight_at, plain_numbers
from ppl_vae.training.diagnosis import NotFiniteError
from ppl_vae.training.give_up import MEND, FailedStep, explain, failed_shard, told
from ppl_vae.training.held_out import HeldOut
from ppl_vae.training.history import History
from ppl_vae.training.interrupts import first_interrupt_noted
from ppl_vae.training.many_steps import ManySteps
from ppl_vae.training.progress import Progress, are_finite, shown_elbo
from ppl_vae.training.stepper import Stepper


class Loop:
    """Trains a pair by its stepper, and holds all of a fit's state.

    Args:
        stepper: Makes the updates; its pair, rows and optimizer are the loop's.
        held_out: Rows that are held out, or ``None``.
        scheduler: One of torch's, stepped once an epoch, or ``None``.
        kl_weight: A number, or a function of the step.
        seed: Seeds the order of the rows and the draws for the held-out ELBO; ``None`` takes a
            seed from torch's global generator.

    Attributes:
        progress: How far the fit has come.
        recorder: Writes to the run directory; ``None`` for a fit without one.
    """

    def __init__(
        self,
        stepper: Stepper,
        held_out: Rows | None,
        scheduler: Any,
        kl_weight: KLWeight,
        seed: int | None,
    ) -> None:
        self.stepper, self.pair, self.rows = stepper, stepper.pair, stepper.rows
        self.optimizer, self.scheduler = stepper.optimizer, scheduler
        self.kl_weight, self.seed = kl_weight, seed
        self.team = stepper.team
        bound = stepper.derivative.bound
        self.held_out = None if held_out is None else HeldOut(held_out, bound, seed)
        self.device = self.pair.device()
        order_seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.order = torch.Generator().manual_seed(order_seed)
        self.progress = Progress(order_before=self.order.get_state())
        self.best: dict[str, Tensor] = {}
        self.recorder: Recorder | None = None
        self._seconds_before = 0.0  # spent by the processes that this one goes on from
        self._start = time.perf_counter()

    def run(
        self, epochs: int, patience: int | None, callbacks: Sequence[Callback], *, show: bool | None
    ) -> History:
        """Train until the number of epochs, the patience, a callback or Ctrl-C ends the fit.

        Args:
            epochs: Passes over the data, in the whole fit.
            patience: Epochs without a better held-out ELBO that end the fit, or ``None``.
            callbacks: Called after each epoch.
            show: Whether to show a progress bar, as ``fit`` has it.

        Returns:
            The history. The pair has its best weights.
        """
        self._start = time.perf_counter() - self._seconds_before
        stopped = "patience" if self._patience_is_over(patience) else "epochs"
        bar = Bar("preparing the step", show).only(self.team.first).over(
            total=epochs * self.stepper.steps_per_epoch, initial=self.progress.step, unit="step",
            mininterval=0.3, keep=True,
        )  # fmt: skip
        few = on_threads(self.stepper.threads)
        with bar, first_interrupt_noted() as interrupted, self._best_weights_on_error(), few:
            self.stepper.prepare()
            while self.progress.epoch <= epochs and stopped == "epochs":
                bar.set_description(f"epoch {self.progress.epoch}/{epochs}", refresh=False)
                first_step = self.progress.step
                self._train_epoch(bar, interrupted)
                if interrupted:  # the history closes the epoch, a resumed fit goes on within it
                    self._snapshot(now=True)
                row = self._close_epoch()
                text = shown_elbo(row, self.stepper.objective.measure)
                bar.set_postfix_str(text, refresh=False)
                if self._call(callbacks, row):
                    stopped = "callback"
                elif self._patience_is_over(patience):
                    stopped = "patience"
                elif interrupted:
                    stopped = "interrupted"
                stopped = self.team.text(stopped, "the end of an epoch")
                if stopped == "epochs" and self.progress.epoch <= epochs:
                    self.stepper.check(first_step, self.progress.step)
                if not interrupted:
                    self._snapshot(now=stopped != "epochs" or self.progress.epoch > epochs)
        return self._finish(stopped)

    # Steps

    def _train_epoch(self, bar: Any, interrupted: list[bool]) -> None:
        """Update from the remaining batches of the epoch, until Ctrl-C."""
        progress = self.progress
        self.order.set_state(progress.order_before)
        batches = self.stepper.batches(self.order)
        many, failed = ManySteps(self.stepper), None
        with self.stepper.rounds() as rounds:
            while progress.position < len(batches):
                before, index = progress.position, batches[progress.position]
                for losses in many(batches, before, self._weight):
                    progress.count(losses, len(index))
                if progress.position == before:
                    failed = self._step(index, rounds, interrupted)
                if failed is not None:
                    break
                bar.update(progress.position - before)
                if self._stops(interrupted):
                    break
                if self.recorder is not None and self.recorder.due:
                    self._snapshot(now=True)
        if failed is not None:
            self._give_up(failed)

    def _stops(self, interrupted: list[bool]) -> bool:
        """Return whether Ctrl-C was pressed, on any rank; all ranks answer alike."""
        sharded = self.stepper.sharded
        if sharded is None:
            return bool(interrupted)
        if sharded.interrupted and not interrupted:
            interrupted.append(True)
        return sharded.interrupted

    def _step(self, index: Tensor, rounds: Rounds | None, pressed: list[bool]) -> FailedStep | None:
        """Update once from the rows at ``index``, (rows,); return the step where it failed.

        Of shards, ``rounds`` is the exchange with the other processes; ``pressed`` notes Ctrl-C.
        """
        weight = self._weight()
        if rounds is not None:
            of_all = index, weight, self.progress.step, rounds, pressed
            losses, applied = self.stepper.step_of_shards(*of_all)
            if not applied:
                return failed_shard(self.stepper, weight, losses)
        else:
            rng_state = torch.get_rng_state()
            try:
                losses, applied = self.stepper(index, weight, rng_state)
            except ValueError as error:  # Pyro's own checks may meet NaN first
                return FailedStep(index, weight, rng_state, [math.nan, math.nan], error)
            if not applied:
                return FailedStep(index, weight, rng_state, losses)
        self.progress.count(losses, len(index))
        return None

    def _weight(self, ahead: int = 0) -> float:
        """Return the KL weight of the next step, or of the step some steps ahead of it."""
        return kl_weight_at(self.kl_weight, self.progress.step + ahead)

    def _give_up(self, failed: FailedStep) -> NoReturn:
        """Raise ``NotFiniteError`` that names what stopped being finite."""
        own = explain(self.stepper, failed) if self.team.rank == failed.rank else None
        found = told(self.team, own, failed.rank)
        progress = self.progress
        batch = f"batch {progress.position} (step {progress.step}){failed.part}"
        where = f"epoch {progress.epoch}, {batch}"
        weights = f"those of epoch {progress.best_epoch}" if self.best else self._restore_finite()
        raise NotFiniteError(
            f"fit: the {found.what} at {where}: {found.site}. The update was not applied, the "
            f"weights are {weights}; {MEND}",
            found.culprit,
        ) from found.cause

    def _restore_finite(self) -> str:
        """Restore finite weights, where there are any, and return words for which they are."""
        if are_finite(self.pair.tensors()):
            return "those before it"
        snapshot = None if self.recorder is None else self.recorder.last_snapshot()
        words = "not finite either: with validation= or run=, finite weights are stored"
        if snapshot is not None:
            self._restore({n.removeprefix("now/"): t for n, t in snapshot[0].items()})
            words = f"those of step {snapshot[1]['step']}"
        take_weights_of_rank_0(self.team, self.pair)
        return self.team.text(words, "the weights after a step that failed")

    # Epochs

    def _close_epoch(self) -> dict[str, float]:
        """End the epoch: held-out ELBO, best weights, scheduler; return its row of the history."""
        progress = self.progress
        totals = progress.total, progress.objective_total
        elbo, objective = (-total / progress.seen / len(self.rows) for total in totals)
        validation_elbo = math.nan if self.held_out is None else self._evaluate(self.held_out)
        if self.scheduler is not None:
            metric = elbo if self.held_out is None else validation_elbo
            mark_as_stepped(self.optimizer)  # a compiled step updates without optimizer.step()
            if isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step(-metric)
            else:
                self.scheduler.step()
        values = (progress.epoch, progress.step, elbo, objective, validation_elbo)
        check_weights_alike(self.team, self.pair, progress.epoch)
        row = dict(zip(COLUMNS, (*values, self._seconds()), strict=True))
        progress.records.append(row)
        if self.recorder is not None:
            self.recorder.epoch(progress.records)
        progress.epoch += 1
        progress.order_before = self.order.get_state()
        progress.total = progress.objective_total = 0.0
        progress.position = progress.seen = 0
        return row

    def _evaluate(self, held_out: HeldOut) -> float:
        """Return the held-out ELBO, in nats per row, and store the weights where it is the best."""
        elbo = held_out.on_curve()
        if not math.isfinite(elbo):
            where = f"at epoch {self.progress.epoch}{held_out.fault()}"
            raise NotFiniteError(f"fit: the held-out ELBO became {elbo} {where}; {MEND}", None)
        if elbo > self.progress.best_elbo:
            self.progress.best_elbo, self.progress.best_epoch = elbo, self.progress.epoch
            self.best = {n: t.detach().clone() for n, t in self.pair.tensors().items()}
        return elbo

    def _patience_is_over(self, patience: int | None) -> bool:
        """Return whether the held-out ELBO has not risen for ``patience`` epochs."""
        waited = len(self.progress.records) - self.progress.best_epoch
        return patience is not None and waited >= patience

    def _call(self, callbacks: Sequence[Callback], row: dict[str, float]) -> bool:
        """Call every callback; return whether one of them returned True, which ends the fit.

        Of several processes rank 0 alone calls them, and the others take its weights, which a
        callback may change. The draws of a callback are the same on any number of processes.
        """
        sharded = self.stepper.sharded
        if sharded is not None:
            seed_generators(sharded.noise_seed(self.progress.step, sharded.shards))
        answers: list[object] = []
        if self.team.first:
            model, guide = self.pair.model.function, self.pair.guide.function
            with alone():
                answers = [callback(dict(row), model, guide) for callback in callbacks]
        if callbacks:
            take_weights_of_rank_0(self.team, self.pair)
        return any(answer is True for answer in answers)

    def _seconds(self) -> float:
        """Return the seconds that the fit has taken, in all its processes."""
        return time.perf_counter() - self._start

    # The end

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Copy weights into the pair, where there are any."""
        if not tensors:
            return
        older = self.pair.unregistered().keys() - tensors.keys()  # snapshots that do not hold them
        for name, value in self.pair.tensors().items():
            if name not in older:
                write_back(value, tensors[name])

    @contextlib.contextmanager
    def _best_weights_on_error(self) -> Iterator[None]:
        """Restore the best weights where an error ends the block, and raise the error again.

        The weights are written to the run directory where the fit stopped being finite, because
        such a fit cannot be resumed.
        """
        try:
            yield
        except BaseException as error:
            self._restore(self.best)
            if self.recorder is not None and isinstance(error, NotFiniteError):
                summary = {"error": str(error)}
                weights, records = self.pair.tensors(), self.progress.records
                self.recorder.finish(weights, records, "not finite", summary)
            raise

    def _finish(self, stopped: str) -> History:
        """Restore the best weights, write the run directory, and return the history."""
        self._restore(self.best)
        records = self.progress.records
        afresh = (None, None) if self.held_out is None else self.held_out.afresh()
        history = History(
            frame=records.frame(),
            objective=self.stepper.objective.name,
            reason=self.stepper.objective.reason,
            stopped=stopped,
            best_epoch=self.progress.best_epoch or len(records),
            step=self.stepper.kind,
            step_reason=self.stepper.reason,
            validation_elbo=afresh[0],
            validation_elbo_se=afresh[1],
            measure=self.stepper.objective.measure,
            shards=self.stepper.shards,
            threads=self.stepper.threads or torch.get_num_threads(),
        )
        if self.recorder is not None:
            summary = history.summary(self.progress.step)
            self.recorder.finish(self.pair.tensors(), records, "finished", summary)
        return history

    # Snapshots

    def _snapshot(self, *, now: bool) -> None:
        """Write a snapshot where the fit has a run directory, ``now`` or where one is due.

        Weights that are not finite are not stored: the next step raises, and the last snapshot
        holds the weights to restore.
        """
        if self.recorder is None or not (now or self.recorder.due):
            return
        weights = self.pair.tensors()
        if are_finite(weights):
            tensors = {f"now/{name}": value for name, value in weights.items()}
            tensors |= {f"best/{name}": value for name, value in self.best.items()}
            self.recorder.snapshot(tensors, self.state)

    def state(self) -> dict[str, Any]:
        """Return what a snapshot stores besides the weights and the global generators."""
        state: dict[str, Any] = {
            **vars(self.progress),
            "records": self.progress.records.tensor(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "stepper": self.stepper.state(),
            "seed": self.seed,
            "seconds": self._seconds(),
        }
        return {name: plain_numbers(value) for name, value in state.items()}

    def resume(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Restore everything that a snapshot stores, so that ``run`` goes on from there.

        Args:
            tensors: Weights under ``"now/"`` and ``"best/"``.
            state: What ``state`` returned, and the states of the global generators.
        """
        self._restore({n.removeprefix("now/"): t for n, t in tensors.items()})
        best = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
        self.best = {name: value.to(self.device or value.device) for name, value in best.items()}
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.stepper.resume(state["stepper"])
        stored = {name: state[name] for name in vars(self.progress) if name in state}
        self.progress = Progress(**{**stored, "records": Metrics(state["records"])})
        self._seconds_before = state["seconds"]
        self._take_seed(state.get("seed"))
        restore_generators(state)

    def _take_seed(self, seed: int | None) -> None:
        """Go on with the seed that a fit from shards drew, where the user gave none."""
        if self.stepper.sharded is None or seed is None:
            return
        self.seed = self.stepper.sharded.seed = seed
        if self.held_out is not None:
            self.held_out = dataclasses.replace(self.held_out, seed=seed)
