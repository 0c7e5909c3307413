"""Deep Markov models of the JSB chorales: bounds on held-out music, and the time of an epoch.

    python benchmarks/sequences.py bound --data DIR --out rows.jsonl [--seeds 0 1 2] [--full]
        [--device cuda]
    python benchmarks/sequences.py speed --data DIR [--rounds 5] [--threads 2]
    python benchmarks/sequences.py memory [--rows 3000 30000 100000]
    python benchmarks/sequences.py --draw rows.jsonl sequences.png

The network of both: 100 latents, transition 200, emission 100 and 100, a recurrent guide of 600
rectified units that reads from the end; batches of 20 of the 229 sequences of up to 129 steps.

``bound`` fits by ``fit`` (a whole path is one site; batches of like length; Adam over half a
cosine after a rise of 10 epochs; KL warm-up over a fifth of the steps; weight decay; the weights of
the best epoch by the validation sequences), then prints bounds on minus the log-likelihood of the
test sequences, in nats per time step: minus the ELBO, and minus the estimate of a particle filter
of 200 particles. A fit goes on where it was cut off; lines of ``--out`` that are there are not
computed again.

``speed`` times an epoch of ``fit`` beside one of Pyro's SVI with a sample site for each step, as
Pyro's example of the deep Markov model has it, with ClippedAdam; its batches are random and are
padded to the longest sequence of each. Epochs of both alternate.

``memory`` fits a linear state-space model to simulated sequences of 10 to 500 steps for one epoch,
in batches of 256, and prints by how much the memory of the process rises above that of the data.

``bound`` measured with one thread, beside other work on the machine's two cores; minus the ELBO and
minus the estimate of the particle filter, nats per step, after 1,400 epochs:

    seed 0    6.969    6.504    67 minutes
    seed 1    7.009    6.551    74 minutes
    seed 2    7.001    6.571    74 minutes, cut off once and resumed

A limit on the gradient's norm (1e4) is no help: seed 2 had 8.07 with it, perhaps since weight decay
outweighs a gradient that is cut. Without the rise of the rate, and with a scale of exp(v / 2) in
the guide in place of a softplus, fits overflowed in their first steps. ``--full`` was not run.

``speed`` with two threads, quiet machine, four rounds: 1.27 s (1.24 to 1.30) an epoch beside 3.35
(3.21 to 3.43), 2.61 times faster (2.58 to 2.69). ``memory``, one thread: 286 MiB above the data for
3,000 sequences, 126 for 30,000 after them in one process; 82 above the 1,038 of the data for
100,000 in a process of their own, in 88 s.

Published, negative bounds in nats per step: 6.93 (Krishnan, Shalit & Sontag 2017, table 1,
arXiv:1609.09869), 6.87 (Pyro's tutorial of the deep Markov model, 5,000 epochs).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from json_lines import ResultLines
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor, nn

from ppl_vae import build, elbo_terms, fit, log_likelihood, sequences
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.deep_markov import DeepMarkovModel
from ppl_vae.models.state_space import StateSpaceModel
from ppl_vae.nn import MLP, GatedTransition, Recurrent, step_mask

NOTES = 88
SIZES = {"latents": 100, "transition": 200, "emission": 100, "hidden": 600}
TINY = {"latents": 3, "transition": 5, "emission": 4, "hidden": 6}
BATCH, RATE, DECAY = 20, 2e-3, 20.0
EPOCHS = {"bound": 1400, "full": 5000, "tiny": 2}
PUBLISHED = {"Krishnan et al. 2017": 6.93, "Pyro's tutorial": 6.87}


class ReLURNN(nn.RNN):
    """Recurrent network of rectified units, as in Pyro's example."""

    def __init__(self, inputs: int, hidden: int, batch_first: bool) -> None:
        super().__init__(inputs, hidden, nonlinearity="relu", batch_first=batch_first)


