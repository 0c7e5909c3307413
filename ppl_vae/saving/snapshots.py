"""Snapshots of a running fit, from which a fit that was cut off resumes, and its metrics.csv.

A snapshot is one file with the weights, the state of the optimizer, the random generators and the
history so far. It is taken after a step, at the end of an epoch or within one, as often as keeps
its cost below a fiftieth of the time of the fit. Two snapshots remain on the disk, the newest and
the previous one, so that one damaged file does not lose the fit.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.saving import storage
from ppl_vae.saving.locks import RunLock, remove_leftovers
from ppl_vae.saving.runs import INFO, PREVIOUS, SNAPSHOT, WEIGHTS, read_run, write_weights

SHARE = 50
"""A snapshot that took t seconds is followed by at least ``SHARE * t`` seconds without one."""

SOONEST = 1.0
"""The least number of seconds between two snapshots."""

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
        remove_leftovers(self.path, (INFO, WEIGHTS, SNAPSHOT, PREVIOUS, METRICS))
        self._due = time.monotonic() + SOONEST
        self._lost = False

    def close(self) -> None:
        """Unlock the run directory, so that another process may fit into it."""
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

    def snapshot(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a snapshot and rename the previous snapshot to ``previous.safetensors``.

        A full or lost disk gives a warning and does not end the fit.

        Args:
            tensors: Weights under the prefixes ``now/`` and ``best/``.
            state: Everything else that the fit needs to resume: numbers, texts and tensors,
                nested in any way. The states of the global random generators are added.
        """
        if not self.is_own():
            return
        start = time.monotonic()
        stored = dict(tensors)
        packed = storage.pack({**state, "generators": _generator_states()}, stored, "state")
        try:
            self._link_previous()
            owner = {"run": self.info["id"], "state": packed}
            storage.write_tensors(self.path / SNAPSHOT, stored, owner)
        except OSError as error:
            warnings.warn(
                f"run: no snapshot could be written to {self.path} ({error.strerror}); the fit "
                "goes on, and the last written snapshot remains",
                stacklevel=2,
            )
        now = time.monotonic()
        self._due = now + max(SOONEST, SHARE * (now - start))

    def epoch(self, records: list[dict[str, float]]) -> None:
        """Add the last epoch to ``metrics.csv``.

        A disk that is full costs the line and no more: the snapshots hold the whole history.

        Args:
            records: One dictionary for each epoch, with the columns of ``History.frame``.
        """
        if not self.is_own():
            return
        with contextlib.suppress(OSError):
            is_new = not (self.path / METRICS).exists()
            with (self.path / METRICS).open("a") as file:
                file.write(pd.DataFrame(records[-1:]).to_csv(index=False, header=is_new))

    def restart(self, records: list[dict[str, float]]) -> None:
        """Write ``metrics.csv`` anew with the epochs of a snapshot, from which the fit resumes.

        Epochs that ended after the snapshot are computed again, so their lines are dropped.
        """
        text = pd.DataFrame(records).to_csv(index=False) if records else ""
        storage.write_whole(self.path / METRICS, text.encode())

    def finish(self, tensors: dict[str, Tensor], status: str, summary: dict[str, Any]) -> None:
        """Write the weights and how the fit ended.

        A full disk gives a warning; the run then remains ``"running"`` and can be resumed.

        Args:
            tensors: Weights of the fitted pair by name.
            status: ``"finished"`` or ``"not finite"``.
            summary: Entry ``history`` of ``run.json``: epochs, steps, best epoch and more.
        """
        if not self.is_own():
            return
        try:
            write_weights(self.path, tensors, self.info)
            ended = {**self.info, "status": status, "history": summary}
            storage.write_json(self.path / INFO, ended)
        except OSError as error:
            warnings.warn(
                f"run: the weights could not be written to {self.path} ({error.strerror}); the "
                "pair in memory is fitted: save it elsewhere, or make room and resume",
                stacklevel=2,
            )

    def _link_previous(self) -> None:
        """Give the newest snapshot the name ``previous.safetensors`` as well.

        The next snapshot replaces the name ``snapshot.safetensors`` only. A hard link costs no
        copy, but cannot replace a name that is taken; so the link is made under a hidden name
        and renamed. At any moment at least one of the two names stands for a whole snapshot.
        """
        if (self.path / SNAPSHOT).exists():
            beside = self.path / f".{PREVIOUS}.{os.getpid()}.part"
            beside.unlink(missing_ok=True)
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
    identity = read_run(path).info["id"]
    errors = []
    for name in (SNAPSHOT, PREVIOUS):
        if not (path / name).exists():
            continue
        try:
            tensors, info = storage.read_tensors(path / name)
        except ValueError as error:
            errors.append(str(error))
            continue
        if info["run"] != identity:
            errors.append(f"{path / name}: belongs to another run")
            continue
        if errors:
            warnings.warn(f"{errors[0]}; resuming from the previous snapshot, {name}", stacklevel=2)
        return tensors, storage.unpack(info["state"], tensors)
    if errors:
        raise ValueError("; ".join(errors))
    return None


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
