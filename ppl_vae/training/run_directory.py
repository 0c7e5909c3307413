"""The run directory of a fit: begun with a new fit, continued by a resumed one.

``run.json`` holds the settings of the fit. A resumed fit must have the same settings, the same
data, the same source files and the same constructor arguments; else it would not be the fit that
was cut off, and the first difference is an error that names the setting.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ppl_vae.core.world import World
from ppl_vae.saving import runs, same_code, snapshots
from ppl_vae.saving.locks import RunLock, check_new, is_taken
from ppl_vae.training.loop import Loop
from ppl_vae.training.settings import check_same_settings


def may_continue(path: Path, team: World, *, resume: bool) -> bool:
    """Return whether a fit resumes the run in a directory; ``False`` where a new run begins.

    Of several processes rank 0 alone looks, and tells the others.

    Raises:
        ValueError: If a new run would begin in a directory that is not empty. The directory is
            looked at again when the run begins, under its lock.
    """
    resumes = team.first and resume and is_taken(path)
    if team.first and not resumes:
        check_new(path)
    return team.text(str(resumes), "the run directory") == str(True)


def shards_of_run(run: runs.Run, shards: int | None) -> int:
    """Return the number of shards that a run was begun with; 1 in runs of older versions.

    Raises:
        ValueError: If another number is given.
    """
    begun = int((run.info.get("settings") or {}).get("shards", 1))
    if shards not in (None, begun):
        raise ValueError(
            f"resume: {run.path} was made with shards={begun}, got {shards}; pass the same, or "
            "choose another directory"
        )
    return begun


@contextlib.contextmanager
def recording(path: Path, loop: Loop, settings: dict[str, Any], *, resumes: bool) -> Iterator[None]:
    """Record a fit in its run directory while the block runs, and continue an older run there.

    Of several processes rank 0 alone locks the directory and writes into it. The others read the
    run that is continued, while rank 0 waits for them.

    Args:
        path: The run directory.
        loop: The loop; it gets a recorder, and the state of the run's snapshot where the run
            resumes.
        settings: From ``fit_settings``.
        resumes: Whether the directory holds the run to continue.

    Raises:
        ValueError: If the directory cannot be written, is damaged, or holds another fit.
    """
    threads = torch.get_num_threads()
    try:
        if resumes:
            _continue_run(path, loop, settings)
        elif loop.team.first:
            _begin_run(path, loop, settings)
    except OSError as error:
        raise ValueError(f"run: {path} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        if loop.recorder is not None:
            loop.recorder.close()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def check_recipe(loop: Loop) -> None:
    """Remove the recipe from a run that just ended where the fitted pair no longer matches it.

    A disk that fails now gives a warning: the weights are written, and the fit is done.
    """
    if loop.recorder is None or not loop.recorder.is_own():
        return
    try:
        same_code.remove_outdated_recipe(loop.recorder.path, loop.pair, loop.rows)
    except (OSError, ValueError) as error:
        path = loop.recorder.path
        warnings.warn(f"run: the recipe in {path} could not be checked ({error})", stacklevel=3)


def _begin_run(path: Path, loop: Loop, settings: dict[str, Any]) -> None:
    """Create the run directory of a new fit, and give the loop the recorder that writes into it.

    Args:
        path: The run directory.
        loop: The loop of the fit.
        settings: What ``run.json`` records, so that a resumed fit can be refused other settings.
    """
    objective = loop.stepper.objective
    more = {
        "settings": settings,
        "seed": loop.seed,
        "objective": objective.name,
        "reason": objective.reason,
        "stepper": loop.stepper.state(),
    }
    info, lock = runs.create_run(path, loop.pair, loop.rows, more)
    loop.recorder = snapshots.Recorder(path, info, lock)


def _continue_run(path: Path, loop: Loop, settings: dict[str, Any]) -> None:
    """Restore the loop from a run's snapshot, on as many threads as the run began with.

    The number of threads is restored because sums over rows are rounded differently on another
    number of threads. The directory is locked before it is read, so that what is read is what the
    last process wrote.

    Raises:
        ValueError: If the run is damaged, is no fit, or differs from this fit, or if another
            process is fitting into it.
    """
    if runs.read_run(path).info.get("settings") is None:
        raise ValueError(f"run: {path} holds a saved pair, not a fit; choose another directory")
    if not loop.team.first:
        loop.team.text("", "the lock of the run directory")
        _restore_run(path, loop, settings, None)
        return
    lock = RunLock(path)
    try:
        loop.team.text("", "the lock of the run directory")
        _restore_run(path, loop, settings, lock)
    except BaseException:
        lock.close()
        raise


def _restore_run(path: Path, loop: Loop, settings: dict[str, Any], lock: RunLock | None) -> None:
    """Restore the loop from the snapshot of a run that this process, or rank 0, has locked.

    Raises:
        ValueError: If the run is damaged, is no fit, or differs from this fit.
    """
    info = runs.read_run(path).info
    try:
        _check_same_fit(path, loop, info, settings)
        loop.stepper.resume(info["stepper"])
        snapshot = snapshots.read_snapshot(path)
        if snapshot is not None:
            loop.resume(*snapshot)
        if lock is not None:
            loop.recorder = snapshots.Recorder(path, info, lock)
            loop.recorder.restart(loop.progress.records)
        torch.set_num_threads(info["threads"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"resume: {path} is damaged ({error!r})") from error


def _check_same_fit(path: Path, loop: Loop, info: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise ``ValueError`` where a run was begun by another fit than the one at hand.

    Compared are the settings, the user's source files and the constructor arguments of the pair.
    """
    check_same_settings(path, info["settings"], settings, loop)
    changed = same_code.changed_sources(path, info, loop.pair)
    if changed:
        raise ValueError(
            f"resume: {changed[0]} is not as it was when {path} began; undo the edit, or begin "
            "another run"
        )
    if not same_code.recipe_matches(path, info, loop.pair, loop.rows):
        raise ValueError(
            f"resume: {path} was made with other constructor arguments of the model or the guide; "
            "pass the same, or choose another directory"
        )
