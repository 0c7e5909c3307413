"""Snapshots of a running fit, from which a fit that was cut off resumes, and the fit's record.

A snapshot is one file with the weights, the state of the optimizer, the random generators and the
history so far. It is taken after a step, at the end of an epoch or within one, as often as keeps
its cost below a fiftieth of the time of the fit. Two snapshots remain on the disk, the newest and
the previous one, so that one damaged file does not lose the fit.

The record of the fit, a row for each epoch, is a part of each snapshot. At the end of the fit the
record is also written into a file of its own, which is quick to read. Both are checked when they
are read. ``metrics.csv`` is a copy for other programs and is never read.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.saving import storage
from ppl_vae.saving.locks import RunLock, remove_leftovers
from ppl_vae.saving.metrics import COLUMNS, Metrics
from ppl_vae.saving.runs import INFO, PREVIOUS, SNAPSHOT, WEIGHTS, read_run, write_weights

SHARE = 50
"""A snapshot that took t seconds is followed by at least ``SHARE * t`` seconds without one."""

SOONEST = 1.0
"""The least number of seconds between two snapshots."""

HISTORY = "history.safetensors"
METRICS = "metrics.csv"


class Recorder:
    """Writer of the snapshots, the history and the final weights of one fit.

    A new ``Recorder`` deletes the hidden files that a killed process left half written in the run
    directory. Before each writing the recorder looks whether the directory is still the one that
    was locked. Where the directory was moved, deleted or replaced during the fit, a warning says so
    once, nothing more is written, and the fit goes on.

    Args:
        path: The run directory.
        info: The contents of its ``run.json``.
        lock: The lock of the directory, which this process holds; taken here where ``None``.

    Raises:
        ValueError: If another process is fitting into the directory.
    """

    def __init__(self, path: Path, info: dict[str, Any], lock: RunLock | None = None) -> None:
        self.lock = RunLock(path) if lock is None else lock
        self.path, self.info = self.lock.path, info
        remove_leftovers(self.path, (INFO, WEIGHTS, SNAPSHOT, PREVIOUS, HISTORY, METRICS))
        self._due = time.monotonic() + SOONEST
        self._lost, self._told = False, ""
        self._metrics, self._written, self._lines_due = Metrics(), 0, 0.0

    def close(self) -> None:
        """Complete ``metrics.csv``, and unlock the directory for other processes."""
        try:
            if self._written < len(self._metrics) and self.is_own():
                self._append_lines()
        finally:
            self.lock.close()

    def is_own(self) -> bool:
        """Return whether the run directory is still this fit's; warn once where it is not."""
        if not self._lost and not self.lock.is_own():
            self._lost = True
            warnings.warn(
                f"run: {self.path} was moved, deleted or replaced during the fit; the fit goes on, "
                "but nothing more is written there: save the fitted pair elsewhere",
                stacklevel=2,
            )
        return not self._lost

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last snapshot to take the next one."""
        return time.monotonic() >= self._due

    def snapshot(self, tensors: dict[str, Tensor], state: Callable[[], dict[str, Any]]) -> None:
        """Write a snapshot and rename the previous snapshot to ``previous.safetensors``.

        Whatever goes wrong, such as a full disk, too little memory, or an optimizer whose state
        only a pickle could store, gives a warning and does not end the fit. A warning is not
        repeated before another snapshot was written.

        Args:
            tensors: Weights under the prefixes ``now/`` and ``best/``.
            state: Returns everything else that the fit needs to resume: numbers, texts and tensors,
                nested in any way. The states of the global random generators are added.
        """
        if not self.is_own():
            return
        start = time.monotonic()
        try:
            stored = dict(tensors)
            packed = storage.pack({**state(), "generators": _generator_states()}, stored, "state")
            self._link_previous()
            owner = {"run": self.info["id"], "state": packed}
            storage.write_tensors(self.path / SNAPSHOT, stored, owner)
            self._told = ""
        except Exception as error:
            reason = _reason(error)
            if reason != self._told:
                self._told = reason
                warnings.warn(
                    f"run: no snapshot could be written to {self.path} ({reason}); the fit goes "
                    "on, and the last written snapshot remains",
                    stacklevel=2,
                )
        now = time.monotonic()
        self._due = now + max(SOONEST, SHARE * (now - start))

    def epoch(self, metrics: Metrics) -> None:
        """Add the epochs since the last call that wrote to ``metrics.csv``, at most once a second.

        A disk that is full costs the lines and no more: the snapshots hold the whole record.

        Args:
            metrics: The record of the fit.
        """
        self._metrics = metrics
        if time.monotonic() >= self._lines_due and self.is_own():
            self._append_lines()
            self._lines_due = time.monotonic() + SOONEST

    def _append_lines(self) -> None:
        """Append the epochs that ``metrics.csv`` does not have yet."""
        file = self.path / METRICS
        with contextlib.suppress(OSError):
            header = "" if file.exists() else ",".join(COLUMNS) + "\n"
            with file.open("a") as lines:
                lines.write(header + self._metrics.lines(self._written))
            self._written = len(self._metrics)

    def restart(self, metrics: Metrics) -> None:
        """Write ``metrics.csv`` anew from the record, and leave out what else was in the file.

        A resumed fit computes the epochs that ended after its snapshot again.
        """
        text = ",".join(COLUMNS) + "\n" + metrics.lines()
        with contextlib.suppress(OSError):
            storage.write_whole(self.path / METRICS, text.encode())
        self._metrics, self._written = metrics, len(metrics)

    def finish(
        self, tensors: dict[str, Tensor], metrics: Metrics, status: str, summary: dict[str, Any]
    ) -> None:
        """Write the weights, the record and how the fit ended.

        Whatever goes wrong gives a warning; the run then remains ``"running"`` and can be resumed.

        Args:
            tensors: Weights of the fitted pair by name.
            metrics: The record of the fit.
            status: ``"finished"`` or ``"not finite"``.
            summary: Entry ``history`` of ``run.json``: epochs, steps, best epoch and more.
        """
        if not self.is_own():
            return
        try:
            record = {"records": metrics.tensor()}
            storage.write_tensors(self.path / HISTORY, record, {"run": self.info["id"]})
            self.restart(metrics)
            write_weights(self.path, tensors, self.info)
            ended = {**self.info, "status": status, "history": summary}
            storage.write_json(self.path / INFO, ended)
        except Exception as error:
            warnings.warn(
                f"run: the weights could not be written to {self.path} ({_reason(error)}); the "
                "pair in memory is fitted: save it elsewhere, or make room and resume",
                stacklevel=2,
            )

    def last_snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what ``read_snapshot`` does; ``None`` where no snapshot of this fit is sound."""
        if not self.is_own():
            return None
        try:
            return read_snapshot(self.path)
        except ValueError:
            return None

    def _link_previous(self) -> None:
        """Give the newest snapshot the name ``previous.safetensors`` as well.

        The next snapshot replaces the name ``snapshot.safetensors`` only. A hard link costs no
        copy, but cannot replace a name that is taken; so the link is made under a hidden name
        and renamed. At any moment at least one of the two names stands for a whole snapshot.
        """
        if (self.path / SNAPSHOT).exists():
            beside = storage.free_name(self.path / PREVIOUS)
            try:
                os.link(self.path / SNAPSHOT, beside)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.path / SNAPSHOT, beside)
            beside.replace(self.path / PREVIOUS)
            beside.unlink(missing_ok=True)  # a rename between links of one file does nothing


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest undamaged snapshot of a run.

    If the newest snapshot is damaged, the previous one is used, with a warning.

    Returns:
        The tensors (weights under ``now/`` and ``best/``, and those of the state) and the state
        that ``Recorder.snapshot`` was given; ``None`` if no snapshot was taken yet.

    Raises:
        ValueError: If there are snapshots and all of them are damaged.
    """
    found = _first_sound(path, read_run(path).info, (SNAPSHOT, PREVIOUS))
    if found is None:
        return None
    name, tensors, owner, errors = found
    if errors:
        warnings.warn(f"{errors[0]}; resuming from the previous snapshot, {name}", stacklevel=2)
    return tensors, storage.unpack(owner["state"], tensors)


def read_metrics(path: Path, info: Mapping[str, Any]) -> Metrics | None:
    """Return the record of a fit, of one that is still running as well, up to its last snapshot.

    The record is read from checked files only. Where one is damaged and no other one is sound, a
    warning says so.

    Args:
        path: The run directory.
        info: The contents of its ``run.json``.

    Returns:
        The record; ``None`` where no epoch is recorded.
    """
    ended = info.get("status") in ("finished", "not finite")
    names = (HISTORY, SNAPSHOT, PREVIOUS) if ended else (SNAPSHOT, PREVIOUS)
    try:
        found = _first_sound(path, info, names)
        if found is None:
            return None
        _, tensors, owner, errors = found
        state = storage.unpack(owner["state"], tensors) if "state" in owner else tensors
        metrics = Metrics(state["records"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{path}: the history of the fit cannot be read ({error})", stacklevel=2)
        return None
    if errors:
        warnings.warn(f"{errors[0]}; the history is read from another file", stacklevel=2)
    return metrics if len(metrics) else None


def _first_sound(
    path: Path, info: Mapping[str, Any], names: Sequence[str]
) -> tuple[str, dict[str, Tensor], dict[str, Any], list[str]] | None:
    """Read the first file of a run that is there, is undamaged and belongs to the run.

    Args:
        path: The run directory.
        info: The contents of its ``run.json``.
        names: Names of the files, in the order in which they are tried.

    Returns:
        The file's name, its tensors and its JSON value, and what is wrong with the files that were
        tried before; ``None`` where there is none of the files.

    Raises:
        ValueError: If there are files, and none of them is sound.
    """
    errors = []
    for name in names:
        if not (path / name).exists():
            continue
        try:
            tensors, owner = storage.read_tensors(path / name)
        except ValueError as error:
            errors.append(str(error))
            continue
        if owner["run"] == info["id"]:
            return name, tensors, owner, errors
        errors.append(f"{path / name}: belongs to another run")
    if errors:
        raise ValueError("; ".join(errors))
    return None


def _reason(error: Exception) -> str:
    """Return in words why a file could not be written."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def restore_generators(state: dict[str, Any]) -> None:
    """Set the global random generators (torch, Python, NumPy, CUDA) to those of a snapshot.

    Args:
        state: The state that ``read_snapshot`` returned.
    """
    generators = state["generators"]
    torch.set_rng_state(generators["torch"])
    random.setstate(generators["python"])
    kind, keys, *rest = generators["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in generators:
        torch.cuda.set_rng_state_all(generators["cuda"])


def _generator_states() -> dict[str, Any]:
    """Return the states of the global random generators, in a form that ``pack`` can store."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  Pyro seeds the global one
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).astype(np.int64), *rest),
    }
    if torch.cuda.is_initialized():  # a fit on the CPU leaves the device alone
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states