def music(folder: Path | None, part: str) -> dict[str, Any]:
    """Return a part of the chorales as data; random notes where there is no folder."""
    if folder is None:
        rng = np.random.default_rng(0)
        rolls = [rng.random((steps, NOTES)) < 0.1 for steps in (3, 9, 5, 2, 7, 4)]
    else:
        with np.load(folder / "jsb_chorales.npz") as file:
            rolls = np.split(file[part], file[f"{part}_lengths"].cumsum()[:-1])
    return sequences([torch.as_tensor(roll, dtype=torch.float32) for roll in rolls])


def networks(sizes: dict[str, int]) -> dict[str, nn.Module]:
    """Return the model's networks."""
    latents, wide = sizes["latents"], sizes["emission"]
    return {
        "transition": GatedTransition(latents, sizes["transition"]),
        "emission": MLP(latents, NOTES, (wide, wide), nn.ReLU),
    }


def make_pair(
    sizes: dict[str, int], seed: int, device: str = "cpu"
) -> tuple[DeepMarkovModel, SmoothingGuide]:
    """Return the pair in which a path is one site, on a device."""
    torch.manual_seed(seed)
    model = DeepMarkovModel(NOTES, sizes["latents"], **networks(sizes))
    encoder = Recurrent(NOTES, sizes["hidden"], backwards=True, cell=ReLURNN)
    guide = SmoothingGuide(NOTES, sizes["latents"], sizes["hidden"], encoder=encoder)
    return model.to(device), guide.to(device)


def per_step(total: float, data: dict[str, Any]) -> float:
    """Return minus a sum over all sequences, in nats per time step."""
    return float(-total / int(data["lengths"].sum()))


