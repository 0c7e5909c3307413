"""What are 1,000 digits without a label worth beside 100 that have one?

    python examples/few_labels.py [--labels 100] [--epochs 150] [--run runs/few_labels]

Fits a pair to scikit-learn's digits (8 x 8 pixels, 0 and 1) of which few have a label: the label of
the others is latent, and summed over. Its classifier, a network of the guide, stands beside the
same network trained on the labelled digits alone. Both see digits turned and moved at random while
they train. Prints how many held-out digits get the right label, the Brier score (mean squared error
of the probabilities, summed over the labels: 0 is best) and the calibration error (mean distance of
confidence and accuracy over bins), and draws both classifiers' reliability.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ppl_vae import build, encode, fit
from ppl_vae.guides.classifier import ClassifierGuide
from ppl_vae.models.semisupervised import SemisupervisedModel
from ppl_vae.nn import RandomAffine

CLASSES, SIDE, HELD_OUT, WEIGHT = 10, 8, 500, 10.0


def main() -> None:
    """Classify in two ways, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Digits of which few have a label.")
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--run", type=Path, default=Path("runs/few_labels"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    digits = load_digits()
    shuffled = torch.randperm(len(digits.data), generator=torch.Generator().manual_seed(0))
    x, truth = torch.as_tensor(digits.data > 7).float(), torch.as_tensor(digits.target)
    x, truth = x[shuffled], truth[shuffled]
    train, test = slice(HELD_OUT, None), slice(0, HELD_OUT)
    known = torch.arange(len(x) - HELD_OUT) < arguments.labels
    labels = torch.where(known, truth[train], -1)
    found = {
        "labelled digits alone": alone(x[train][known], labels[known], x[test], arguments.epochs),
        "with the others": together(x[train], labels, x[test], arguments.epochs),
    }
    target = truth[test].numpy()
    table = pd.DataFrame({name: scores(each, target) for name, each in found.items()}).T
    print(table.to_string(float_format="{:.3f}".format))
    print(f"\n{arguments.labels} labels, {len(x) - HELD_OUT} digits; {HELD_OUT} held out")
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(found, target).savefig(arguments.run / "few_labels.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/few_labels.png"
        "\nTry next  --labels 30; or benchmarks/semisupervised.py, the same on MNIST"
    )


def classifier() -> nn.Sequential:
    """Return a network that gives logits of the labels, (..., 64) -> (..., 10)."""
    return nn.Sequential(
        nn.Unflatten(-1, (1, SIDE, SIDE)), RandomAffine(degrees=10.0), nn.Flatten(-3),
        nn.Linear(SIDE**2, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, CLASSES),
    )  # fmt: skip


def alone(x: Tensor, y: Tensor, test: Tensor, epochs: int) -> np.ndarray:
    """Return probabilities of the labels, (test rows, 10), by a network of labelled rows alone."""
    torch.manual_seed(0)
    net = classifier()
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(10 * epochs):
        adam.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        adam.step()
    with torch.no_grad():
        return net.eval()(test).softmax(-1).numpy()


def together(x: Tensor, y: Tensor, test: Tensor, epochs: int) -> np.ndarray:
    """Return probabilities of the labels by a pair of all rows; y is -1 where there is no label."""
    torch.manual_seed(0)
    data = {"x": x, "y": y}
    model = build(SemisupervisedModel, data, classes=CLASSES)
    guide = build(ClassifierGuide, data, classes=CLASSES, weight=WEIGHT, classifier=classifier())
    fit(
        model, guide, data, epochs=epochs, batch_size=100, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )  # fmt: skip
    codes = encode(model, guide, {"x": test, "y": torch.full((len(test),), -1)})
    return codes["y"]["probability"].to_numpy()


def bins(found: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Return rows, mean confidence and accuracy in five bins of confidence that have rows."""
    confidence = found.max(1)
    rows = pd.DataFrame({"confidence": confidence, "accuracy": found.argmax(1) == truth})
    grouped = rows.groupby(np.minimum((5 * confidence).astype(int), 4))
    return grouped.mean().assign(rows=grouped.size())


def scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return how right the probabilities are."""
    table = bins(found, truth)
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return {
        "right labels": (found.argmax(1) == truth).mean(),
        "Brier score": ((found - np.eye(CLASSES)[truth]) ** 2).sum(1).mean(),
        "calibration error": (gaps * table["rows"]).sum() / len(truth),
    }


def draw(found: dict[str, np.ndarray], truth: np.ndarray) -> plt.Figure:
    """Draw accuracy against confidence, a point for each bin, sized by its rows."""
    figure, ax = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
    ax.plot([0, 1], [0, 1], color="gray", linewidth=1, label="as sure as right")
    for name, each in found.items():
        table = bins(each, truth)
        (line,) = ax.plot(table["confidence"], table["accuracy"], label=name)
        ax.scatter(
            table["confidence"], table["accuracy"], table["rows"] / 2, color=line.get_color()
        )
    ax.set(xlabel="confidence", ylabel="share of right labels", xlim=(0.2, 1.02), ylim=(0, 1.03))
    ax.legend()
    return figure


if __name__ == "__main__":
    main()
