"""Speed and memory of a predictive check, beside Pyro's ``Predictive`` with the same statistics.

    python benchmarks/checks.py speed  [--rows 100000] [--features 50] [--samples 200] [--tiny]
    python benchmarks/checks.py memory [--rows 100000] [--features 50] [--samples 200] [--tiny]

``speed``: replicates per second of a Gaussian pair; in every round both programs run one after the
other. Pyro's Predictive runs vectorized (``parallel=True``) on the model without its observations,
eight replicates at a time, because all 200 at once take more memory than most machines have. The
same statistics are computed from its replicates with torch's own functions: mean, sd, skewness,
kurtosis, minimum, maximum, five quantiles, all correlations, and the number of replicates below
each cell.

``memory``: the peak memory of a process that runs one check.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor

from ppl_vae import predictive_check
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
GROUP = 8  # replicates of Predictive at a time


def pair_and_rows(rows: int, features: int) -> tuple[GaussianModel, NormalGuide, Tensor]:
    """Return a Gaussian pair with 8 latents, and rows whose features share a factor."""
    torch.manual_seed(0)
    x = torch.randn(rows, features) + torch.randn(rows, 1)
    return GaussianModel(features), NormalGuide(features), x


@torch.no_grad()
def with_predictive(model: Any, guide: Any, x: Tensor, samples: int) -> dict[str, Tensor]:
    """Compute with Pyro's Predictive what ``predictive_check`` computes.

    Args:
        model: The model.
        guide: The guide.
        x: (rows, features).
        samples: Number of replicates.

    Returns:
        Statistics of the replicates, (samples, values) each, and under ``"below"`` the number of
        replicates below each cell, (rows, features).
    """
    found: list[dict[str, Tensor]] = []
    below = torch.zeros(x.shape)
    for start in range(0, samples, GROUP):
        predictive = Predictive(
            poutine.uncondition(model), guide=guide, num_samples=min(GROUP, samples - start),
            return_sites=("x",), parallel=True,
        )  # fmt: skip
        replicated = predictive(x)["x"]
        found.append(by_torch(replicated))
        below += (replicated < x).sum(0)
    return {"below": below, **{n: torch.cat([part[n] for part in found]) for n in found[0]}}


def by_torch(x: Tensor) -> dict[str, Tensor]:
    """Return the statistics of (samples, rows, features), written with torch's own functions."""
    mean, sd = x.mean(1), x.std(1)
    unit = (x - mean[:, None]) / sd[:, None]
    above = torch.triu_indices(x.shape[-1], x.shape[-1], 1)
    shares = torch.tensor(SHARES)
    found = {
        "mean": mean,
        "sd": sd,
        "skewness": (unit**3).mean(1),
        "kurtosis": (unit**4).mean(1),
        "minimum": x.amin(1),
        "maximum": x.amax(1),
        "correlation": torch.stack([torch.corrcoef(one.T)[above[0], above[1]] for one in x]),
    }
    quantiles = torch.stack([torch.quantile(one, shares, dim=0) for one in x])
    return {**found, **{f"quantile {s}": quantiles[:, i] for i, s in enumerate(SHARES)}}


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed(rows: int, features: int, samples: int, rounds: int) -> None:
    """Print the replicates per second of both programs, and the ratio in every round."""
    model, guide, x = pair_and_rows(rows, features)
    few = min(samples, 2 * GROUP)  # first on a few replicates: to warm up, and to compare
    check = predictive_check(model, guide, x, num_samples=few)
    by_pyro = with_predictive(model, guide, x, few)
    gap = max(
        abs(float(by_pyro[name][:, int(line["feature"])].mean()) - line["mean"])
        for name, line in check.frame.loc["x"].iterrows()
        if name in ("mean", "sd", "skewness", "minimum", "maximum")
    )
    print(f"{rows:,} rows x {features} features, {samples} replicates; largest difference of the "
          f"means of five statistics: {gap:.2g}\n")  # fmt: skip
    work = {
        "ppl_vae": lambda: predictive_check(model, guide, x, num_samples=samples),
        "Pyro's Predictive": lambda: with_predictive(model, guide, x, samples),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            times[name].append(samples / seconds_of(run))
    print("replicates per second   median       range")
    for name, found in times.items():
        print(f"{name:20} {statistics.median(found):9.2f} {min(found):6.2f}-{max(found):<6.2f}")
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"ratio                {statistics.median(ratios):9.2f} "
          f"{min(ratios):6.2f}-{max(ratios):<6.2f}")  # fmt: skip


def memory(rows: int, features: int, samples: int) -> None:
    """Print the peak memory of this process, before and after one check."""
    model, guide, x = pair_and_rows(rows, features)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = seconds_of(
        lambda: predictive_check(model, guide, x, num_samples=samples, progress=True)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rows:,} rows x {features} features, {samples} replicates: peak {peak:.0f} MiB, "
          f"{before:.0f} MiB before the check; {seconds:.0f} s")  # fmt: skip


def main() -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description="Speed and memory of a predictive check.")
    parser.add_argument("table", choices=("speed", "memory"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--features", type=int)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="show that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = arguments.rows or (200 if arguments.tiny else 100_000)
    features = arguments.features or (4 if arguments.tiny else 50)
    samples = arguments.samples or (10 if arguments.tiny else 200)
    if arguments.table == "memory":
        memory(rows, features, samples)
    else:
        speed(rows, features, samples, 1 if arguments.tiny else arguments.rounds)


if __name__ == "__main__":
    main()
