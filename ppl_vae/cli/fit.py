"""``ppl-vae fit``: fits a pair to a data file and stores the fit in a run directory."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ppl_vae
from ppl_vae.cli.console import INTERRUPTED, CommandOutput, UsageError, reporting, with_options
from ppl_vae.cli.options import (
    AsJson,
    Columns,
    Covariates,
    Data,
    Device,
    Drop,
    Fields,
    Guide,
    Ignore,
    Kinds,
    Label,
    Missing,
    Model,
    Plate,
    Quiet,
    SchemaFile,
    Seed,
    Settings,
    Step,
    UnseenMissing,
)
from ppl_vae.cli.pairs import build_pair, check_names, read
from ppl_vae.cli.processes import in_a_world, is_first, run_in_processes
from ppl_vae.cli.sequence_files import SequenceColumns
from ppl_vae.cli.table_files import TableOptions
from ppl_vae.saving.locks import RunLock

if TYPE_CHECKING:
    from ppl_vae.training.history import History

RECORD = "run.json"  # a folder with this file is a run directory


def fit(
    model: Model,
    guide: Guide,
    data: Data,
    run: Annotated[Path, typer.Option(metavar="DIR", help="Run directory to store the fit in.")],
    columns: Columns = None,
    drop: Drop = None,
    fields: Fields = None,
    label: Label = None,
    step: Step = None,
    kinds: Kinds = None,
    ignore: Ignore = None,
    missing: Missing = None,
    covariates: Covariates = None,
    unseen_missing: UnseenMissing = False,
    schema: SchemaFile = None,
    settings: Settings = None,
    validation: Annotated[
        str | None, typer.Option(metavar="SHARE|FILE", help="Rows to hold out: a share, or a file.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data, at most.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one update.")] = 128,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's; 0.001 by default.")] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Pieces of a batch; as many as processes by default.")
    ] = None,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes that share the fit on this machine.")
    ] = 1,
    kl_weight: Annotated[float, typer.Option(min=0, help="Weight of every latent site.")] = 1.0,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Epochs without a better held-out ELBO.")
    ] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the step, or never do.")
    ] = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run where it ended or was cut off.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew; an older run there becomes DIR.old.")
    ] = False,
    device: Device = None,
    plate: Plate = "data",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit a pair to a data file by SVI, and store the fit in a run directory.

    Snapshots are stored as the fit goes: after a kill, the same command with --resume continues.
    Ctrl-C ends the fit after the current step, with the best weights so far.

    --nproc 2 shares the fit between two processes of this machine; on several machines, torchrun
    starts the processes: torchrun ... -m ppl_vae.cli fit ... The fit depends on --shards, but not
    on the number of processes.
    """
    first = is_first()
    with reporting(as_json and first, quiet or not first) as output:
        _check_options(run, resume=resume, force=force, validation=validation, patience=patience)
        if nproc > 1 and not in_a_world():
            raise typer.Exit(run_in_processes(nproc, sys.argv[1:]))
        check_names(model, guide)
        optimizer = None if learning_rate is None else _adam(learning_rate)
        choice: dict[str, Any] = {"columns": columns, "drop": drop, "label": label}
        options = TableOptions.of(
            kinds, ignore, missing, covariates, schema, unseen_missing=unseen_missing
        )
        if options.are_wanted(model):
            of_sequences = None
            rows: Any = options.read(data, **choice)
            output.show(with_options(str(rows.schema)), "")
        else:
            of_sequences = SequenceColumns.wanted(data, None, step=step, **choice)
            rows = read(data, fields=fields, of_sequences=of_sequences, **choice)
        of_sequences = None if of_sequences is None else of_sequences.named(data)
        held_out = _held_out(validation, rows, of_sequences)
        pair = build_pair(model, guide, rows, settings, seed, device)
        with _older_run_set_aside(run, output, force=force):
            history = ppl_vae.fit(
                *pair, rows, validation=held_out, optimizer=optimizer, epochs=epochs,
                batch_size=batch_size, shards=shards, kl_weight=kl_weight, clip_norm=clip_norm,
                patience=patience,
                compile="auto" if compiled is None else compiled, seed=seed, run=run,
                resume=resume, progress=output.progress, plate=plate,
            )  # fmt: skip
        if first and of_sequences is not None:
            of_sequences.save(run)
        _show(output, history, run)
        if first and not (run / "weights.safetensors").is_file():
            raise ValueError(f"{run}: the weights could not be written; make room and --resume")


