"""The right likelihood beats the wrong one on real data: held-out log-likelihood a row.

    python benchmarks/zoo.py --data DIR [--out zoo.jsonl] [--contests cells ...] [--seeds 3]

    cells        negative binomial over Poisson, beside it the zero-inflated one: 1,000 cells, the
                 1,000 genes of the largest variance, size = all counts of a cell over their mean
    categories   categorical over a normal whose density is integrated over the cell of each code
                 (``CellNormalModel`` below): nine columns of the census, coded by the alphabet
    outliers     Student over normal: satellite, 2 % of all cells far from the column
    covariance   full covariance over diagonal: satellite

DIR holds ``pbmc_counts.npz``, ``adult.csv`` and ``adbench/30_satellite.npz``. The seed draws the
split into training, validation and test rows, the noise, the initial weights and the batches; both
sides of a contest get the same. Both have the same guide, latents, optimizer, most epochs, and a
hidden layer of the same width in the decoder, whose last layer has the outputs that the likelihood
needs. A fit ends when the ELBO of the validation rows has not risen for some epochs, and the pair
gets its best weights.

Values of satellite are whole numbers; a density could be infinite there, so that a number drawn
from Uniform(0, 1) is added to each, once. A far value is 5 to 20 standard deviations from the mean,
above or below; training, validation and test rows all have them.

``log_prob`` is the mean over test rows in nats, ``se`` its standard error over rows, ``ess`` the
mean effective number of draws, and ``k_hat above 0.7`` the share of rows whose estimate is not
reliable: it is then most often too low. Differences are between the two sides of one seed, which
have the same test rows.

Measured with three seeds, right minus wrong: cells 125.7 (122.2 to 129.9; beside zero-inflated 1.4,
0.4 to 2.4), categories 2.97 (2.90 to 3.09), outliers 24.0 (19.5 to 26.7), covariance 1.53 (1.12 to
1.81). All rows together took 42 minutes with one thread on a busy machine.

Results go to the file of ``--out``, one JSON object a line; what is there is not computed again.
``--tiny`` shows on small synthetic data that it runs.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from json_lines import ResultLines
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae import build, fit, log_likelihood
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.categorical import CategoricalModel
from ppl_vae.models.full_covariance import FullCovarianceModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.negative_binomial import NegativeBinomialModel
from ppl_vae.models.poisson import PoissonModel
from ppl_vae.models.student import StudentModel
from ppl_vae.models.zero_inflated import ZeroInflatedModel
from ppl_vae.nn import MLP, make_decoder

Fields = dict[str, Tensor]
UNRELIABLE = 0.7  # k-hat above it
CENSUS = (
    "workclass", "education", "marital-status", "occupation", "relationship", "race", "sex",
    "native-country", "income-per-year",
)  # fmt: skip


# The wrong likelihood of categories.


class CellNormal(dist.TorchDistribution):
    """Codes 0, ..., C - 1 with the probability that a normal gives to (code - 1/2, code + 1/2).

    The first cell reaches down to minus infinity and the last one up to infinity, so that the
    probabilities add up to 1.

    Args:
        loc: (..., features).
        scale: (..., features).
        categories: Number of codes, (features,).
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(self, loc: Tensor, scale: Tensor, categories: Tensor) -> None:
        self.loc, self.scale, self.categories = loc, scale, categories
        super().__init__(loc.shape, validate_args=False)

    def expand(self, shape: Sequence[int], _instance: Any = None) -> CellNormal:
        """Return the same distribution with a larger batch shape."""
        return CellNormal(self.loc.expand(shape), self.scale.expand(shape), self.categories)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw codes: the cell in which a draw of the normal lies."""
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            codes = torch.normal(self.loc.expand(shape), self.scale.expand(shape)).round()
        return codes.clamp(min=0).minimum(self.categories - 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithm of the probability of each code."""
        far = self.loc.new_tensor(1e4)  # the normal's probability beyond it is 0
        low = (value - 0.5 - self.loc) / self.scale
        high = (value + 0.5 - self.loc) / self.scale
        low = torch.where(value <= 0, -far, low.clamp(-far, far))
        high = torch.where(value >= self.categories - 1, far, high.clamp(-far, far))
        above = low + high > 0  # in the upper half, by symmetry, digits are not lost
        low, high = torch.where(above, -high, low), torch.where(above, -low, high)
        upper, lower = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
        return upper + torch.log1p(-(lower - upper).clamp(max=-1e-7).exp())


