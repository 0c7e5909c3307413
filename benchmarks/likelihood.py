"""Speed and memory of ``log_likelihood``, beside a PyTorch loop that draws the same samples.

    python benchmarks/likelihood.py speed  [--rows 1000] [--samples 5000] [--rounds 3] [--tiny]
    python benchmarks/likelihood.py decoder [--rows 200] [--samples 1000] [--rounds 3] [--tiny]
    python benchmarks/likelihood.py memory [--rows 1000000] [--samples 1000] [--tiny]

``speed`` prints rows per second (medians and ranges), for a 784-200-200 tanh pair with 50 latents,
the sizes of Burda et al. (2016). All contestants run in turn in every round. The loop by hand draws
the codes of a block of rows, decodes them, and adds up the weights, their squares and the ELBO; its
block size is the fastest of several. It computes no k-hat. The time of ppl_vae includes tracing and
compiling, with a warm cache of the compiler.

``decoder`` prints the seconds of ``log_likelihood`` beside those of the decoder alone on as many
codes, in the fastest of several block sizes, for the convolutional pair of ``step.py`` and for the
pair above. The decoder alone runs without gradients and scores nothing; medians over rounds, in
which all contestants run in turn. On one thread of an AMD EPYC (AVX-512), with 200 rows x 1,000
samples (``--threads 1``):

    convolutional   15.6 s, eager 24.5 s; decoder alone 19.1 s (32 codes a call), the ratio 0.81
    dense            2.1 s, eager  2.3 s; decoder alone  1.05 s (512 codes a call), the ratio 2.0

A ratio below 1 is possible, as the graph computes the decoder's last layer in a faster way.

``memory`` prints the peak memory of a process that evaluates many rows of 20 features.
"""

from __future__ import annotations

import argparse
import functools
import math
import resource
import statistics
import time
from collections.abc import Callable

import torch
from step_works import ConvWork
from torch import Tensor, nn
from torch.nn import functional as F

from ppl_vae import log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP

Pair = tuple[BernoulliModel, NormalGuide]
CODES = (16, 32, 48, 64, 128, 256, 512, 1024)  # codes in a call, of the decoder alone
BLOCK_SIZES = ((10, 500), (20, 100), (100, 50), (100, 500))  # rows x particles, of the loop


def images(hidden: int, latents: int, rows: int) -> tuple[BernoulliModel, NormalGuide, Tensor]:
    """Return a pair of the size of Burda et al., and binary rows, (rows, 784)."""
    torch.manual_seed(0)
    decoder = MLP(latents, 784, (hidden, hidden), nn.Tanh)
    encoder = MLP(784, 2 * latents, (hidden, hidden), nn.Tanh)
    model = BernoulliModel(784, latents, decoder)
    return model, NormalGuide(784, latents, encoder), (torch.rand(rows, 784) < 0.2).float()


