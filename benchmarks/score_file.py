"""Speed and memory of scoring a Parquet file with a detector, beside a loop in PyTorch by hand.

    python benchmarks/score_file.py [--rows 10000000] [--samples 10] [--rounds 1] [--tiny]

Rows of 20 features, ``GaussianModel`` with 8 latents. ppl_vae reads the file in parts, scores them,
and writes score, p-value, q-value, flag, k-hat and reliability of every row to a Parquet file, as
``ppl-vae score`` does. The loop by hand reads the same file, computes the same importance-sampled
log-likelihood with the same networks, and writes it; nothing else. Both run in turn in every
round, on one thread, after a warm-up of each on a tenth of the rows. The peak memory is that of a
process of its own for ppl_vae, beside that of such a process on a tenth of the rows.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ppl_vae import AnomalyDetector, build, fit
from ppl_vae.cli.scored_file import READ, ScoredFile
from ppl_vae.data.parts import read_parts
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

FEATURES = 20
COLUMNS = [f"column {i}" for i in range(FEATURES)]


def rows_of(count: int, seed: int) -> pd.DataFrame:
    """Return correlated rows, (count, 20)."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0))
    x = torch.randn(count, 4, generator=generator) @ weights
    x += torch.randn(count, FEATURES, generator=generator)
    return pd.DataFrame(x.numpy(), columns=COLUMNS)


def write_rows(path: Path, count: int) -> None:
    """Write rows to a Parquet file, 200,000 at a time."""
    schema = pa.schema([(name, pa.float32()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema) as writer:
        for seed, start in enumerate(range(0, count, 200_000)):
            part = rows_of(min(200_000, count - start), seed)
            writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))


def detector_of(samples: int) -> AnomalyDetector:
    """Return a detector of a pair after a short fit."""
    torch.manual_seed(0)
    train = rows_of(5_000, 10**6)
    model, guide = build(GaussianModel, train), build(NormalGuide, train)
    fit(model, guide, train, epochs=3, seed=0, progress=False)
    return AnomalyDetector(model, guide, rows_of(1_000, 10**6 + 1), num_samples=samples)


def by_library(detector: AnomalyDetector, path: Path, out: Path) -> float:
    """Score the file as ``ppl-vae score`` does; return rows per second, writing included."""
    began = time.perf_counter()
    parts = (part for part, _ in read_parts(path, READ, rows_of(2, 0)))
    found = ScoredFile(path, out, [], explain=False).write(detector, parts, detector.decision())
    rows: int = found["rows"]
    return rows / (time.perf_counter() - began)


@torch.no_grad()
def by_hand(model: Any, guide: Any, x: Tensor, samples: int) -> Tensor:
    """Return minus the importance-sampled log-likelihood of rows, (rows,), in nats."""
    mean, v = guide.encoder(guide.standardize(x)).chunk(2, -1)
    sd = (v / 2).exp()
    noise = torch.randn(samples, *mean.shape)
    z = mean + sd * noise
    m, log_variance = model.decoder(z).chunk(2, -1)
    variance = model.scale**2 * log_variance.exp() + model.floor**2
    error = (x - model.loc - model.scale * m).square() / variance
    likelihood = -0.5 * (error + variance.log() + math.log(2 * math.pi)).sum(-1)
    ratio = 0.5 * (noise.square() - z.square()).sum(-1) + sd.log().sum(-1)
    return math.log(samples) - (likelihood + ratio).logsumexp(0)


def by_loop(detector: AnomalyDetector, path: Path, out: Path) -> float:
    """Score the file by a plain loop of blocks of 4,096 rows; return rows per second."""
    began, count = time.perf_counter(), 0
    schema = pa.schema([("score", pa.float64())])
    samples = detector.scoring.num_samples
    with pq.ParquetWriter(out, schema) as writer:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=READ):
            x = torch.tensor(batch.to_pandas().to_numpy())
            blocks = [by_hand(detector.model, detector.guide, b, samples) for b in x.split(4096)]
            scores = torch.cat(blocks).double().numpy()
            writer.write_table(pa.table({"score": scores}, schema))
            count += len(x)
    return count / (time.perf_counter() - began)


def memory_of(path: Path, samples: int) -> float:
    """Return the peak memory of a process of its own that scores a file, in MiB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        peak: float = pool.apply(_peak_memory, (path, samples))
    return peak


def _peak_memory(path: Path, samples: int) -> float:
    """Score a file; return the peak memory of this process, in MiB."""
    torch.set_num_threads(1)
    detector = detector_of(samples)
    by_library(detector, path, path.with_name("memory.parquet"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(words: Sequence[str] | None = None) -> None:
    """Print rows per second of both in every round, their ratio, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="2,000 rows")
    arguments = parser.parse_args(words)
    if arguments.tiny:
        arguments.rows = 2_000
    torch.set_num_threads(1)
    detector = detector_of(arguments.samples)
    with tempfile.TemporaryDirectory() as folder:
        path, few = Path(folder, "rows.parquet"), Path(folder, "few.parquet")
        write_rows(path, arguments.rows)
        write_rows(few, max(1, arguments.rows // 10))
        out = Path(folder, "scores.parquet")
        for contestant in (by_library, by_loop):
            contestant(detector, few, out)
        ratios = []
        for _ in range(arguments.rounds):
            ours, loop = by_library(detector, path, out), by_loop(detector, path, out)
            ratios.append(ours / loop)
            print(
                f"ppl_vae {ours:,.0f} rows/s, by hand {loop:,.0f} rows/s, ratio {ratios[-1]:.2f}",
                flush=True,
            )
        print(f"median ratio {statistics.median(ratios):.2f} of {arguments.rounds} rounds")
        for file, count in ((few, arguments.rows // 10), (path, arguments.rows)):
            peak = memory_of(file, arguments.samples)
            print(f"{count:,} rows: a process with a peak of {peak:,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
