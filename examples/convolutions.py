"""Does a convolutional decoder model images better than a dense one?

    python examples/convolutions.py [--epochs 30] [--run runs/convolutions]

Fits two Bernoulli pairs to scikit-learn's digits (8 x 8 pixels, each black or white), each at a
random place of an image of 16 x 16 pixels. The pairs differ in the decoder alone. A dense decoder
learns every stroke anew at every place; a convolutional decoder has one set of weights for all
places. Prints the held-out log-likelihood in nats per image and draws one figure.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ppl_vae import build, fit, generate, log_likelihood
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP, ConvDecoder, ConvEncoder
from ppl_vae.plots import image_grid

SIDE, LATENTS, HELD_OUT, SHOWN = 16, 16, 400, 12
SHAPE = 1, SIDE, SIDE


def main() -> None:
    """Fit both pairs, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare a convolutional and a dense decoder.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--run", type=Path, default=Path("runs/convolutions"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # images this small gain nothing from a second thread

    images = scattered_digits()
    test, train = images[:HELD_OUT], images[HELD_OUT:]
    rows, curves, strips = [], {}, {"held-out digits": test[:SHOWN, 0]}
    for name, decoder in decoders().items():
        torch.manual_seed(0)
        encoder = ConvEncoder(SHAPE, 2 * LATENTS, hidden=(16, 32))
        model = build(BernoulliModel, train, latents=LATENTS, decoder=decoder)
        guide = build(NormalGuide, train, latents=LATENTS, encoder=encoder)
        history = fit(
            model, guide, train, validation=test, epochs=arguments.epochs, batch_size=64,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="log_likelihood: k-hat")
            scores = log_likelihood(model, guide, test, num_samples=100)["log_prob"]
        weights = sum(parameter.numel() for parameter in decoder.parameters())
        rows.append([name, weights, scores.mean(), scores.sem()])
        curves[name] = history.frame.set_index("epoch")["validation_elbo"]
        strips[name] = generate(model, None, train, num_samples=SHOWN, expected=True)[:, 0]
    columns = ["decoder", "weights", "held-out log-likelihood", "standard error"]
    table = pd.DataFrame(rows, columns=columns).set_index("decoder")
    print(table.to_string(float_format="{:.2f}".format))

    figure = draw(curves, strips)
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "convolutions.png", dpi=130)
    gain = table["held-out log-likelihood"].diff().iloc[-1]
    print(
        f"\nThe convolutional decoder gains {gain:.1f} nats per image."
        f"\n\nLook at   {arguments.run}/convolutions.png"
        "\nTry next  residual=1 in ConvDecoder, or images of your own: (rows, channels, height, "
        "width)."
    )


def scattered_digits() -> Tensor:
    """Return digits of ink or paper at random places, in random order, (1797, 1, 16, 16)."""
    generator = torch.Generator().manual_seed(0)
    digits = torch.as_tensor(load_digits().images > 7).float()
    digits = digits[torch.randperm(len(digits), generator=generator)]
    places = torch.randint(SIDE - 8 + 1, (len(digits), 2), generator=generator)
    images = torch.zeros(len(digits), *SHAPE)
    for image, digit, (top, left) in zip(images, digits, places.tolist(), strict=True):
        image[0, top : top + 8, left : left + 8] = digit
    return images


def decoders() -> dict[str, nn.Module]:
    """Return a dense and a convolutional decoder; the dense one has more weights."""
    torch.manual_seed(0)
    dense = nn.Sequential(MLP(LATENTS, SIDE**2, hidden=(80,)), nn.Unflatten(-1, SHAPE))
    return {"dense": dense, "convolutional": ConvDecoder(LATENTS, SHAPE, hidden=(32, 16))}


def draw(curves: dict[str, pd.Series], strips: dict[str, Tensor]) -> plt.Figure:
    """Draw the held-out ELBO over the epochs, and new images of both pairs below."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8.4, 6.2), layout="constrained", height_ratios=[1.3, 1]
    )
    for name, curve in curves.items():
        above.plot(curve.index, curve, label=f"{name} decoder")
    above.set(xlabel="epoch", ylabel="held-out ELBO, nats per image")
    above.legend(loc="lower right")
    image_grid(
        strips, low=0, high=1, title="New digits from the prior, probability of ink", ax=below
    )
    figure.suptitle("Does a convolutional decoder model scattered digits better than a dense one?")
    return figure


if __name__ == "__main__":
    main()
