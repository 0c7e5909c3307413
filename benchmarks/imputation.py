"""Missing cells filled by ``impute``, beside what three papers have published.

    python benchmarks/imputation.py [--data DIR] [--out rows.jsonl] [--rows miwae wine] [--seed 0]

    miwae       breast cancer (569 rows, 30 columns), half of all cells missing at random. Student's
                t in the model and the guide, 501 epochs, 10,000 draws: the MIWAE notebook
    not_miwae   white wine (4,898 rows, 11 columns); of the first 5 columns, what is above the mean
                is missing. models/not_missing_at_random.py, 100,000 updates, 1,000 draws
    ignores     the same pair without the statement that says why cells are missing
    wine        red and white wine (6,497 rows; 11 columns of numbers, the quality a count, the kind
                of wine a category), 20 % of all cells missing at random. models/table.py with
                guides/table.py, 10 latents, two hidden layers of 128, the default ELBO, 200 epochs
                in batches of 128, Adam at 1e-3 whose rate falls to 0 along a cosine, 1,000 draws

In the first three rows, columns have mean 0 and standard deviation 1, and the error is that of the
missing cells: the mean of squares (miwae), or its root, beside that of the columns' means. These
fits take ``IWAE(20)``, and Adam at 2e-4 in batches of 32, or at 1e-3 in batches of 16. In the last
row the error is the mean over the columns of the root mean square error over the column's range,
for the kind of wine the share of wrong cells; beside it stand means with the most frequent kind,
and scikit-learn's IterativeImputer on standardized numbers with the kind as 0 and 1. DIR holds
``wine_quality.csv``; without it the first row alone is measured. Results go to the file of
``--out``, one JSON object a line; what is there is not computed again. ``--tiny`` shows that it
runs.

Measured with seed 0, error beside that of the means, on one of two cores that others shared:

    miwae        0.2794 beside 1.0275    fit 76 s, impute 100 s
    not_miwae    0.9679 beside 1.7393    fit 274 s, impute 25 s
    ignores      1.5628 beside 1.7393    fit 255 s, impute 25 s

and with seeds 0, 1 and 2, on cores that others shared:

    wine         0.0619, 0.0624, 0.0619 beside 0.1122, 0.1131, 0.1121 of means and most frequent
                 kinds, and 0.0693, 0.0705, 0.0685 of the iterative imputer; fit 17 s, impute 21 s

Few draws count in 539 of 569 rows (miwae) and in 1,452 of 4,502 (not_miwae), and in 1,367,
796 and 758 of 6,140 (wine): ``impute`` warns of them, and ``unreliable_rows`` of a line has their
number.

Published: 0.28699 for miwae (the authors' notebook), 1.04 for not_miwae with the direction of the
missing cells known, 1.74 for the means and 1.41 for an iterative imputer (table 1 of the paper).
For wine, on other masks: 0.0687 for an iterative imputer, and 0.1109 for means and most frequent
kinds (HI-VAE's table).

Sources: Mattei & Frellsen (2019), arXiv:1812.02633, and their notebook; Ipsen, Mattei & Frellsen
(2021), section 4.1, arXiv:2006.12871; Nazabal et al. (2020), arXiv:1807.03653.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from json_lines import ResultLines
from pyro.nn import PyroModule
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  makes the import below work
from sklearn.impute import IterativeImputer
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae import IWAE, build, fit, impute, table
from ppl_vae.guides.missing_cells import MissingCellsGuide
from ppl_vae.guides.table import TableGuide
from ppl_vae.models.not_missing_at_random import NotMissingAtRandomModel
from ppl_vae.models.table import TableModel
from ppl_vae.nn import MLP

HIDDEN, LATENTS = 128, 10
PUBLISHED = {"miwae": 0.28699, "not_miwae": 1.04, "wine": 0.0687}
SETTINGS = {
    "miwae": {"epochs": 501, "batch_size": 32, "rate": 2e-4, "num_samples": 10_000},
    "not_miwae": {"epochs": 326, "batch_size": 16, "rate": 1e-3, "num_samples": 1_000},
}
SETTINGS["ignores"] = SETTINGS["not_miwae"]
SETTINGS["wine"] = {"epochs": 200, "batch_size": 128, "rate": 1e-3, "num_samples": 1_000}
KIND = 12
"""The column of wine_quality.csv that tells white wine (2) from red (1)."""


class StudentModel(PyroModule):
    """Real features of which some are missing at random: Student's t given a normal code."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.decoder = relu_network(LATENTS, 3 * features, layers=2)

    def forward(self, x: Tensor, seen: Tensor) -> None:
        """Score the cells of rows x, (rows, features), that are seen."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            loc, scale, freedom = self.decoder(z).chunk(3, -1)
            cells = dist.StudentT(softplus(freedom) + 3, loc, softplus(scale) + 1e-3)
            pyro.sample("x", cells.mask(seen).to_event(1), obs=x)


class StudentGuide(PyroModule):
    """Student's t for the code; a learned number stands in each missing cell."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.encoder = relu_network(features, 3 * LATENTS, layers=3)
        self.fill = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor, seen: Tensor) -> None:
        """Draw codes of rows x, (rows, features)."""
        loc, scale, freedom = self.encoder(torch.where(seen, x, self.fill)).chunk(3, -1)
        with pyro.plate("data", len(x)):
            code = dist.StudentT(softplus(freedom) + 3, loc, softplus(scale))
            pyro.sample("z", code.to_event(1))


