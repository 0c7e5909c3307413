"""Which likelihood for these pixels?

    python examples/pixel_likelihoods.py [--data mnist.npz] [--epochs 20] [--run runs/pixels]

Fits four pairs, which differ in the likelihood alone, to 8-bit pixels: patches of 8 x 8 pixels of
the two photographs in scikit-learn, or the images of a file of MNIST. A density and a probability
cannot be compared. So every likelihood is scored by the probability that it gives to the 256
levels: a density is integrated over the cell of the pixel's level, from half a level below to half
a level above, and the first and the last level take what lies beyond them.

    log P(x) = log ∫ p(z) prod_i [F(x_i + 1/2 given z) - F(x_i - 1/2 given z)] dz

Prints held-out log P(x) in nats per image and in bits per pixel, and draws new images of each pair.
"""

import argparse
import math
import time
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.special import log_ndtr

from ppl_vae import build, fit, generate, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.continuous_bernoulli import ContinuousBernoulliModel
from ppl_vae.models.discretized_logistic import DiscretizedLogisticModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.models.isotropic import IsotropicModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid

LATENTS, HIDDEN, HELD_OUT, SHOWN = 16, (200,), 500, 14
# likelihood: class, its arguments, outputs for each pixel, size of one level in its data
LIKELIHOODS = {
    "discretized logistic": (DiscretizedLogisticModel, {}, 2, 1.0),
    "Gaussian": (GaussianModel, {}, 2, 1.0),
    "isotropic Gaussian": (IsotropicModel, {"sigma": 30.0, "learn_sigma": True}, 1, 1.0),
    "continuous Bernoulli": (ContinuousBernoulliModel, {}, 1, 1 / 255),
}


def main() -> None:
    """Fit the pairs, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare four likelihoods of 8-bit pixels.")
    parser.add_argument("--data", type=Path, help="file of MNIST, with an array x_train")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--run", type=Path, default=Path("runs/pixels"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    images = read(arguments.data)  # (rows, pixels), whole numbers from 0 to 255
    test, train = images[:HELD_OUT], images[HELD_OUT:]
    side = math.isqrt(images.shape[1])
    rows, strips = [], {"held-out images": test[:SHOWN]}
    for name in LIKELIHOODS:
        start = time.perf_counter()
        model, guide, unit = fitted(name, train, arguments.epochs)
        levels = Levels(model, unit), Scaled(guide, unit)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="log_likelihood: k-hat")
            scores = log_likelihood(*levels, test, num_samples=100)
        nats = scores["log_prob"].mean()
        error = scores["log_prob"].sem()
        bits = -nats / images.shape[1] / math.log(2)
        rows.append([name, nats, error, bits, time.perf_counter() - start])
        samples = generate(model, None, train * unit, num_samples=SHOWN) / unit
        strips[f"{name}: {bits:.2f}"] = samples.round().clamp(0, 255)
    columns = ["likelihood", "nats per image", "standard error", "bits per pixel", "seconds"]
    table = pd.DataFrame(rows, columns=columns).set_index("likelihood")
    table = table.sort_values("bits per pixel")
    print(table.to_string(float_format="{:.2f}".format))

    order = [
        "held-out images",
        *(f"{n}: {table.loc[n, 'bits per pixel']:.2f}" for n in table.index),
    ]
    ax = image_grid(
        {
            label: 255 - strips[label] if arguments.data is None else strips[label]
            for label in order
        },
        shape=(side, side),
        low=0,
        high=255,
        title="Which likelihood for these pixels? New images, and bits for a held-out pixel "
        "(fewer are better)",
    )
    arguments.run.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(arguments.run / "pixel_likelihoods.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/pixel_likelihoods.png"
        "\nTry next  --data mnist.npz: pixels of ink, most of them 0 or 255."
    )


def read(path: Path | None) -> Tensor:
    """Return 8-bit images in random order, (rows, pixels): MNIST, or patches of photographs."""
    if path is None:
        photographs = np.stack(load_sample_images().images)[..., 1]  # (2, 427, 640), green
        patches = torch.as_tensor(photographs).unfold(1, 8, 8).unfold(2, 8, 8)
        images = patches.reshape(-1, 64)
    else:
        images = torch.as_tensor(np.load(path)["x_train"][:5500]).reshape(5500, -1)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[shuffled].float()


def fitted(name: str, train: Tensor, epochs: int) -> tuple:
    """Return a fitted model and guide of a likelihood, and the size of one level in their data."""
    cls, settings, heads, unit = LIKELIHOODS[name]
    torch.manual_seed(0)
    pixels = train.shape[1]
    decoder = MLP(LATENTS, heads * pixels, HIDDEN, torch.nn.SiLU)
    encoder = MLP(pixels, 2 * LATENTS, HIDDEN, torch.nn.SiLU)
    model = build(cls, train * unit, latents=LATENTS, decoder=decoder, **settings)
    guide = build(NormalGuide, train * unit, latents=LATENTS, encoder=encoder)
    fit(
        model, guide, train * unit, epochs=epochs, batch_size=256, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=2e-3),
        scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs),
    )  # fmt: skip
    return model, guide, unit


class Scaled(PyroModule):
    """A model or a guide of scaled pixels, called with levels from 0 to 255."""

    def __init__(self, half, unit: float) -> None:
        super().__init__()
        self.inner, self.unit = half, unit

    def forward(self, x: Tensor) -> None:
        """Run the model or the guide on levels x, (rows, pixels)."""
        self.inner(x * self.unit)


class Levels(Scaled):
    """A model whose density of pixels is replaced by the probability of their levels."""

    def forward(self, x: Tensor) -> None:
        """Score levels x, (rows, pixels)."""
        with Integrated(self.unit):
            super().forward(x)


class Integrated(Messenger):
    """Handler that integrates the density of observed pixels over the cells of their levels."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def _pyro_sample(self, msg) -> None:
        if msg["is_observed"] and not msg["fn"].support.is_discrete:
            msg["fn"] = Cell(msg["fn"].base_dist, self.unit).to_event(msg["fn"].event_dim)


