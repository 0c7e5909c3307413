"""Missing cells filled by ``impute``, beside what two papers have published.

    python benchmarks/imputation.py [--data DIR] [--out rows.jsonl] [--rows miwae not_miwae ignores]

    miwae       breast cancer (569 rows, 30 columns), half of all cells missing at random. Student's
                t in the model and the guide, 501 epochs, 10,000 draws: the MIWAE notebook
    not_miwae   white wine (4,898 rows, 11 columns); of the first 5 columns, what is above the mean
                is missing. models/not_missing_at_random.py, 100,000 updates, 1,000 draws
    ignores     the same pair without the statement that says why cells are missing

Columns have mean 0 and standard deviation 1. The error is that of the missing cells: the mean of
squares (miwae), or its root (the others), beside that of the columns' means. Both fits take
``IWAE(20)``, and Adam at 2e-4 in batches of 32, or at 1e-3 in batches of 16. DIR holds
``wine_quality.csv``; without it the first row alone is measured. Results go to the file of
``--out``, one JSON object a line; what is there is not computed again. ``--tiny`` shows that it
runs.

Measured with seed 0, error beside that of the means, on one of two cores that others shared:

    miwae        0.2794 beside 1.0275    fit 76 s, impute 100 s
    not_miwae    0.9679 beside 1.7393    fit 274 s, impute 25 s
    ignores      1.5628 beside 1.7393    fit 255 s, impute 25 s

Few draws count in 539 of 569 rows (miwae) and in 1,452 of 4,502 (not_miwae): ``impute`` warns of
them, and ``unreliable_rows`` of a line has their number.

Published: 0.28699 for miwae (the authors' notebook), 1.04 for not_miwae with the direction of the
missing cells known, 1.74 for the means and 1.41 for an iterative imputer (table 1 of the paper).

Sources: Mattei & Frellsen (2019), arXiv:1812.02633, and their notebook; Ipsen, Mattei & Frellsen
(2021), section 4.1, arXiv:2006.12871.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from json_lines import ResultLines
from pyro.nn import PyroModule
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae import IWAE, fit, impute
from ppl_vae.guides.missing_cells import MissingCellsGuide
from ppl_vae.models.not_missing_at_random import NotMissingAtRandomModel
from ppl_vae.nn import MLP

HIDDEN, LATENTS = 128, 10
PUBLISHED = {"miwae": 0.28699, "not_miwae": 1.04}
SETTINGS = {
    "miwae": {"epochs": 501, "batch_size": 32, "rate": 2e-4, "num_samples": 10_000},
    "not_miwae": {"epochs": 326, "batch_size": 16, "rate": 1e-3, "num_samples": 1_000},
}
SETTINGS["ignores"] = SETTINGS["not_miwae"]


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
            x, seen = half_missing() if name == "miwae" else large_missing(arguments.data)
            rows = slice(60 if arguments.tiny else None)
            line = {**key, **measured(name, x[rows], seen[rows], settings, arguments.seed)}
            results.append(line)
        published = f"published {PUBLISHED[name]:.5g}" if name in PUBLISHED else ""
        print(
            f"{name:10} error {line['error']:.4f}  means {line['error_of_means']:.4f}  {published}"
            f"  {line['cpu_seconds_fit']} + {line['cpu_seconds_impute']} s of one core",
            flush=True,
        )


if __name__ == "__main__":
    main()
