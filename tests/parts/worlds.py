"""Programs that run in several processes over loopback, as ``torchrun`` starts them."""

import json
import os
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import torch

from ppl_vae.core.world import as_bytes

TESTS = Path(__file__).parents[1]


def start(program, *arguments, size=2):
    """Start ``program`` of ``parts/world_programs.py`` on every rank; returns the processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["from parts.world_programs import", program, ";", program, f"(*{list(arguments)!r})"]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", " ".join(words)],
            env={**os.environ, **shared, "RANK": str(rank), "PYTHONPATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip


def ended(processes, seconds=300):
    """Wait for processes; returns (exit code, stdout, stderr) of each."""
    found = []
    for process in processes:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for each in processes:
                each.kill()
            raise
        found.append((process.returncode, out, err))
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