class CellNormalModel(PyroModule):
    """z ~ Normal(0, I); x ~ CellNormal(loc + scale m, scale exp(v / 2)), with m, v = decoder(z)."""

    loc: Tensor
    scale: Tensor
    count: Tensor

    def __init__(
        self,
        features: int,
        latents: int,
        categories: Sequence[int],
        loc: Tensor,
        scale: Tensor,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.features, self.latents = features, latents
        self.decoder = decoder or make_decoder(latents, features, heads=2)
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)
        self.register_buffer("count", torch.tensor(categories))

    def forward(self, x: Tensor) -> None:
        """Draw codes z and score rows x, (rows, features), of whole numbers from 0."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc.new_zeros(self.latents), 1.0).to_event(1))
            mean, log_variance = self.decoder(z).chunk(2, -1)
            spread = self.scale * (log_variance / 2).exp()
            likelihood = CellNormal(self.loc + self.scale * mean, spread, self.count)
            pyro.sample("x", likelihood.to_event(1), obs=x)


# The data of a contest: all rows, of which the seed's split takes its share.


def cells(folder: Path, seed: int) -> Fields:
    """Counts of the 1,000 genes of the largest variance, and the size of each cell."""
    counts = scipy.sparse.load_npz(folder / "pbmc_counts.npz").toarray()
    genes = np.argsort(-counts.var(0))[:1000]
    size = counts.sum(1)
    return {
        "x": torch.from_numpy(counts[:, genes]).float(),
        "size": torch.from_numpy(size / size.mean()).float(),
    }


def census(folder: Path, seed: int) -> Fields:
    """Columns of the census as codes in alphabetical order, (rows, 9)."""
    frame = pd.read_csv(folder / "adult.csv")[list(CENSUS)]
    codes = np.stack([frame[name].astype("category").cat.codes for name in CENSUS], 1)
    return {"x": torch.from_numpy(codes.astype(np.int64))}


def satellite(folder: Path, seed: int, *, far: float = 0.0) -> Fields:
    """Whole numbers and a draw of Uniform(0, 1); a share of the cells far from their column."""
    with np.load(folder / "adbench" / "30_satellite.npz", allow_pickle=False) as held:
        x = held["X"].astype(np.float64)
    generator = np.random.default_rng(seed)
    x += generator.random(x.shape)
    x = np.where(generator.random(x.shape) < far, far_values(x, generator), x)
    return {"x": torch.from_numpy(x).float()}


def far_values(x: Any, generator: np.random.Generator) -> Any:
    """Draw values 5 to 20 standard deviations from the mean of each column, above or below."""
    distance = generator.uniform(5, 20, x.shape) * generator.choice([-1, 1], x.shape)
    return x.mean(0) + distance * x.std(0)


def synthetic(kind: str, folder: Path, seed: int) -> Fields:
    """Rows of three columns that share a factor."""
    generator = np.random.default_rng(seed)
    normal = generator.normal(size=(90, 3)) + generator.normal(size=(90, 1))
    if kind == "cells":
        counts = torch.from_numpy(generator.poisson(np.exp(normal))).float()
        return {"x": counts, "size": torch.ones(90)}
    if kind == "categories":
        return {"x": torch.from_numpy(normal.clip(-2, 2).round().astype(np.int64) + 2)}
    far = 0.02 * (kind == "outliers")
    x = np.where(generator.random(normal.shape) < far, far_values(normal, generator), normal)
    return {"x": torch.from_numpy(x).float()}


# Contests.


class LogCounts(nn.Module):
    """log(1 + x), so that an encoder reads counts of about unit size."""

    def forward(self, x: Tensor) -> Tensor:
        """Return log(1 + x), of any shape."""
        return x.log1p()


def count_guide(data: Fields, latents: int) -> NormalGuide:
    """Return a guide of counts."""
    features = data["x"].shape[1]
    encoder = nn.Sequential(LogCounts(), MLP(features, 2 * latents))
    return NormalGuide(features, latents, encoder)


def any_guide(data: Fields, latents: int) -> NormalGuide:
    """Return a guide of numbers, each column at its mean and standard deviation."""
    return build(NormalGuide, data, latents=latents)


@dataclass(frozen=True)
class Contest:
    """One data set, the right likelihood, the wrong one and others, and how all are fitted.

    Attributes:
        data: Reads all rows from a folder, for a seed.
        models: ``{name: class}``: the right one, then those that it is compared with.
        guide: Makes the guide of training rows and a number of latents.
        sizes: Rows to train on, to validate on, and to test on.
        latents: Size of the code.
        rate: Adam's learning rate.
        batch_size: Rows of an update.
        epochs: Passes over the training rows, at most.
        patience: Epochs without a better validation ELBO before a fit ends.
        samples: Draws of the code for every test row.
    """

    data: Callable[[Path, int], Fields]
    models: dict[str, type]
    guide: Callable[[Fields, int], NormalGuide] = any_guide
    sizes: tuple[int, int, int] = (2000, 400, 800)
    latents: int = 8
    rate: float = 4e-3
    batch_size: int = 100
    epochs: int = 60
    patience: int = 10
    samples: int = 1000


CONTESTS = {
    "cells": Contest(
        cells,
        {
            "negative binomial": NegativeBinomialModel,
            "poisson": PoissonModel,
            "zero-inflated": ZeroInflatedModel,
        },
        count_guide,
        sizes=(650, 150, 200),
        batch_size=50,
    ),
    "categories": Contest(
        census, {"categorical": CategoricalModel, "cell normal": CellNormalModel}
    ),
    "outliers": Contest(
        partial(satellite, far=0.02), {"student": StudentModel, "normal": GaussianModel}
    ),
    "covariance": Contest(
        satellite, {"full covariance": FullCovarianceModel, "diagonal": GaussianModel}
    ),
}
TINY = {"sizes": (50, 20, 20), "epochs": 2, "samples": 30, "latents": 2}


def split(data: Fields, sizes: tuple[int, int, int], seed: int) -> list[Fields]:
    """Return training, validation and test rows: parts of a random order."""
    order = torch.randperm(len(data["x"]), generator=torch.Generator().manual_seed(seed))
    parts = order[: sum(sizes)].split(sizes)
    return [{name: values[index] for name, values in data.items()} for index in parts]


def pair_of(contest: Contest, name: str, whole: Fields, train: Fields, seed: int) -> Any:
    """Return a fresh model and guide; numbers of categories are those of all rows."""
    given: dict[str, Any] = {"latents": contest.latents}
    if not train["x"].is_floating_point():
        given["categories"] = [int(code) + 1 for code in whole["x"].amax(0)]
    torch.manual_seed(seed)
    guide = contest.guide(train, contest.latents)  # first, so that all sides have the same one
    return build(contest.models[name], train, **given), guide


def measure(contest: Contest, name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Fit one model and score its test rows; return what was measured."""
    began = time.perf_counter()
    whole = contest.data(folder, seed)
    train, valid, test = split(whole, contest.sizes, seed)
    model, guide = pair_of(contest, name, whole, train, seed)
    history = fit(
        model, guide, train, validation=valid, seed=seed, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=contest.rate),
        epochs=contest.epochs, batch_size=contest.batch_size, patience=contest.patience,
    )  # fmt: skip
    fitted = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableWarning)  # its figures are in the row
        scores = log_likelihood(model, guide, test, num_samples=contest.samples, seed=seed)
    return {
        "log_prob": scores["log_prob"].mean(),
        "se": scores["log_prob"].std() / math.sqrt(len(scores)),
        "elbo": scores["elbo"].mean(),
        "ess": scores["ess"].mean(),
        f"k_hat above {UNRELIABLE}": float((scores["k_hat"] > UNRELIABLE).mean()),
        "epochs": len(history.frame),
        "best_epoch": int(history.best_epoch),
        "stopped": history.stopped,
        "seconds": round(fitted - began, 1),
        "seconds_scored": round(time.perf_counter() - fitted, 1),
    }


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return how far the right model is above each other one: mean over seeds, least, most."""
    found = []
    for contest, rows in table.groupby("contest", sort=False):
        scores = rows.pivot_table(index="seed", columns="model", values="log_prob", sort=False)
        right, *others = rows["model"].unique()
        for other in others:
            gaps = (scores[right] - scores[other]).dropna()
            found.append(
                {
                    "contest": contest, "difference": f"{right} - {other}", "mean": gaps.mean(),
                    "least": gaps.min(), "most": gaps.max(), "seeds": len(gaps),
                }
            )  # fmt: skip
    columns = ["contest", "difference", "mean", "least", "most", "seeds"]
    return pd.DataFrame(found, columns=columns)


def main(words: Sequence[str] | None = None) -> pd.DataFrame:
    """Fit and score what is not in the file yet, print both tables, return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, help="file of results, one JSON object a line")
    parser.add_argument("--contests", nargs="+", choices=CONTESTS, default=list(CONTESTS),
                        metavar="NAME", help=", ".join(CONTESTS))  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="at most")
    parser.add_argument("--tiny", action="store_true", help="small synthetic data")
    arguments = parser.parse_args(words)
    if arguments.data is None and not arguments.tiny:
        parser.error("--data: expected the folder of the data sets, or --tiny")
    results, rows = ResultLines(arguments.out), []
    for seed in range(arguments.seeds):  # every contest once, before any has its second seed
        for title in arguments.contests:
            contest = CONTESTS[title]
            if arguments.tiny:
                contest = replace(contest, data=partial(synthetic, title), **TINY)
            if arguments.epochs:
                contest = replace(contest, epochs=arguments.epochs)
            settings = {
                "latents": contest.latents, "rate": contest.rate, "samples": contest.samples,
                "batch_size": contest.batch_size, "epochs_at_most": contest.epochs,
                "patience": contest.patience, "train_rows": contest.sizes[0],
                "test_rows": contest.sizes[2], "tiny": arguments.tiny,
            }  # fmt: skip
            for name in contest.models:
                key = {"contest": title, "model": name, "seed": seed, **settings}
                row = results.find(**key)
                if row is None:
                    row = {**key, **measure(contest, name, arguments.data, seed)}
                    results.append(row)
                    print(f"{title}, {name}, seed {seed}: {row['log_prob']:.3f}", flush=True)
                rows.append(row)
    table = pd.DataFrame(rows)
    order = {title: place for place, title in enumerate(CONTESTS)}
    table = table.sort_values("contest", key=lambda titles: titles.map(order), kind="stable")
    shown = ["contest", "model", "seed", "log_prob", "se", "ess", f"k_hat above {UNRELIABLE}",
             "epochs", "seconds"]  # fmt: skip
    print(table[shown].to_string(index=False, float_format="{:.3f}".format))
    print("\nnats a row")
    print(differences(table).to_string(index=False, float_format="{:.3f}".format))
    return table


if __name__ == "__main__":
    main()
