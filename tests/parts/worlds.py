"""Programs that run in several processes over loopback, as ``torchrun`` starts them."""

import contextlib
import importlib
import json
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import torch

from ppl_vae.core.world import as_bytes

# Processes are forked from one that has imported torch already, which takes seconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["parts.world_programs"])


def start(program, *arguments, size=2):
    """Start ``program`` of ``parts/world_programs.py`` on every rank.

    Returns:
        For each rank the process, and the folder with what it writes, in ``1`` and ``2``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    found = []
    for each in range(size):
        folder = tempfile.mkdtemp()
        environment = {**os.environ, **shared, "RANK": str(each)}
        process = PROCESSES.Process(target=_run, args=(program, arguments, environment, folder))
        process.start()
        found.append((process, Path(folder)))
    return found


def _run(program, arguments, environment, folder):
    """Run a program in a new process; an error ends it with 1 and a traceback."""
    os.environ.clear()
    os.environ.update(environment)
    for stream in (1, 2):
        file = os.open(Path(folder) / str(stream), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, stream)
    warnings.simplefilter("error")
    getattr(importlib.import_module("parts.world_programs"), program)(*arguments)


def ended(processes, seconds=300):
    """Wait for processes; returns (exit code, stdout, stderr) of each."""
    found = []
    with contextlib.ExitStack() as at_last:
        for process, _ in processes:
            at_last.callback(process.kill)
        for process, folder in processes:
            process.join(seconds)
            assert process.exitcode is not None, f"the process still runs after {seconds} s"
            out, err = ((folder / stream).read_text() for stream in "12")
            shutil.rmtree(folder)
            found.append((process.exitcode, out, err))
    return found


def answers(program, *arguments, size=2):
    """Run a program on every rank; returns what each rank told with ``tell``."""
    found = ended(start(program, *arguments, size=size))
    for code, _, err in found:
        assert code == 0, err
    return [json.loads(out.strip().splitlines()[-1]) for _, out, _ in found]


def tell(value):
    """Print the answer of a program."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def checksum(*tensors):
    """Return a checksum of the bits of tensors."""
    found = 0
    for tensor in tensors:
        found = zlib.crc32(memoryview(as_bytes(tensor).cpu().numpy()), found)
    return found


def weights_of(model, guide):
    """Return a checksum of the weights of a pair, those of plain functions included."""
    from ppl_vae.core.pair import Pair

    pair = Pair.of(model, guide, "data")
    return checksum(*(tensor for _, tensor in sorted(pair.tensors().items())))


def rank():
    """Return the rank that the environment gives this process."""
    return int(os.environ.get("RANK", "0"))


def seed_by_rank():
    """Draw other initial weights on every rank."""
    torch.manual_seed(rank())
