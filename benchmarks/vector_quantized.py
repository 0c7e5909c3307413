"""Codes of a codebook beside normal codes that hold as much: how well MNIST is drawn from either.

    python benchmarks/vector_quantized.py --data DIR [--out rows.jsonl] [--draw samples.png]

    codes    models/vector_quantized.py with guides/nearest_code.py: a code at each of 7 x 7 places,
             and afterwards the prior, fitted to the codes of the training images
    normal   models/isotropic.py with guides/normal.py: at each place as many numbers as a vector of
             the codebook has. The decoder is the same network, the noise and the optimizer, too

Nats of ``codes`` are the mean of -log p(k) under the fitted prior over the test images: what it
takes to write their codes down. Nats of ``normal`` are the KL divergence of the guide from the
prior. Its KL weight is moved after every epoch, on training images, until the divergence is the
nats of ``codes``, so that this row needs that one. The error is the squared distance of a test
image (784 gray values from 0 to 1) from its expectation given one draw of the code. Codes in use
are those that any training image has.

Adam at 2e-3, down by half a cosine, batches of 128; the prior keeps its best weights by a tenth of
the training images. DIR holds ``mnist.npz``. Results go to the file of ``--out``, one JSON object a
line; what is there is not computed again. ``--tiny`` shows that it runs.

Measured with the defaults (20,000 training images, 15 epochs, 64 codes, seed 0), on all 10,000 test
images, 419 s of one core together on a machine that other programs shared:

    codes     68.84 nats   squared error 3.49   all 64 codes in use, perplexity 15.1
    normal    68.93 nats   squared error 4.38   KL weight 1.72

Under the uniform prior the codes take 203.8 nats. The prior of ``normal`` is the standard normal,
which nothing is fitted to afterwards: the comparison is of the two pairs as they are, with one
seed and one number of nats, and not of codes with numbers as such.

Source: van den Oord, Vinyals & Kavukcuoglu (2017), section 4, arXiv:1711.00937, which has no figure
for MNIST.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from json_lines import ResultLines
from torch import Tensor, nn

from ppl_vae import build, elbo_terms, encode, fit, generate
from ppl_vae.guides.nearest_code import NearestCodeGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.isotropic import IsotropicModel
from ppl_vae.models.vector_quantized import VectorQuantizedModel
from ppl_vae.nn import GridDecoder, GridEncoder, places_of
from ppl_vae.plots import image_grid

SHAPE = 1, 28, 28
SIZE, SIGMA = 8, 0.5
RATE, BATCH = 2e-3, 128


class TwoGrids(nn.Module):
    """Two numbers for each of the grid's numbers: (..., 1, 28, 28) -> (..., 2 * places * size)."""

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.size, self.grid = size, GridEncoder(SHAPE, 2 * size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return all first numbers, and then all second ones."""
        both = self.grid(x).unflatten(-1, (-1, 2, self.size))
        return both.transpose(-3, -2).flatten(-3)


def images(folder: Path, count: int | None, part: str) -> Tensor:
    """Return the first images of a part of MNIST, (count, 1, 28, 28), gray values from 0 to 1."""
    with np.load(folder / "mnist.npz", allow_pickle=False) as file:
        return torch.from_numpy(file[part][:count]).float()[:, None] / 255


def trained(model: Any, guide: Any, rows: Any, epochs: int, seed: int, **how: Any) -> Any:
    """Fit a pair by Adam over half a cosine; return the history."""
    steps = epochs * math.ceil(len(rows) / BATCH)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fit. the ")  # what still rises is no surprise
        return fit(
            model, guide, rows, epochs=epochs, batch_size=BATCH, seed=seed, compile=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, RATE),
            scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps), **how,
        )  # fmt: skip


def codes_of(model: Any, guide: Any, x: Tensor) -> Tensor:
    """Return the codes of images, (rows, positions) of whole numbers."""
    return torch.tensor(encode(model, guide, x)["k"]["mean"].to_numpy()).long()


def squared_error(model: Any, guide: Any, x: Tensor, sigma: float) -> float:
    """Return the mean squared distance of an image from its expectation given one draw."""
    log_prob = elbo_terms(model, guide, x, num_samples=1)["x"].mean()
    constant = math.prod(SHAPE) * math.log(sigma * math.sqrt(2 * math.pi))
    return float(-2 * sigma**2 * (log_prob + constant))


def codes_row(x: Tensor, test: Tensor, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit the pair with a codebook, then the prior of its codes; return what was measured."""
    torch.manual_seed(arguments.seed)
    hidden = (16, 32)
    model = build(
        VectorQuantizedModel, x, codes=arguments.codes, size=SIZE, sigma=SIGMA,
        decoder=GridDecoder(SIZE, SHAPE, hidden[::-1]),
    )  # fmt: skip
    guide = build(NearestCodeGuide, x, model=model, encoder=GridEncoder(SHAPE, SIZE, hidden))
    began = time.process_time()
    trained(model, guide, x, arguments.epochs, arguments.seed)
    fitted = time.process_time()
    known, codes = codes_of(model, guide, x), codes_of(model, guide, test)
    model.prior.requires_grad_()
    how = {"validation": 0.1, "patience": 5}
    prior = trained(model.code_prior, None, known, arguments.prior_epochs, arguments.seed, **how)
    if arguments.draw:
        draw(model, guide, x, arguments.draw)
    share = known.flatten().bincount(minlength=arguments.codes) / known.numel()
    sigma = float(SIGMA * model.scale.mean())
    return {
        "nats": -float(elbo_terms(model.code_prior, None, codes).sum(1).mean()),
        "squared_error": squared_error(model, guide, test, sigma),
        "in_use": float((share > 0).float().mean()),
        "perplexity": float(torch.special.entr(share).sum().exp()),
        "uniform_nats": codes.shape[1] * math.log(arguments.codes),
        "prior_epochs_run": int(prior.frame["epoch"].iloc[-1]),
        "sigma": sigma,
        "cpu_seconds": round(fitted - began),
        "cpu_seconds_prior": round(time.process_time() - fitted),
    }


def normal_row(
    x: Tensor, test: Tensor, arguments: argparse.Namespace, codes: dict[str, Any]
) -> dict[str, Any]:
    """Fit the pair of normal codes at the nats of the other row; return what was measured."""
    torch.manual_seed(arguments.seed)
    hidden, latents, sigma = (16, 32), SIZE * places_of(SHAPE), codes["sigma"]
    decoder = GridDecoder(SIZE, SHAPE, hidden[::-1])
    model = build(IsotropicModel, x, latents=latents, decoder=decoder, sigma=sigma)
    guide = build(NormalGuide, x, latents=latents, encoder=TwoGrids(SIZE, hidden))
    few, weight = x[: min(len(x), 1000)], [1.0]

    def nats(rows: Tensor) -> float:
        return -float(elbo_terms(model, guide, rows, num_samples=1)["z"].mean())

    def move(row: dict[str, float], model: Any, guide: Any) -> None:
        weight[0] *= min(max(nats(few) / codes["nats"], 0.5), 2.0)

    began = time.process_time()
    trained(
        model, guide, x, arguments.epochs, arguments.seed,
        kl_weight=lambda step: weight[0], callbacks=[move],
    )  # fmt: skip
    return {
        "nats": nats(test),
        "squared_error": squared_error(model, guide, test, sigma),
        "kl_weight": weight[0],
        "cpu_seconds": round(time.process_time() - began),
    }


def draw(model: Any, guide: Any, x: Tensor, file: Path) -> None:
    """Draw images of the fitted prior."""
    new = generate(model, guide, x, num_samples=60, expected=True)[:, 0]
    ax = image_grid(new, columns=12, low=0, high=1, title="Drawn from the prior over codes")
    ax.figure.savefig(file, dpi=130)
    plt.close(ax.figure)


def main() -> None:
    """Measure both rows, and print them."""
    parser = argparse.ArgumentParser(description="Codes of a codebook beside normal codes.")
    parser.add_argument("--data", type=Path, required=True, help="folder of mnist.npz")
    parser.add_argument("--out", type=Path, help="file of results, one JSON object a line")
    parser.add_argument("--draw", type=Path, help="figure of images drawn from the prior")
    parser.add_argument("--images", type=int, default=20000, help="training images")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--prior-epochs", type=int, default=30)
    parser.add_argument("--codes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="60 images, two epochs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tiny:
        arguments.images, arguments.epochs, arguments.prior_epochs = 60, 2, 2
    x = images(arguments.data, arguments.images, "x_train")
    test = images(arguments.data, arguments.images if arguments.tiny else None, "x_test")
    results, lines = ResultLines(arguments.out), {}
    names = "images", "epochs", "prior_epochs", "codes", "seed"
    settings = {name: getattr(arguments, name) for name in names}
    for name in ("codes", "normal"):
        line = results.find(row=name, **settings)
        if line is None:
            given = (lines["codes"],) if name == "normal" else ()
            measured = (normal_row if given else codes_row)(x, test, arguments, *given)
            line = {"row": name, **settings, **measured}
            results.append(line)
        lines[name] = line
        print(
            f"{name:8} {line['nats']:8.2f} nats  squared error {line['squared_error']:6.2f}", end=""
        )
        print(f"  {line['cpu_seconds']} s of one core", flush=True)
    line = lines["codes"]
    print(
        f"{line['in_use']:.0%} of {line['codes']} codes are in use (perplexity "
        f"{line['perplexity']:.1f}), "
        f"{line['uniform_nats']:.1f} nats under a uniform prior"
    )


if __name__ == "__main__":
    main()