class Cell(dist.TorchDistribution):
    """The probability of a level under a density of pixels: the integral over the level's cell.

    Args:
        fn: Normal or continuous Bernoulli distribution of pixels.
        unit: Size of one level.
    """

    arg_constraints = {}  # noqa: RUF012  as torch has it
    support = dist.constraints.real

    def __init__(self, fn, unit: float) -> None:
        self.fn, self.unit = fn, unit
        super().__init__(fn.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log [F(value + unit / 2) - F(value - unit / 2)], shaped like ``value``."""
        value = value.double()
        low, high = value - self.unit / 2, value + self.unit / 2
        if isinstance(self.fn, dist.ContinuousBernoulli):
            log_prob = log_cell_of_exponential(
                self.fn.logits.double(), low.clamp_min(0), high.clamp_max(1)
            )
        else:
            low = low.masked_fill(value < self.unit / 2, -math.inf)
            high = high.masked_fill(value > 254.5 * self.unit, math.inf)
            a, b = ((edge - self.fn.loc) / self.fn.scale for edge in (low, high))
            log_prob = log_cell_of_normal(a, b)
        return log_prob.float()


def log_cell_of_normal(a: Tensor, b: Tensor) -> Tensor:
    """Return log [Phi(b) - Phi(a)] for a < b, far in the tails too."""
    flip = a > 0  # Phi(b) - Phi(a) = Phi(-a) - Phi(-b): the left tail has all digits
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    return log_ndtr(b) + torch.log(-torch.expm1(log_ndtr(a) - log_ndtr(b)))


def log_cell_of_exponential(logits: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the log of the integral from a to b of a continuous Bernoulli density."""
    size = logits.abs().clamp_min(1e-6)
    start = torch.where(logits > 0, 1 - b, a)  # from the end with the highest density
    return -size * start + torch.log(-torch.expm1(-size * (b - a))) - torch.log(-torch.expm1(-size))


if __name__ == "__main__":
    main()
