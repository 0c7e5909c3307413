"""Several processes of one command on this machine, and which of them speaks.

``torchrun`` starts processes of the same shape, on one machine or on many; this is the short form
for one machine. Rank 0 alone prints. Where a process fails, the others are told by it, or, where it
could not tell them, ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

GRACE = 10.0  # seconds for the other processes to end by themselves after one has failed


def is_first() -> bool:
    """Return whether this process is the one that prints: rank 0, or the only one."""
    return not in_a_world() or os.environ.get("RANK", "0") == "0"


def in_a_world() -> bool:
    """Return whether the environment says that this process is one of several."""
    size = os.environ.get("WORLD_SIZE", "1")
    return size.isdigit() and int(size) > 1


def run_in_processes(count: int, words: list[str]) -> int:
    """Run the command in several processes, which share the cores of the machine; wait for all.

    Args:
        count: Number of processes.
        words: The command's arguments.

    Returns:
        The exit code: that of rank 0, or of the process that failed without telling rank 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
    }  # fmt: skip
    with tempfile.TemporaryFile() as errors:
        processes = []
        # Ctrl-C reaches every process of the terminal: this one waits until the others have ended
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            for rank in range(count):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                hidden: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": errors}
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "ppl_vae.cli", *words],
                        env={**os.environ, **shared, **own},
                        **(hidden if rank else {}),
                    )
                )
            return _wait(processes, errors)
        finally:
            signal.signal(signal.SIGINT, before)
            for process in processes:
                process.kill()


def _wait(processes: list[subprocess.Popen[bytes]], errors: IO[bytes]) -> int:
    """Wait until all processes have ended; after a failure, for some seconds more."""
    deadline = float("inf")
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if deadline == float("inf") and any(process.poll() for process in processes):
            deadline = time.monotonic() + GRACE
        time.sleep(0.05)
    first = processes[0].poll()
    if first is not None:
        return first if first >= 0 else 128 - first
    errors.seek(0)
    sys.stderr.write(errors.read().decode(errors="replace"))
    return 1
