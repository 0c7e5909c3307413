"""Kills at chosen places: a process ends itself by SIGKILL just before, or within, one action.

A kill that comes after a chosen number of actions, not after a chosen time, hits the same place on
every machine, whatever else the machine does.
"""

import io
import multiprocessing
import os
import signal
from pathlib import Path

import torch

from ppl_vae.saving.snapshots import Recorder

PLACES = ("write", "flush", "rename", "link", "append", "step")
"""What is counted: a whole file written, a flush to the disk, a rename, a second name for a file,
a line added to the history, and a step of the fit that is about to be stored."""


def die():
    """End this process at once; no ``finally`` and no ``except`` runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_within(place, count):
    """Arrange that the ``count``-th action of a kind (from 1) is the last that the process begins.

    A write and an append are cut in the middle: half of the bytes are in the file. Before all
    other actions nothing is done. The patches hold for the rest of the process, so call this in a
    child process only.
    """
    remaining = count

    def last():
        nonlocal remaining
        remaining -= 1
        return remaining == 0

    def before(original):
        def action(*args, **kwargs):
            if last():
                die()
            return original(*args, **kwargs)

        return action

    class TornFile(io.BufferedWriter):
        def write(self, content):
            super().write(content[: len(content) // 2])
            self.flush()
            die()

    def open_torn(original, mode_cut):
        def action(path, mode="r", *args, **kwargs):
            if mode != mode_cut or path.name == "lock" or not last():
                return original(path, mode, *args, **kwargs)
            file = TornFile(io.FileIO(path, mode[0]))
            return file if "b" in mode else io.TextIOWrapper(file)

        return action

    if place in ("write", "append"):
        Path.open = open_torn(Path.open, {"write": "wb", "append": "a"}[place])
    elif place == "step":
        Recorder.snapshot = before(Recorder.snapshot)
    else:
        owner, name = {"flush": (os, "fsync"), "rename": (Path, "replace"), "link": (os, "link")}[
            place
        ]
        setattr(owner, name, before(getattr(owner, name)))


def run_and_kill(work, place, count):
    """Call ``work()`` in a forked child that is killed within an action; returns its exit code.

    The code is ``-signal.SIGKILL`` where the action was reached, and 0 where ``work`` ended first.
    """

    def child():
        torch.set_num_threads(1)
        kill_within(place, count)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode
