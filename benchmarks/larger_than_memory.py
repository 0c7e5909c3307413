"""A fit to Parquet files beside the same fit to the rows in memory: rows a second, and memory.

    python benchmarks/larger_than_memory.py [--rows 20000000] [--rounds 2] [--out rows.jsonl]

    files     read_data(folder): 20 columns of single precision in row groups of 50,000 rows
    memory    the same rows as one tensor

Each fit is a process of its own, the two in turn. The pair is ``models/gaussian.py`` with
``guides/normal.py``: 20 features, 4 latents, batches of 512 rows, one epoch. ``rate`` is rows a
second of the epoch alone; ``seconds`` is the whole call of ``fit``, which looks at all rows first;
``MiB`` is the peak of the process above what its imports take. The files are written once, into
``--folder`` (2.4 GB at 20 million rows), a temporary folder by default. ``--tiny`` shows that it
runs.

Measured with the defaults and one thread (OMP_NUM_THREADS=1) beside other programs on two cores:

    round          files                        memory                    files over memory
    0      642,980 rows/s    708 MiB    748,160 rows/s  2,100 MiB        0.86
    1      628,878 rows/s    711 MiB    781,046 rows/s  2,103 MiB        0.81

By two threads on the same machine, before the last change to how rows are gathered, 0.79 and 0.75.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from json_lines import ResultLines

from ppl_vae import fit, read_data
from ppl_vae.data import row_groups
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

FEATURES, GROUP, FILES = 20, 50_000, 16
KINDS = ("files", "memory")


def write(folder: Path, rows: int, group: int) -> None:
    """Write the files, unless they are there: a few latents, mixed, and noise."""
    import pyarrow as arrow  # noqa: PLC0415  after the memory of the imports is measured
    import pyarrow.parquet  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    mixed = np.random.default_rng(0).normal(size=(4, FEATURES)).astype("f4")
    names = [f"x{number}" for number in range(FEATURES)]
    for number in range(FILES):
        file = folder / f"part-{number:02d}.parquet"
        if file.exists():
            continue
        rng = np.random.default_rng((1, number))
        values = rng.normal(size=(rows // FILES, 4)).astype("f4") @ mixed
        values += rng.normal(size=values.shape).astype("f4")
        table = arrow.table(dict(zip(names, values.T, strict=True)))
        arrow.parquet.write_table(table, file, row_group_size=group)


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(kind: str, folder: Path, tiny: bool) -> dict[str, Any]:
    """Fit once; return rows a second, seconds of the whole fit, and memory."""
    before = peak()
    if tiny:
        row_groups.MEMORY = 1
    data: Any = read_data(folder)
    if kind == "memory":
        table, data = data, torch.empty(data.shape)
        for index in torch.arange(len(table)).split(GROUP):
            data[index[0] : index[-1] + 1] = table.take(index)
        del table
    torch.manual_seed(0)
    pair = GaussianModel(FEATURES, 4), NormalGuide(FEATURES, 4)
    begun: list[float] = []

    def weight(step: int) -> float:
        begun.append(time.perf_counter()) if not begun else None
        return 1.0

    start = time.perf_counter()
    history = fit(*pair, data, epochs=1, batch_size=512, seed=0, kl_weight=weight, progress=False)
    end = time.perf_counter()
    return {
        "rate": round(len(data) / (end - begun[0])),
        "seconds": round(end - start, 1),
        "MiB": round(peak() - before),
        "elbo": float(history.frame["elbo"].iloc[-1]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the fits in turn and print each row, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(options.one, options.folder, options.tiny)))
        return
    rows, rounds, group = (3200, 1, 50) if options.tiny else (options.rows, options.rounds, GROUP)
    lines = ResultLines(options.out)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write(folder, rows, group)
        for number in range(rounds):
            for kind in KINDS:
                settings = {"kind": kind, "rows": rows, "round": number}
                if lines.find(**settings):
                    continue
                words = [sys.executable, __file__, "--one", kind, "--folder", str(folder)]
                words += ["--tiny"] if options.tiny else []
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                lines.append({**settings, **json.loads(done.stdout.splitlines()[-1])})
                print(lines.rows[-1], flush=True)
    rates = {k: statistics.median(r["rate"] for r in lines.rows if r["kind"] == k) for k in KINDS}
    print(f"rows a second, files over memory: {rates['files'] / rates['memory']:.2f}")


if __name__ == "__main__":
    main()
