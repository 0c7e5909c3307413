"""What does the code of a digit hold when the label is known?

    python examples/digit_styles.py [--data mnist.npz] [--epochs 100] [--run runs/digit_styles]

Fits two models to scikit-learn's digits (8 x 8 pixels, each black or white), or to images of MNIST:
one of the images alone, one of the images given their label. A code that need not say which digit
it is has room for the style of the writer. Each row of the figure begins with a held-out digit,
whose code is then decoded under all ten labels.

Prints how often the label can be told from the code, and how often a classifier of real digits
takes a new one for the digit that was asked for.
"""

import argparse
import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor

from ppl_vae import build, encode, fit, generate
from ppl_vae.guides.conditional import ConditionalGuide
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.models.conditional import ConditionalModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid

LATENTS, HELD_OUT, DIGITS, SHOWN = 8, 300, 10, 10


def main() -> None:
    """Fit both pairs, print what their codes hold and draw the styles."""
    parser = argparse.ArgumentParser(description="Decode the styles of digits under ten labels.")
    parser.add_argument("--data", type=Path, help="file of MNIST, with arrays x_train and y_train")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--run", type=Path, default=Path("runs/digit_styles"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    x, y = read(arguments.data)
    test = {"x": x[:HELD_OUT], "y": y[:HELD_OUT]}
    train = {"x": x[HELD_OUT:], "y": y[HELD_OUT:]}
    alone = fitted(BernoulliModel, NormalGuide, train["x"], LATENTS, arguments.epochs)
    given = fitted(ConditionalModel, ConditionalGuide, train, LATENTS + DIGITS, arguments.epochs)
    for name, pair, rows in (
        ("of images alone", alone, (train["x"], test["x"])),
        ("of images given the label", given, (train, test)),
    ):
        codes = [encode(*pair, part)["z"]["mean"] for part in rows]
        told = (
            LogisticRegression(max_iter=1000).fit(codes[0], train["y"]).score(codes[1], test["y"])
        )
        print(f"The code {name} tells the label of {100 * told:.0f} % of held-out digits.")

    classifier = SVC().fit(train["x"], train["y"])
    real = classifier.score(test["x"], test["y"])
    asked = torch.arange(DIGITS).repeat_interleave(100)
    new = generate(*given, train, num_samples=len(asked), given={"y": asked})
    right = classifier.score(new["x"], asked)
    print(
        f"A classifier that is right on {100 * real:.1f} % of held-out digits takes "
        f"{100 * right:.1f} % of new digits for the one that was asked for."
    )

    figure = draw(*given, test)
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "digit_styles.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/digit_styles.png"
        "\nTry next  --data mnist.npz, or covariates of your own as floats in y."
    )


def read(path: Path | None) -> tuple[Tensor, Tensor]:
    """Return binary images, (rows, pixels), and labels, (rows,), in random order."""
    if path is None:
        digits = load_digits()
        x, y = torch.as_tensor(digits.data > 7), torch.as_tensor(digits.target)
    else:
        file = np.load(path)
        x, y = (torch.as_tensor(file[name][:10_000]) for name in ("x_train", "y_train"))
        x = x.flatten(1) > 127
    shuffled = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[shuffled].float(), y[shuffled].long()


def fitted(model_class: type, guide_class: type, train, inputs: int, epochs: int) -> tuple:
    """Return a fitted model and guide; the decoder reads ``inputs`` numbers."""
    torch.manual_seed(0)
    pixels = (train["x"] if isinstance(train, dict) else train).shape[1]
    decoder = MLP(inputs, pixels, hidden=(200,))
    model = build(model_class, train, latents=LATENTS, decoder=decoder)
    guide = build(guide_class, train, latents=LATENTS)
    fit(
        model, guide, train, epochs=epochs, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        scheduler=lambda adam: torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs),
    )  # fmt: skip
    return model, guide


def draw(model: ConditionalModel, guide: ConditionalGuide, test: dict[str, Tensor]) -> plt.Figure:
    """Draw held-out digits, and beside each the probabilities of ink under all labels."""
    shown = {name: values[:SHOWN] for name, values in test.items()}
    codes = torch.tensor(encode(model, guide, shown)["z"]["mean"].to_numpy())  # (shown, latents)
    labels = torch.arange(DIGITS).repeat(SHOWN)
    with torch.no_grad():
        z = codes.float().repeat_interleave(DIGITS, 0)  # each code under every label
        ink = model.decoder(model.condition(z, labels)).sigmoid()
    side = math.isqrt(ink.shape[1])
    rows = torch.cat([shown["x"][:, None], ink.reshape(SHOWN, DIGITS, -1)], 1)
    ax = image_grid(
        rows.reshape(-1, side, side),
        columns=1 + DIGITS,
        low=0,
        high=1,
        column_labels=["digit", *map(str, range(DIGITS))],
        title="What does the code hold when the label is known? The style:\n"
        "the code of each held-out digit, decoded under ten labels",
    )
    return ax.figure


if __name__ == "__main__":
    main()