def share_of_rate(epoch: int, epochs: int) -> float:
    """Return the share of the learning rate in an epoch: a rise over 10, then half a cosine."""
    return min(1.0, (epoch + 1) / 10) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def filter_bound(model: Any, guide: Any, data: dict[str, Any], particles: int) -> float:
    """Return minus the estimate of a particle filter, in nats per time step."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of single rows
        scores = log_likelihood(
            model, guide, data, method="particle_filter", num_samples=particles, seed=0
        )
    return per_step(scores["log_prob"].sum(), data)


def bound(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Fit the pair and return its bounds on the test sequences, as a line of the results."""
    results = ResultLines(arguments.out)
    settings = {"seed": seed, "epochs": arguments.epochs, "rate": arguments.rate,
                "decay": arguments.decay}  # fmt: skip
    line = results.find(**settings)
    if line is not None:
        return line
    train, valid, test = (music(arguments.data, p) for p in ("train", "valid", "test"))
    model, guide = make_pair(TINY if arguments.tiny else SIZES, seed, arguments.device)
    epochs = arguments.epochs
    warm = 0.2 * epochs * -(-len(train["x"]) // BATCH)
    history = fit(
        model, guide, train, validation=valid, epochs=epochs, batch_size=BATCH, seed=seed,
        kl_weight=lambda step: min(1.0, 0.2 + 0.8 * step / warm),
        optimizer=lambda parameters: torch.optim.Adam(
            parameters, arguments.rate, betas=(0.96, 0.999), weight_decay=arguments.decay,
            fused=True,
        ),
        scheduler=lambda adam: torch.optim.lr_scheduler.LambdaLR(
            adam, partial(share_of_rate, epochs=epochs)
        ),
        run=arguments.runs / f"jsb-{epochs}-{arguments.rate:g}-{arguments.decay:g}-{seed}",
        resume=True,
    )  # fmt: skip
    terms = elbo_terms(model, guide, test, num_samples=20, seed=0)
    column = history.frame[["seconds", "validation_elbo"]]
    curve = [[round(s), per_step(e * len(valid["x"]), valid)] for s, e in column.to_numpy()]
    line = {
        **settings,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "minutes": float(column["seconds"].iloc[-1] / 60),
        "best_epoch": int(history.best_epoch),
        "negative_elbo": per_step(terms.to_numpy().sum(), test),
        "negative_filter": filter_bound(model, guide, test, 20 if arguments.tiny else 200),
        "finite": bool(np.isfinite(history.frame["elbo"]).all()),
        "curve": curve[:: max(1, epochs // 100)],
    }
    results.append(line)
    return line


class SiteForEachStep(nn.Module):
    """The same model and guide as Pyro's example has them: a sample site for each step."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        latents, hidden = sizes["latents"], sizes["hidden"]
        both = networks(sizes)
        self.transition, self.emission = both["transition"], both["emission"]
        self.rnn = ReLURNN(NOTES, hidden, True)
        self.before, self.head = nn.Linear(latents, hidden), nn.Linear(hidden, 2 * latents)
        self.start = nn.Parameter(torch.zeros(latents))

    def model(self, x: Tensor, lengths: Tensor) -> None:
        """Score sequences x, (rows, steps, notes)."""
        pyro.module("pair", self)
        mask = step_mask(lengths, x.shape[1])
        z = self.start.expand(len(x), -1)
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                prior = dist.Normal(*self.transition(z)).to_event(1)
                z = pyro.sample(f"z_{t}", prior.mask(mask[:, t]))
                notes = dist.Bernoulli(logits=self.emission(z)).to_event(1)
                pyro.sample(f"x_{t}", notes.mask(mask[:, t]), obs=x[:, t])

    def guide(self, x: Tensor, lengths: Tensor) -> None:
        """Draw paths for sequences x, (rows, steps, notes)."""
        pyro.module("pair", self)
        mask = step_mask(lengths, x.shape[1])
        turn = (lengths[:, None] - 1 - torch.arange(x.shape[1])).clamp(min=0)[..., None]
        h = self.rnn(x.gather(1, turn.expand_as(x)))[0]
        h = h.gather(1, turn.expand_as(h))
        z = self.start.expand(len(x), -1)
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                loc, scale = self.head((self.before(z).tanh() + h[:, t]) / 2).chunk(2, -1)
                step = dist.Normal(loc, nn.functional.softplus(scale)).to_event(1)
                z = pyro.sample(f"z_{t}", step.mask(mask[:, t]))


def epoch_of_pyro(pair: SiteForEachStep, svi: SVI, data: dict[str, Any]) -> float:
    """Train one epoch by Pyro's SVI; return its seconds."""
    began = time.perf_counter()
    lengths = torch.tensor(data["lengths"].to_numpy())
    for index in torch.randperm(len(lengths)).split(BATCH):
        rows = lengths[index]
        svi.step(data["x"][index, : int(rows.max())], rows)
    return time.perf_counter() - began


def speed(arguments: argparse.Namespace) -> pd.DataFrame:
    """Return the seconds of an epoch, a row for each round, a column for each contestant."""
    train, sizes = music(arguments.data, "train"), TINY if arguments.tiny else SIZES
    model, guide = make_pair(sizes, 0)
    pair = SiteForEachStep(sizes)
    rate = {"lr": arguments.rate, "betas": (0.96, 0.999)}
    svi = SVI(pair.model, pair.guide, ClippedAdam({**rate, "clip_norm": 10.0}), Trace_ELBO())
    rounds = []
    with pyro.validation_enabled(False):
        epoch_of_pyro(pair, svi, train)
        for number in range(arguments.rounds):
            history = fit(model, guide, train, epochs=3, batch_size=BATCH, seed=number,
                          progress=False)  # fmt: skip
            ours = statistics.median(history.frame["seconds"].diff().dropna())
            rounds.append({"fit": ours, "a site a step": epoch_of_pyro(pair, svi, train)})
            print(f"round {number + 1}: {rounds[-1]}", flush=True)
    return pd.DataFrame(rounds)


def resident(name: str = "VmRSS") -> float:
    """Return the memory of this process, or its highest so far (``"VmHWM"``), in MiB, on Linux."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) / 1024


def memory(rows: int, seed: int = 0) -> dict[str, float]:
    """Fit one epoch to so many sequences; return the memory of the data and of the fit, in MiB."""
    rng = np.random.default_rng(seed)
    empty = resident()
    noise = (rng.standard_normal((n, 3), np.float32) for n in rng.integers(10, 501, rows))
    data = sequences(list(noise))
    model = build(StateSpaceModel, data, latents=2)
    guide = build(SmoothingGuide, data, latents=2, hidden=16)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far begins anew
    history = fit(model, guide, data, epochs=1, batch_size=256)
    seconds = history.frame["seconds"].iloc[-1]
    of_fit = resident("VmHWM") - before
    return {"rows": rows, "data": before - empty, "fit": of_fit, "seconds": seconds}


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Draw the validation bound of every fit against minutes, beside the published test bounds."""
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for line in lines:
        seconds, values = np.array(line["curve"]).T
        label = f"seed {line['seed']}, {line['epochs']} epochs: test {line['negative_elbo']:.2f}"
        ax.plot(seconds / 60, values, label=label)
    for style, (name, value) in zip((":", "--"), PUBLISHED.items(), strict=True):
        ax.axhline(value, color="gray", linestyle=style, label=f"{name}: test {value}")
    ax.set(xlabel="minutes", ylabel="minus validation ELBO (nats per step)", ylim=(6.5, 10))
    ax.legend(fontsize="small")
    figure.savefig(file, dpi=120)


def main(words: list[str] | None = None) -> Any:
    """Run the part that is named, or draw the results of a file."""
    parser = argparse.ArgumentParser(description="Deep Markov models of the JSB chorales.")
    parser.add_argument("part", nargs="?", choices=["bound", "speed", "memory"])
    parser.add_argument("--data", type=Path, help="folder of jsb_chorales.npz")
    parser.add_argument("--out", type=Path, help="file of results, one JSON object a line")
    parser.add_argument("--runs", type=Path, default=Path("runs/sequences"), help="kept fits")
    parser.add_argument("--rows", type=int, nargs="+", default=[3000, 30000, 100000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--decay", type=float, default=DECAY)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    parser.add_argument("--device", default="cpu", help="that bounds are fitted on, such as cuda")
    parser.add_argument("--full", action="store_true", help=f"{EPOCHS['full']} epochs")
    parser.add_argument("--draw", nargs=2, type=Path, metavar=("RESULTS", "FIGURE"))
    parser.add_argument("--tiny", action="store_true", help="six random sequences, two epochs")
    arguments = parser.parse_args(words)
    if arguments.draw:
        lines = [json.loads(line) for line in arguments.draw[0].read_text().splitlines()]
        return draw(lines, arguments.draw[1])
    needs_data = arguments.part != "memory" and not arguments.tiny
    if arguments.part is None or (arguments.data is None and needs_data):
        parser.error("expected a part, and --data, the folder of jsb_chorales.npz")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.part == "memory":
        for rows in (40,) if arguments.tiny else arguments.rows:
            print({name: round(value) for name, value in memory(rows).items()}, flush=True)
        return None
    length = "tiny" if arguments.tiny else "full" if arguments.full else "bound"
    arguments.epochs = arguments.epochs or EPOCHS[length]
    if arguments.part == "bound":
        lines = [bound(arguments, seed) for seed in arguments.seeds]
        for line in lines:
            print({name: value for name, value in line.items() if name != "curve"})
        return lines
    table = speed(arguments)
    print(table.describe().loc[["min", "50%", "max"]].round(2))
    ratio = table["a site a step"] / table["fit"]
    print(f"times faster: {ratio.median():.2f} ({ratio.min():.2f} to {ratio.max():.2f})")
    return table


if __name__ == "__main__":
    main()
