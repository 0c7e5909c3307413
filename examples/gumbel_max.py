"""What does the temperature of a relaxed draw do?

    python examples/gumbel_max.py [--draws 200000] [--run runs/gumbel_max]

A categorical draw is a maximum: add Gumbel noise to the logits, and the largest sum is at category
k with probability softmax(logits)_k (the Gumbel-max identity). The maximum has no gradient. A
softmax at a temperature t in its place has one (Jang, Gu & Poole, 2017, arXiv:1611.01144; Maddison,
Mnih & Teh, 2017, arXiv:1611.00712): near 0 its draws are nearly discrete, at high t nearly even.

Counts where the maximum falls. Then estimates the gradient of an expectation E[f(z)] by the
logits, which a sum over the categories gives exactly, at temperatures from 0.1 to 5: by relaxed
draws, and by straight-through draws, which are discrete forwards and relaxed backwards. A low
temperature has little bias and much noise, a high one the reverse.

Prints bias and noise by temperature, and draws one figure: the counts, relaxed draws at three
temperatures, and bias and noise.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from ppl_vae.distributions import CategoricalVector, RelaxedCategoricalVector

LOGITS = torch.tensor([[1.0, 0.0, 0.5, -1.0, -0.5]])  # of one latent of five categories
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 2.5, 0.0])
TEMPERATURES = np.geomspace(0.1, 5.0, 9)
RELAXED, STRAIGHT = "relaxed", "straight-through"


def main() -> None:
    """Count the maxima, measure the gradients, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="See what the temperature of a draw does.")
    parser.add_argument("--draws", type=int, default=200_000)
    parser.add_argument("--run", type=Path, default=Path("runs/gumbel_max"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    torch.manual_seed(0)

    noise = -(-torch.rand(arguments.draws, LOGITS.shape[-1]).log()).log()
    largest = (LOGITS + noise).argmax(-1)
    counts = torch.bincount(largest, minlength=LOGITS.shape[-1]) / arguments.draws
    chances = CategoricalVector(LOGITS).mean[0]
    print(f"The largest of logits + Gumbel noise is at k; {arguments.draws:,} draws:")
    table = pd.DataFrame({"share of draws": counts, "softmax(logits)": chances})
    print(table.rename_axis("k").to_string(float_format="{:.3f}".format))
    found = by_temperature(arguments.draws)
    print("\nGradient of E[f(z)] by the logits, bias and standard deviation as shares of its norm:")
    print(found.to_string(float_format="{:.3f}".format))
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(counts.numpy(), chances.numpy(), found).savefig(arguments.run / "gumbel_max.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/gumbel_max.png"
        "\nTry next  examples/estimators.py: the same question for a whole model."
    )


def value(z: Tensor) -> Tensor:
    """Return f(z) = (weights z)^2, (draws,), of draws (draws, 1, categories)."""
    return (z @ WEIGHTS).square().squeeze(-1)


def exact() -> Tensor:
    """Return the gradient of E[f(z)] by the logits, (categories,), by a sum over categories."""
    logits = LOGITS.clone().requires_grad_()
    q = CategoricalVector(logits)
    categories = q.enumerate_support()
    total = (q.log_prob(categories).exp() * value(categories)).sum()
    return torch.autograd.grad(total, logits)[0].squeeze(0)


def by_temperature(draws: int) -> pd.DataFrame:
    """Return bias and standard deviation of the gradient, as shares of its norm.

    Every draw has its own copy of the logits, so that one backward pass gives all gradients.
    """
    right, rows = exact(), {}
    for temperature in TEMPERATURES:
        row = {}
        for name in (RELAXED, STRAIGHT):
            logits = LOGITS.expand(draws, *LOGITS.shape).clone().requires_grad_()
            q = RelaxedCategoricalVector(
                logits, torch.tensor(temperature).float(), name == STRAIGHT
            )
            (gradients,) = torch.autograd.grad(value(q.rsample()).sum(), logits)
            gradients = gradients.squeeze(1)
            variance, distance = gradients.var(0).sum(), (gradients.mean(0) - right).square().sum()
            bias = (distance - variance / draws).clamp(min=0).sqrt()  # without the mean's own noise
            row[f"{name}: bias"] = float(bias / right.norm())
            row[f"{name}: standard deviation"] = float(variance.sqrt() / right.norm())
        rows[f"{temperature:.2f}"] = row
    return pd.DataFrame(rows).T.rename_axis("temperature")


def draw(counts: np.ndarray, chances: np.ndarray, found: pd.DataFrame) -> plt.Figure:
    """Draw the counts, relaxed draws at three temperatures, and bias and noise."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    place = np.arange(len(counts))
    left.bar(place - 0.2, counts, 0.4, label="share of maxima")
    left.bar(place + 0.2, chances, 0.4, color="0.75", label="softmax(logits)")
    left.set(xlabel="category", title="Gumbel-max: where the largest sum is")
    left.legend()
    for temperature, color in ((0.1, "C0"), (0.5, "C1"), (2.0, "C2")):
        q = RelaxedCategoricalVector(LOGITS, torch.tensor(temperature))
        first = q.sample((20_000,))[:, 0, 0].numpy()
        middle.hist(
            first, bins=40, range=(0, 1), density=True, histtype="step", color=color, linewidth=1.6,
            label=f"t = {temperature:g}",
        )  # fmt: skip
    middle.set(xlabel="first number of a relaxed draw", ylabel="density", yscale="log")
    middle.set_title("Relaxed draws are vectors, not categories")
    middle.legend()
    temperatures = found.index.astype(float)
    for name, color in ((RELAXED, "C0"), (STRAIGHT, "C3")):
        for what, line in (("bias", "-o"), ("standard deviation", "--s")):
            right.loglog(
                temperatures, found[f"{name}: {what}"], line, color=color, markersize=4,
                label=f"{name}: {what}",
            )  # fmt: skip
    right.set(xlabel="temperature t", ylabel="share of the gradient's norm")
    right.set_title("Gradient: bias against noise")
    right.set_ylim(top=60 * found.max().max())  # room for the legend
    right.legend(fontsize=8)
    figure.suptitle("What does the temperature of a relaxed draw do?")
    return figure


if __name__ == "__main__":
    main()