@torch.no_grad()
def by_hand(pair: Pair, x: Tensor, samples: int, block: tuple[int, int]) -> dict[str, Tensor]:
    """Return log p, ELBO and effective sample size of every row, (rows,) each, by a plain loop.

    Args:
        pair: The model and the guide, whose networks are used.
        x: (rows, 784).
        samples: Draws for each row.
        block: Rows and particles in memory at once.
    """
    model, guide = pair
    found = []
    for rows in x.split(block[0]):
        mean, log_variance = guide.encoder(rows).chunk(2, -1)
        sd = (log_variance / 2).exp()
        total = torch.full((len(rows),), -math.inf)
        squares, elbo, remaining = total.clone(), torch.zeros(len(rows)), samples
        while remaining > 0:
            count = min(block[1], remaining)
            noise = torch.randn(count, *mean.shape)
            z = mean + sd * noise
            logits = model.decoder(z)
            likelihood = -F.binary_cross_entropy_with_logits(
                logits, rows.expand_as(logits), reduction="none"
            ).sum(-1)
            log_ratio = 0.5 * (noise.square() - z.square()).sum(-1) + sd.log().sum(-1)
            weights = likelihood + log_ratio
            total = torch.logaddexp(total, weights.logsumexp(0))
            squares = torch.logaddexp(squares, (2 * weights).logsumexp(0))
            elbo += weights.sum(0)
            remaining -= count
        found.append(
            {
                "log_prob": total - math.log(samples),
                "elbo": elbo / samples,
                "ess": (2 * total - squares).exp(),
            }
        )
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def seconds_of(work: Callable[[], object]) -> float:
    """Return the wall time of a call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(rows: int, samples: int, rounds: int, hidden: int, latents: int) -> None:
    """Print rows per second of ppl_vae and of the loop, measured in turn."""
    model, guide, x = images(hidden, latents, rows)
    some_rows = x[: max(2, rows // 8)]
    block = min(
        BLOCK_SIZES,
        key=lambda b: seconds_of(lambda: by_hand((model, guide), some_rows, samples, b)),
    )
    contestants = {
        "ppl_vae, compiled": lambda: log_likelihood(
            model, guide, x, num_samples=samples, compile=True
        ),
        "ppl_vae, eager": lambda: log_likelihood(
            model, guide, x, num_samples=samples, compile=False
        ),
        "PyTorch by hand": lambda: by_hand((model, guide), x, samples, block),
    }
    library = contestants["ppl_vae, compiled"]()
    loop = contestants["PyTorch by hand"]()
    gap = (library["log_prob"] - loop["log_prob"].numpy()).abs().median()
    print(f"{rows:,} rows x {samples:,} samples; by hand in blocks of {block[0]} x {block[1]}; "
          f"median difference of log p {gap:.3f} nats\n")  # fmt: skip
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            speeds[name].append(rows / seconds_of(run))
    by_loop = speeds["PyTorch by hand"]
    print("rows per second             median       range   ratio to by hand")
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, by_loop, strict=True))
        print(f"{name:26} {statistics.median(found):8.1f} {min(found):6.1f}-{max(found):<6.1f} "
              f"{ratio:8.2f}")  # fmt: skip


def decoder(rows: int, samples: int, rounds: int, *, tiny: bool) -> None:
    """Print the seconds of ppl_vae beside those of the decoder alone, measured in turn."""
    features, hidden = (64, 4) if tiny else (784, 32)
    work = ConvWork("conv", features=features, hidden=hidden, data_rows=rows)
    dense = images(*((8, 3) if tiny else (200, 50)), rows)
    print(f"{rows:,} rows x {samples:,} samples, {torch.get_num_threads()} threads\n\n"
          "                           seconds       range   ratio to decoder alone")  # fmt: skip
    for name, (model, guide), x in (
        ("convolutional", work.pair(), work.data()), ("dense", dense[:2], dense[2]),
    ):  # fmt: skip
        decode = functools.partial(decoded, model, rows * samples)
        some = functools.partial(decoded, model, max(1024, rows * samples // 20))
        tried = {
            codes: min(seconds_of(functools.partial(some, codes)) for _ in range(2))
            for codes in CODES
        }
        block = min(CODES, key=tried.__getitem__)
        evaluate = functools.partial(log_likelihood, model, guide, x, num_samples=samples)
        contestants: dict[str, Callable[[], object]] = {
            "ppl_vae": evaluate,
            "ppl_vae, eager": functools.partial(evaluate, compile=False),
            f"decoder, {block} codes a call": functools.partial(decode, block),
        }
        seconds: dict[str, list[float]] = {each: [] for each in contestants}
        for _ in range(rounds):
            for each, run in contestants.items():
                seconds[each].append(seconds_of(run))
        alone = seconds[f"decoder, {block} codes a call"]
        print(name)
        for each, found in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(found, alone, strict=True))
            print(f"  {each:26}{statistics.median(found):6.2f} {min(found):6.2f}-{max(found):<6.2f}"
                  f"{ratio:6.2f}")  # fmt: skip


@torch.no_grad()
def decoded(model: BernoulliModel, codes: int, block: int) -> None:
    """Decode a number of codes, a block at a time, and keep nothing."""
    z = torch.randn(block, model.latents)
    for _ in range(math.ceil(codes / block)):
        model.decoder(z)


def memory(rows: int, samples: int) -> None:
    """Print the peak memory of this process while it evaluates rows of 20 features."""
    torch.manual_seed(0)
    x = torch.randn(rows, 20)
    model, guide = GaussianModel(20, 4), NormalGuide(20, 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = seconds_of(
        lambda: log_likelihood(model, guide, x, num_samples=samples, progress=True)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rows:,} rows x 20 features, {samples:,} samples: peak {peak:.0f} MiB, of which "
        f"{before:.0f} MiB before the call; {seconds:.0f} s, {rows / seconds:.0f} rows/s"
    )


def main() -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description="Speed and memory of log_likelihood.")
    parser.add_argument("table", choices=("speed", "decoder", "memory"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--tiny", action="store_true", help="tiny sizes, to see that the script runs"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.table == "memory":
        rows = arguments.rows or (500 if arguments.tiny else 1_000_000)
        memory(rows, arguments.samples or (30 if arguments.tiny else 1000))
        return
    if arguments.table == "decoder":
        rows = arguments.rows or (20 if arguments.tiny else 200)
        samples = arguments.samples or (50 if arguments.tiny else 1000)
        decoder(rows, samples, 1 if arguments.tiny else arguments.rounds, tiny=arguments.tiny)
        return
    rows = arguments.rows or (20 if arguments.tiny else 1000)
    hidden, latents = (8, 3) if arguments.tiny else (200, 50)
    samples = arguments.samples or (50 if arguments.tiny else 5000)
    speed(rows, samples, 1 if arguments.tiny else arguments.rounds, hidden, latents)


if __name__ == "__main__":
    main()
