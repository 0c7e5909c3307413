"""What a step costs on P processes: two of one thread each beside one of two threads, and more.

    step(P) = compute of rows / P + collective of the gradients of all shards + update

A "setup" is a number of processes and the threads of each. One process has one shard, the plain
step; P processes have P shards. All setups of all works run in turn, round after round, so that a
noisy machine disturbs all alike; a ratio compares times of the same round. The collective is timed
by itself, on messages of the size of the step's. On a machine with fewer cores than processes the
processes wait for each other's cores, and only the ratios of setups that fit are a result.

The lines below the table extend the measured numbers by the model

    step(P) = fixed + compute / P + 2 (P - 1) latency + 2 bytes (P - 1) / P / bandwidth

to 64 machines of this kind on a network of a given latency and bandwidth.

    python benchmarks/scale.py [--works vae-512x784 ...] [--setups 1x2 2x1] [--rounds 5] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from step_torch import whole_fit
from step_works import ConvWork, Work

from ppl_vae.core.pair import Pair
from ppl_vae.core.rounds import rounds, slices
from ppl_vae.core.world import world

WORKS = (
    Work("vae-512x784", rows=512, features=784, hidden=200, epochs=3),
    Work("vae-512x784-wide", rows=512, features=784, hidden=1000, epochs=1, data_rows=8192),
    ConvWork(
        "conv-128x28x28", rows=128, features=784, hidden=32, data_rows=2048, epochs=1,
    ),
)  # fmt: skip
TINY = {"rows": 8, "features": 9, "hidden": 5, "data_rows": 40, "compiler": False}
LATENCY, BANDWIDTH = 50e-6, 1.25e9  # seconds a message, bytes a second: 10 Gbit Ethernet
MACHINES = (1, 2, 4, 8, 16, 32, 64)


def work_of(name: str, tiny: bool) -> Work:
    """Return a work by its name."""
    work = next(work for work in WORKS if work.name == name)
    return replace(work, **TINY) if tiny else work


def serve(name: str, threads: int, tiny: bool) -> None:
    """Run laps of a work, one for each line on stdin; rank 0 prints what they took."""
    torch.set_num_threads(threads)
    work = work_of(name, tiny)
    laps = whole_fit(work, work.compiler)
    team = world()
    parameters = list(Pair.of(*work.pair(), "data").trainable().values())
    size = sum(p.numel() * p.element_size() for p in parameters)
    for _ in sys.stdin:
        seconds, loss = laps(work.epochs)
        cut = slices(team.size, 1)
        width = -(-size // cut // 16) * 16
        sent = torch.zeros(16 + cut * width, dtype=torch.uint8)
        with rounds(team, (16, 1, width), sent.device, "the benchmark") as each:
            start = time.perf_counter()
            for _ in range(20):
                each.sum(sent, lambda wide, number: wide[0, 0])
            collective = (time.perf_counter() - start) / 20
        if team.first:
            step = 1e3 * statistics.median(seconds) / work.steps
            found = {"step": step, "collective": 1e3 * collective, "bytes": size, "loss": loss}
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


def start(name: str, setup: str, tiny: bool) -> list[subprocess.Popen[str]]:
    """Start the processes of a setup such as ``"2x1"``: processes, threads of each."""
    processes, threads = map(int, setup.split("x"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    words = [sys.executable, __file__, "--serve", name, str(threads), *(["--tiny"] if tiny else [])]
    return [
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={
                **os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": str(threads),
                "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin take the cores of the others
            },
        )
        for rank in range(processes)
    ]  # fmt: skip


def measure(names: list[str], setups: list[str], rounds: int, tiny: bool) -> pd.DataFrame:
    """Return one row for each work, setup and round: milliseconds a step, and its collective's."""
    field = {(name, setup): start(name, setup, tiny) for name in names for setup in setups}
    records: list[dict[str, Any]] = []
    for number in range(rounds):
        for (name, setup), processes in field.items():
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("lap\n")
                process.stdin.flush()
            assert processes[0].stdout is not None
            answer = json.loads(processes[0].stdout.readline())
            records.append({"work": name, "setup": setup, "round": number, **answer})
            print(records[-1], file=sys.stderr, flush=True)
    for processes in field.values():
        for process in processes:
            process.communicate()
    return pd.DataFrame(records)


def ratios(frame: pd.DataFrame, setups: list[str]) -> pd.DataFrame:
    """Return how fast each setup is beside the first, by rounds: median, lowest, highest."""
    steps = frame.pivot_table(index=["work", "round"], columns="setup", values="step")
    found = {setup: steps[setups[0]] / steps[setup] for setup in setups[1:]}
    table = pd.DataFrame(found).groupby("work").agg(["median", "min", "max"])
    return table.round(3)


def modelled(frame: pd.DataFrame, work: Work) -> pd.DataFrame:
    """Extend a work's times to 64 machines: milliseconds a step, and speed beside one machine."""
    of_work = frame[frame["work"] == work.name]
    alone = of_work[of_work["setup"].str.startswith("1x")]["step"].median() / 1e3
    size = int(of_work["bytes"].iloc[0])
    fixed = min(2e-4 + 2.5 * size / 5e9, alone / 2)  # Python; the update touches 10 numbers each
    compute, records = alone - fixed, []
    for machines in MACHINES:
        waits, share = 2 * (machines - 1), (machines - 1) / machines
        network = waits * LATENCY + 2 * size * share / BANDWIDTH
        step = fixed + compute / machines + network
        more = fixed + 8 * compute / machines + network  # 8 times the rows
        speeds = {"speed": alone / step, "speed, 8 x the rows": (fixed + 8 * compute) / more}
        records.append({"machines": machines, "ms a step": 1e3 * step, **speeds})
    return pd.DataFrame(records).set_index("machines").round(2)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", nargs="*", default=[work.name for work in WORKS])
    parser.add_argument("--setups", nargs="*", default=["1x2", "2x1"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--serve", nargs=2)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]), arguments.tiny)
        return
    frame = measure(arguments.works, arguments.setups, arguments.rounds, arguments.tiny)
    columns = ["step", "collective", "bytes"]
    print(frame.groupby(["work", "setup"])[columns].median().round(3).to_string())
    print(f"\nspeed beside {arguments.setups[0]}\n{ratios(frame, arguments.setups).to_string()}")
    for name in arguments.works:
        table = modelled(frame, work_of(name, arguments.tiny))
        print(f"\n{name}, by the model\n{table.to_string()}")


if __name__ == "__main__":
    main()