class IgnoringModel(NotMissingAtRandomModel):
    """The model without the statement that says why cells are missing."""

    def forward(self, x: Tensor, seen: Tensor) -> None:
        """Draw codes and missing cells, and score the other cells, (rows, features)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latents), 1.0).to_event(1))
            cells = self.cells(z)
            pyro.sample("missing", cells.mask(~seen).to_event(1))
            pyro.sample("x", cells.mask(seen).to_event(1), obs=x)


def relu_network(inputs: int, outputs: int, layers: int) -> MLP:
    """Return a network of the notebook: ReLU, He's initial weights and zeros."""
    network = MLP(inputs, outputs, (HIDDEN,) * layers, nn.ReLU)
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return network


def half_missing() -> tuple[np.ndarray, np.ndarray]:
    """Return breast cancer's columns and which cells are seen, as the notebook draws them."""
    x = load_breast_cancer().data.astype(np.float32)
    x = (x - x.mean(0)) / x.std(0)
    missing = np.random.RandomState(1234).choice(x.size, x.size // 2, replace=False)
    seen = np.ones(x.size, dtype=bool)
    seen[missing] = False
    return x, seen.reshape(x.shape)


def large_missing(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return white wine's columns and which cells are seen: in the first five, those not large."""
    table = np.loadtxt(folder / "wine_quality.csv", delimiter=",")
    x = table[table[:, 12] == 2, :11]
    x = (x - x.mean(0)) / x.std(0)
    few = x.shape[1] // 2
    seen = np.ones(x.shape, dtype=bool)
    seen[:, :few] = x[:, :few] <= x[:, :few].mean(0)
    return x.astype(np.float32), seen


def pair_of(name: str, features: int) -> tuple[Any, Any]:
    """Return the model and the guide of a row."""
    if name == "miwae":
        return StudentModel(features), StudentGuide(features)
    latents, hidden = features - 1, (HIDDEN, HIDDEN)
    cls = IgnoringModel if name == "ignores" else NotMissingAtRandomModel
    model = cls(features, latents, MLP(latents, 2 * features, hidden))
    return model, MissingCellsGuide(features, model, MLP(2 * features, 2 * latents, hidden))


def measured(
    name: str, x: np.ndarray, seen: np.ndarray, settings: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Fit the pair of a row and fill the missing cells; return the errors and the time."""
    torch.manual_seed(seed)
    model, guide = pair_of(name, x.shape[1])
    data = {"x": np.where(seen, x, np.float32(0)), "seen": seen}
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what still rises, and rows of which few draws count
        history = fit(
            model, guide, data, elbo=IWAE(20), epochs=settings["epochs"],
            batch_size=settings["batch_size"], seed=seed, progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, settings["rate"]),
        )  # fmt: skip
        fitted = time.process_time()
        result = impute(model, guide, data, num_samples=settings["num_samples"], seed=seed)
    means = np.broadcast_to(np.nanmean(np.where(seen, x, np.nan), 0), x.shape)
    return {
        "error": error_of(name, result.completed["x"], x, seen),
        "error_of_means": error_of(name, means, x, seen),
        "updates": int(history.frame["step"].iloc[-1]),
        "unreliable_rows": int(result.frame["row"][result.unreliable].nunique()),
        "incomplete_rows": result.rows,
        "cpu_seconds_fit": round(fitted - began),
        "cpu_seconds_impute": round(time.process_time() - fitted),
    }


def error_of(name: str, filled: np.ndarray, x: np.ndarray, seen: np.ndarray) -> float:
    """Return the error of the missing cells: the mean of squares (miwae), or its root."""
    squares = float(((filled - x)[~seen].astype(float) ** 2).mean())
    return squares if name == "miwae" else squares**0.5


# Wine of both kinds, as a table


def wines(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all columns of all wines, (rows, 13), and which cells are seen, 80 % of them."""
    x = np.loadtxt(folder / "wine_quality.csv", delimiter=",")
    return x, np.random.default_rng(seed).random(x.shape) >= 0.2


def measured_table(
    x: np.ndarray, seen: np.ndarray, settings: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Fit a table's pair to wines and fill the missing cells; return the errors and the time."""
    frame = pd.DataFrame(np.where(seen, x, np.nan)).add_prefix("column ")
    frame[f"column {KIND}"] = frame[f"column {KIND}"].map({1.0: "red", 2.0: "white"})
    data = table(frame)
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"latents": LATENTS, "hidden": (HIDDEN, HIDDEN)}
    model, guide = build(TableModel, data, **sizes), build(TableGuide, data, **sizes)
    steps = settings["epochs"] * -(-len(frame) // settings["batch_size"])
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what still rises, and rows of which few draws count
        history = fit(
            model, guide, data, epochs=settings["epochs"], batch_size=settings["batch_size"],
            seed=seed, progress=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, settings["rate"]),
            scheduler=lambda of: torch.optim.lr_scheduler.CosineAnnealingLR(of, steps),
        )  # fmt: skip
        fitted = time.process_time()
        result = impute(model, guide, frame, num_samples=settings["num_samples"], seed=seed)
        imputed = time.process_time()
        by_columns = filled_by_sklearn(np.where(seen, x, np.nan), seed)
    completed = result.completed
    completed[f"column {KIND}"] = completed[f"column {KIND}"].map({"red": 1.0, "white": 2.0})
    means = np.broadcast_to(np.nanmean(np.where(seen, x, np.nan), 0), x.shape).copy()
    means[:, KIND] = 1 + (means[:, KIND] > 1.5)
    return {
        "error": error_over_range(completed.to_numpy(dtype=float), x, seen),
        "error_of_means": error_over_range(means, x, seen),
        "error_of_iterative": error_over_range(by_columns, x, seen),
        "updates": int(history.frame["step"].iloc[-1]),
        "unreliable_rows": int(result.frame["row"][result.unreliable].nunique()),
        "incomplete_rows": result.rows,
        "cpu_seconds_fit": round(fitted - began),
        "cpu_seconds_impute": round(imputed - fitted),
    }


def filled_by_sklearn(x: np.ndarray, seed: int) -> np.ndarray:
    """Return wines whose missing cells, NaN, scikit-learn has filled from the other columns."""
    loc, scale = np.nanmean(x, 0), np.nanstd(x, 0)
    filled = IterativeImputer(random_state=seed).fit_transform((x - loc) / scale) * scale + loc
    filled[:, KIND] = 1 + (filled[:, KIND] > 1.5)
    return np.asarray(filled)


def error_over_range(filled: np.ndarray, x: np.ndarray, seen: np.ndarray) -> float:
    """Return the mean error of the columns: over the range, or the share of wrong kinds of wine."""
    apart = np.where(seen, np.nan, filled - x)
    of_columns = np.sqrt(np.nanmean(apart**2, 0)) / np.ptp(x, 0)
    of_columns[KIND] = np.nanmean(np.where(seen[:, KIND], np.nan, apart[:, KIND] != 0))
    return float(of_columns.mean())


def main() -> None:
    """Measure the rows, and print them."""
    parser = argparse.ArgumentParser(description="Missing cells, beside published errors.")
    parser.add_argument("--data", type=Path, help="folder of wine_quality.csv")
    parser.add_argument("--out", type=Path, help="file of results, one JSON object a line")
    parser.add_argument("--rows", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="instead of those of the papers")
    parser.add_argument("--tiny", action="store_true", help="60 rows, two epochs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = ResultLines(arguments.out)
    for name in arguments.rows:
        if name != "miwae" and arguments.data is None:
            continue
        settings = dict(SETTINGS[name])
        settings["epochs"] = arguments.epochs or settings["epochs"]
        if arguments.tiny:
            settings |= {"epochs": 2, "num_samples": 50}
        key = {"row": name, "seed": arguments.seed, "tiny": arguments.tiny, **settings}
        line = results.find(**key)
        if line is None:
            rows = slice(60 if arguments.tiny else None)
            if name == "wine":
                x, seen = wines(arguments.data, arguments.seed)
                found = measured_table(x[rows], seen[rows], settings, arguments.seed)
            else:
                x, seen = half_missing() if name == "miwae" else large_missing(arguments.data)
                found = measured(name, x[rows], seen[rows], settings, arguments.seed)
            line = {**key, **found}
            results.append(line)
        beside = f"published {PUBLISHED[name]:.5g}" if name in PUBLISHED else ""
        if name == "wine":
            beside = f"iterative {line['error_of_iterative']:.4f}  {beside}"
        print(
            f"{name:10} error {line['error']:.4f}  means {line['error_of_means']:.4f}  {beside}"
            f"  {line['cpu_seconds_fit']} + {line['cpu_seconds_impute']} s of one core",
            flush=True,
        )


if __name__ == "__main__":
    main()