def _check_options(
    run: Path, *, resume: bool, force: bool, validation: str | None, patience: int | None
) -> None:
    """Raise ``UsageError`` for options that are wrong by themselves, before torch is loaded.

    Args:
        run: The run directory: new, empty, or a run together with ``resume`` or ``force``.
        resume: Whether to continue the run.
        force: Whether to replace the run.
        validation: The option as given.
        patience: The option as given; needs held-out rows.
    """
    if resume and force:
        raise UsageError("--resume continues the run and --force replaces it: give one of them")
    if patience is not None and validation is None:
        raise UsageError("--patience needs held-out rows: give --validation too")
    if not is_first():  # rank 0 may have begun the run by now
        return
    if run.exists() and not run.is_dir():
        raise UsageError(f"--run {run}: expected a directory, got a file")
    filled = run.is_dir() and any(run.iterdir())
    if filled and not (run / RECORD).is_file():
        raise UsageError(f"--run {run}: holds files that are no run; choose another directory")
    if filled and not resume and not force:
        raise UsageError(
            f"--run {run}: a run is there already; --resume continues it, --force begins anew"
        )


def _held_out(validation: str | None, rows: Any, of_sequences: SequenceColumns | None) -> Any:
    """Return the fraction to hold out, or the rows of the given file in the data's form."""
    if validation is None:
        return None
    try:
        return float(validation)
    except ValueError:
        path = Path(validation)
        choice: dict[str, Any] = {"columns": None, "drop": None, "label": None}
        wanted = SequenceColumns.wanted(path, of_sequences, step=None, **choice)
        return read(path, rows, of_sequences=wanted)


def _adam(learning_rate: float) -> Callable[[list[Any]], Any]:
    """Return a function that makes Adam, with this learning rate, of a list of parameters.

    Raises:
        UsageError: At once, if the rate is not positive.
    """
    if not learning_rate > 0:
        raise UsageError(f"--learning-rate: expected a positive number, got {learning_rate}")

    def optimizer(parameters: list[Any]) -> Any:
        from ppl_vae.training.arguments import default_optimizer  # noqa: PLC0415  loads torch

        return default_optimizer(parameters, learning_rate)

    return optimizer


@contextlib.contextmanager
def _older_run_set_aside(run: Path, output: CommandOutput, *, force: bool) -> Iterator[None]:
    """Rename an older run to DIR.old while the block runs.

    The new name stays where the block began a new run. Where the fit was refused before that, the
    older run gets its name back, as if the command had not been given.

    Raises:
        ValueError: If another process is fitting into the older run, which is then left alone.
    """
    if not (force and is_first() and (run / RECORD).is_file()):
        yield
        return
    with contextlib.closing(RunLock(run)):
        places = [run.with_name(f"{run.name}.old{n or ''}") for n in range(1000)]
        aside = next(place for place in places if not os.path.lexists(place))
        run.rename(aside)
        try:
            yield
        finally:
            if not (run / RECORD).is_file():
                with contextlib.suppress(OSError):  # something else is there now
                    aside.rename(run)
            if aside.exists():
                output.note(f"the older run is now {aside}")


def _show(output: CommandOutput, history: History, run: Path) -> None:
    """Print the history, or its JSON; raise ``typer.Exit`` where Ctrl-C ended the fit."""
    frame, last = history.frame, history.frame.iloc[-1]
    best = frame[frame["epoch"] == history.best_epoch].iloc[-1]
    output.result(
        {
            "run": run, "epochs": len(frame), "steps": int(last["step"]),
            "seconds": float(last["seconds"]), "objective": history.objective,
            "reason": history.reason, "step": history.step, "step_reason": history.step_reason,
            "stopped": history.stopped, "best_epoch": history.best_epoch,
            "elbo": float(best["elbo"]), "objective_per_row": float(best["objective"]),
            "validation_elbo": history.validation_elbo,
            "validation_elbo_se": history.validation_elbo_se, "measure": history.measure,
            "converged": history.converged, "shards": history.shards,
        }
    )  # fmt: skip
    output.show(str(history), f"stored in        {run}")
    if history.stopped == "interrupted":
        output.note("ended by Ctrl-C; the same command with --resume continues")
        raise typer.Exit(INTERRUPTED)
