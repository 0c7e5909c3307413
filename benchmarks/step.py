"""What one training step costs: ppl_vae's fit, a bare loop of Pyro's SVI, PyTorch by hand.

    z ~ Normal(0, I)                         z: (latents,)
    x ~ Bernoulli(logits=decoder(z))         x: (features,)
    loss = -ELBO of a batch                  one Adam update a step

Every contestant shuffles, gathers its batches by index and adds up the loss. They run in turn,
in an order drawn anew each round, so that a noisy machine disturbs all of them alike; a round's
first epoch warms up and is left out. On a busy machine add ``--threads 1``: at these sizes two
threads spend much of a step waiting for each other.

    python benchmarks/step.py [--rows 128] [--features 30] [--hidden 64] [--rounds 7] [--epochs 3]

A new contestant is a function from ``Work`` to ``epoch()``, which trains once over the data and
returns the summed loss; decorate it with ``timed`` and add it to ``CONTESTANTS``.
"""

import argparse
import functools
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.nn import functional as F

from ppl_vae import fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP

BASELINE = "Pyro SVI"
BOUND = 5.0  # percent that fit may add to the baseline's step

Epoch = Callable[[], float]
Laps = Callable[[int], list[float]]  # train for so many epochs; the seconds of each


@dataclass(frozen=True)
class Work:
    """The sizes of the task: the same for every contestant of a run.

    Attributes:
        rows: Rows in a batch.
        features: Width of a row.
        hidden: Width of the one hidden layer of encoder and decoder.
        latents: Width of the code.
        data_rows: Rows of the data set.
    """

    rows: int = 128
    features: int = 30
    hidden: int = 64
    latents: int = 20
    data_rows: int = 20_000

    @property
    def steps(self) -> int:
        """Updates in one epoch, a ragged last batch included."""
        return math.ceil(self.data_rows / self.rows)

    def data(self) -> Tensor:
        """Random bits, (data_rows, features)."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(self.data_rows, self.features, generator=generator).round()

    def pair(self) -> tuple[BernoulliModel, NormalGuide]:
        """A fresh model and guide, equal for every contestant."""
        torch.manual_seed(0)
        decoder = MLP(self.latents, self.features, hidden=(self.hidden,))
        encoder = MLP(self.features, 2 * self.latents, hidden=(self.hidden,))
        model = BernoulliModel(self.features, self.latents, decoder)
        return model, NormalGuide(self.features, self.latents, encoder)


def timed(contestant: Callable[..., Epoch]) -> Callable[..., Laps]:
    """Turn a contestant that trains by the epoch into one that clocks its epochs."""

    @functools.wraps(contestant)
    def build(*arguments: object) -> Laps:
        epoch = contestant(*arguments)

        def laps(epochs: int) -> list[float]:
            clock = [time.perf_counter()]
            for _ in range(epochs):
                if not math.isfinite(epoch()):
                    raise ValueError(f"{contestant.__name__}: the loss is not finite")
                clock.append(time.perf_counter())
            return [end - start for start, end in itertools.pairwise(clock)]

        return laps

    return build


def whole_fit(work: Work, elbo: type) -> Laps:
    """ppl_vae's fit: seconds from its own history, so that all its loop does is counted."""
    (model, guide), data = work.pair(), work.data()

    def laps(epochs: int) -> list[float]:
        history = fit(
            model, guide, data, elbo=elbo(), epochs=epochs, batch_size=work.rows, progress=False
        )
        return history.frame["seconds"].diff().fillna(history.frame["seconds"]).tolist()

    return laps


@timed
def svi(work: Work, elbo: type) -> Epoch:
    """A bare loop of Pyro's SVI, as Pyro's examples write it."""
    (model, guide), data = work.pair(), work.data()
    inference = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo())

    def epoch() -> float:
        pyro.clear_param_store()  # another contestant's parameters have the same names
        batches = torch.randperm(len(data)).split(work.rows)
        return sum(inference.step(data[index]) for index in batches)

    return epoch


@timed
def bare_elbo(work: Work, elbo: type) -> Epoch:
    """Pyro's ELBO under torch's fused Adam: what is left of a Pyro step without its optimizer."""
    (model, guide), data = work.pair(), work.data()
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=1e-3, fused=True)
    objective = elbo()

    def step(x: Tensor) -> float:
        optimizer.zero_grad()
        loss = objective.differentiable_loss(model, guide, x)
        loss.backward()
        optimizer.step()
        return loss.item()

    def epoch() -> float:
        pyro.clear_param_store()
        return sum(step(data[index]) for index in torch.randperm(len(data)).split(work.rows))

    return epoch


