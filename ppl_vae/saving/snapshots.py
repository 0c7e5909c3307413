"""Snapshots of a fit as it goes: what it needs to go on, and the record that people read.

A snapshot is one file, written beside and renamed; the one before is kept. They are taken as often
as costs at most a fiftieth of the time, at the end of an epoch or within one.
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

try:
    import fcntl
except ImportError:  # a system without file locks
    fcntl = None  # type: ignore[assignment]

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ppl_vae.saving.runs import INFO, PREVIOUS, SNAPSHOT, read_run, write_weights
from ppl_vae.saving.storage import (
    pack,
    read_tensors,
    unpack,
    write_json,
    write_tensors,
    write_whole,
)

SHARE = 50  # a snapshot's cost times this passes before the next one
SOONEST = 1.0  # seconds
METRICS = "metrics.csv"


class Recorder:
    """The run directory of one fit.

    Args:
        path: The directory.
        info: The contents of its ``run.json``.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path, self.info = path, info
        self._lock = _locked(path)
        for half_written in path.glob(".*.part"):  # of a process that was killed
            half_written.unlink()
        self._due = time.monotonic() + SOONEST

    def close(self) -> None:
        """Let another process fit into the run."""
        self._lock.close()

    @property
    def due(self) -> bool:
        """Whether it is time for a snapshot."""
        return time.monotonic() >= self._due

    def snapshot(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a snapshot; a disk that is full or gone costs a warning, not the fit."""
        start = time.monotonic()
        kept = dict(tensors)
        packed = pack({**state, "generators": _generators()}, kept, "state")
        try:
            self._keep_previous()
            write_tensors(self.path / SNAPSHOT, kept, {"run": self.info["id"], "state": packed})
        except OSError as error:
            warnings.warn(
                f"run: no snapshot could be written to {self.path} ({error.strerror}); the fit "
                "goes on, and the one before is kept",
                stacklevel=2,
            )
        now = time.monotonic()
        self._due = now + max(SOONEST, SHARE * (now - start))

    def epoch(self, records: list[dict[str, float]]) -> None:
        """Add the last epoch to the record that people read."""
        row = records[-1]
        with contextlib.suppress(OSError):  # the snapshot holds the history too
            whole = not (self.path / METRICS).exists()
            line = pd.DataFrame([row]).to_csv(index=False, header=whole)
            with (self.path / METRICS).open("a") as file:
                file.write(line)

    def restart(self, records: list[dict[str, float]]) -> None:
        """Put the record back to what a snapshot says."""
        text = pd.DataFrame(records).to_csv(index=False) if records else ""
        write_whole(self.path / METRICS, text.encode())

    def finish(self, tensors: dict[str, Tensor], status: str, summary: dict[str, Any]) -> None:
        """Write the weights and how the fit ended; a full disk leaves the run unfinished."""
        try:
            write_weights(self.path, tensors, self.info)
            write_json(self.path / INFO, {**self.info, "status": status, "history": summary})
        except OSError as error:
            warnings.warn(
                f"run: the weights could not be written to {self.path} ({error.strerror}); the "
                "pair in memory is fitted: save it elsewhere, or make room and resume",
                stacklevel=2,
            )

    def _keep_previous(self) -> None:
        """A second name for the snapshot that is about to be replaced."""
        if (self.path / SNAPSHOT).exists():
            beside = self.path / f".{PREVIOUS}.{os.getpid()}.part"
            beside.unlink(missing_ok=True)
            try:
                os.link(self.path / SNAPSHOT, beside)
            except OSError:  # a file system without second names
                shutil.copyfile(self.path / SNAPSHOT, beside)
            beside.replace(self.path / PREVIOUS)
            beside.unlink(missing_ok=True)  # where both were one file already


def _locked(path: Path) -> Any:
    """An open file that this process alone holds; ``ValueError`` where another has it."""
    file = (path / "lock").open("a")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise ValueError(f"run: another process is fitting into {path}") from None
    return file


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest sound snapshot of a run: (weights, state); ``None`` where there was none yet.

    Raises:
        ValueError: Where snapshots exist and none of them is sound.
    """
    identity = read_run(path).info["id"]
    errors = []
    for name in (SNAPSHOT, PREVIOUS):
        if not (path / name).exists():
            continue
        try:
            tensors, info = read_tensors(path / name)
        except ValueError as error:
            errors.append(str(error))
            continue
        if info["run"] != identity:
            errors.append(f"{path / name}: belongs to another run")
            continue
        if errors:
            warnings.warn(f"{errors[0]}; going on from {name}, the one before", stacklevel=2)
        return tensors, unpack(info["state"], tensors)
    if errors:
        raise ValueError("; ".join(errors))
    return None


def restore_generators(state: dict[str, Any]) -> None:
    """Put the global generators where a snapshot left them."""
    generators = state["generators"]
    torch.set_rng_state(generators["torch"])
    random.setstate(generators["python"])
    kind, keys, *rest = generators["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in generators:
        torch.cuda.set_rng_state_all(generators["cuda"])


def _generators() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  Pyro seeds the global one
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).astype(np.int64), *rest),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found