@timed
def by_hand(work: Work, elbo: type) -> Epoch:
    """PyTorch alone: the same networks and loss, fused Adam."""
    (model, guide), data = work.pair(), work.data()
    encoder, decoder = guide.encoder, model.decoder
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    divergence = closed_form_kl if elbo is TraceMeanField_ELBO else sampled_kl

    def step(x: Tensor) -> float:
        optimizer.zero_grad()
        mean, log_variance = encoder(x).chunk(2, -1)  # (rows, latents) each
        noise = torch.randn_like(mean)
        z = mean + (log_variance / 2).exp() * noise
        loss = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        loss = loss + divergence(mean, log_variance, z, noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    def epoch() -> float:
        return sum(step(data[index]) for index in torch.randperm(len(data)).split(work.rows))

    return epoch


def closed_form_kl(mean: Tensor, log_variance: Tensor, z: Tensor, noise: Tensor) -> Tensor:
    """KL(q, p) of normals against the standard normal, summed: a scalar, in nats."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum()


def sampled_kl(mean: Tensor, log_variance: Tensor, z: Tensor, noise: Tensor) -> Tensor:
    """Log q(z) - log p(z) of the draw, summed: a scalar, in nats."""
    return 0.5 * (z**2 - noise**2 - log_variance).sum()


# Title of the objective, its ELBO, and who runs under it; ratios are taken within an objective.
CONTESTANTS: dict[tuple[str, type], dict[str, Callable[[Work, type], Laps]]] = {
    (title, elbo): {
        "ppl_vae.fit": whole_fit,
        BASELINE: svi,
        "Pyro ELBO, torch's Adam": bare_elbo,
        "PyTorch by hand": by_hand,
    }
    for title, elbo in (("closed-form KL", TraceMeanField_ELBO), ("sampled KL", Trace_ELBO))
}


def measure(work: Work, rounds: int, epochs: int) -> pd.DataFrame:
    """Run all contestants in turn.

    Returns:
        One row per round and contestant: ``objective, contestant, round, milliseconds`` a step
        (median of the round's epochs).
    """
    field = [
        (title, name, build(work, elbo))
        for (title, elbo), contestants in CONTESTANTS.items()
        for name, build in contestants.items()
    ]
    records = []
    for number in range(rounds):
        for title, name, laps in random.Random(number).sample(field, len(field)):
            seconds = pd.Series(laps(epochs + 1)[1:]).median()
            records.append((title, name, number, 1e3 * seconds / work.steps))
    pyro.clear_param_store()
    return pd.DataFrame(records, columns=["objective", "contestant", "round", "milliseconds"])


def summarize(rounds: pd.DataFrame) -> pd.DataFrame:
    """Median and quartiles over rounds, of the time and of its ratio to SVI in the same round."""
    keys = ["objective", "round"]
    baseline = rounds.loc[rounds["contestant"] == BASELINE, [*keys, "milliseconds"]]
    paired = rounds.merge(baseline, on=keys, suffixes=("", "_baseline"))
    paired["ratio"] = paired["milliseconds"] / paired["milliseconds_baseline"]
    columns = {
        f"{column}{suffix}": (column, functools.partial(pd.Series.quantile, q=level))
        for column in ("milliseconds", "ratio")
        for suffix, level in (("", 0.5), ("_low", 0.25), ("_high", 0.75))
    }
    table = paired.groupby(["objective", "contestant"], as_index=False).agg(**columns)
    return table.sort_values(["objective", "milliseconds"], ignore_index=True)


def show(table: pd.DataFrame) -> None:
    """Print the table and what fit adds to SVI."""
    print(f"{'objective':16}{'contestant':25}{'ms a step':>10}  {'quartiles':15}{'of SVI':>7}")
    for row in table.itertuples():
        spread = f"{row.milliseconds_low:.3f} - {row.milliseconds_high:.3f}"
        print(
            f"{row.objective:16}{row.contestant:25}{row.milliseconds:10.3f}  {spread:15}"
            f"{row.ratio:7.3f}"
        )
    for row in table[table["contestant"] == "ppl_vae.fit"].itertuples():
        low, middle, high = (100 * (r - 1) for r in (row.ratio_low, row.ratio, row.ratio_high))
        print(
            f"fit over {BASELINE}, {row.objective}: {middle:+.1f} % "
            f"(quartiles {low:+.1f} to {high:+.1f} %; asked: below {BOUND:+.0f} %)"
        )


def main(arguments: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the sizes, run the rounds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=Work.rows, help="rows in a batch")
    parser.add_argument("--features", type=int, default=Work.features)
    parser.add_argument("--hidden", type=int, default=Work.hidden)
    parser.add_argument("--latents", type=int, default=Work.latents)
    parser.add_argument("--data-rows", type=int, default=Work.data_rows)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3, help="measured epochs a round")
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    options = vars(parser.parse_args(arguments))
    rounds, epochs, threads = (options.pop(name) for name in ("rounds", "epochs", "threads"))
    if threads:
        torch.set_num_threads(threads)
    work = Work(**options)
    print(
        f"{work.rows} rows x {work.features} features, hidden {work.hidden}, {work.latents} "
        f"latents, {work.data_rows} rows of data; {rounds} rounds of {epochs} epochs, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, Pyro {pyro.__version__}"
    )
    table = summarize(measure(work, rounds, epochs))
    show(table)
    return table


if __name__ == "__main__":
    main()
