"""What does a code of a codebook stand for, and what is a prior over codes worth?

    python examples/codebook.py [--data mnist.npz] [--epochs 60] [--run runs/codebook]

Fits the pair with a codebook (VQ-VAE) to scikit-learn's digits, 8 x 8 pixels with 4 x 4 codes; or,
with --data, to the first 5,000 images of an .npz file's x_train, such as MNIST's, 28 x 28 pixels
with 7 x 7 codes (--epochs 15 is enough). Then the prior over codes is fitted to the codes.

Prints how many codes are in use and how many nats a row's codes take, with and without the fitted
prior. Draws one figure: the pixels around the places that have a code, held-out digits and what is
drawn from their codes, and new digits from both priors.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import pad, unfold

from ppl_vae import build, elbo_terms, encode, fit, generate, reconstruct
from ppl_vae.guides.nearest_code import NearestCodeGuide
from ppl_vae.models.vector_quantized import VectorQuantizedModel
from ppl_vae.nn import GridDecoder, GridEncoder
from ppl_vae.plots import image_grid

SIZE, SHOWN, HELD_OUT = 8, 16, 300


def main() -> None:
    """Fit the pair and the prior, print what codes take, and draw the figure."""
    parser = argparse.ArgumentParser(description="Look into a codebook of digits.")
    parser.add_argument("--data", type=Path, help="an .npz file of images, x_train")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--run", type=Path, default=Path("runs/codebook"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # images this small gain nothing from a second thread
    torch.manual_seed(0)

    images, layers, codes = digits() if arguments.data is None else of_file(arguments.data)
    test, train = images[:HELD_OUT], images[HELD_OUT:]
    shape = tuple(images.shape[1:])
    encoder = GridEncoder(shape, SIZE, hidden=layers)
    decoder = GridDecoder(SIZE, shape, hidden=layers[::-1])
    model = build(
        VectorQuantizedModel, train, positions=encoder.places, codes=codes, decoder=decoder
    )
    guide = build(NearestCodeGuide, train, model=model, encoder=encoder)

    def adam(parameters):
        return torch.optim.Adam(parameters, 3e-3)

    how = {"epochs": arguments.epochs, "batch_size": 64, "optimizer": adam, "progress": False}
    fit(model, guide, train, **how)
    known, new = codes_of(model, guide, train), codes_of(model, guide, test)
    strips = {"uniform prior": generate(model, None, test, num_samples=SHOWN, expected=True)}
    before = -elbo_terms(model.code_prior, None, new)["k"].mean()
    model.prior.requires_grad_()
    fit(model.code_prior, None, known, validation=0.1, patience=5, **how)
    strips["fitted prior"] = generate(model, None, test, num_samples=SHOWN, expected=True)
    after = -elbo_terms(model.code_prior, None, new)["k"].mean()

    share = known.flatten().bincount(minlength=codes) / known.numel()
    error = (reconstruct(model, guide, test) - test).square().flatten(1).sum(1).mean()
    print(
        f"{int((share > 0).sum())} of {codes} codes are in use, {encoder.places} of them in an "
        f"image.\nThe codes of a held-out image take {before:.1f} nats, {after:.1f} under the "
        f"fitted prior.\nIts squared error is {error:.2f}; that of the mean image is "
        f"{(test - train.mean(0)).square().flatten(1).sum(1).mean():.2f}."
    )
    shown = {"held out": test[:SHOWN], "from codes": reconstruct(model, guide, test[:SHOWN])}
    figure = draw(around(train, known, share), shown, strips)
    arguments.run.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.run / "codebook.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/codebook.png"
        "\nTry next  fewer codes: VectorQuantizedModel(..., codes=8), or larger ones: size=32."
    )


def digits() -> tuple[Tensor, tuple[int, ...], int]:
    """Return digits, (1797, 1, 8, 8) from 0 to 1, the channels of each layer, number of codes."""
    images = torch.as_tensor(load_digits().images[:, None] / 16).float()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], (32,), 32


def of_file(path: Path) -> tuple[Tensor, tuple[int, ...], int]:
    """Return the first 5,000 images of a file and what ``digits`` returns beside them."""
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file["x_train"][:5000]).float()[:, None] / 255, (16, 32), 64


def codes_of(model: VectorQuantizedModel, guide: NearestCodeGuide, images: Tensor) -> Tensor:
    """Return the codes of images, (rows, positions) of whole numbers."""
    return torch.tensor(encode(model, guide, images)["k"]["mean"].to_numpy()).long()


def around(images: Tensor, known: Tensor, share: Tensor) -> Tensor:
    """Return the mean of the pixels around the places that have a code, most frequent code first.

    Args:
        images: Training images, (rows, 1, height, width), squares.
        known: Their codes, (rows, positions), place after place.
        share: Share of each code among them, (codes,).

    Returns:
        (codes in use, 3 c, 3 c), where a place has c x c pixels.
    """
    used = share.argsort(descending=True)[: int((share > 0).sum())]
    cell = images.shape[-1] // round(known.shape[1] ** 0.5)
    wide = pad(images, (cell, cell, cell, cell))
    patches = unfold(wide, 3 * cell, stride=cell).transpose(1, 2).flatten(0, 1)
    sums = torch.zeros(len(share), patches.shape[1]).index_add_(0, known.flatten(), patches)
    return (sums[used] / (share[used, None] * known.numel())).unflatten(1, (3 * cell, 3 * cell))


def draw(codes: Tensor, shown: dict, strips: dict) -> plt.Figure:
    """Draw the codes, held-out digits from their codes, and new digits, one below the other."""
    rows = -(-len(codes) // SHOWN)
    figure, axes = plt.subplots(
        3, 1, figsize=(9, 0.52 * (rows + 4) + 1.8), layout="constrained", height_ratios=[rows, 2, 2]
    )
    titles = (
        "Each code: mean of the pixels around its places, most frequent first",
        "Held-out digits, and what is drawn from their codes",
        "New digits: codes from the prior",
    )
    for ax, title, images in zip(axes, titles, (codes, shown, strips), strict=True):
        image_grid(images, columns=SHOWN, low=0, high=1, title=title, ax=ax)
    figure.suptitle("What does a code of a codebook stand for?")
    return figure


if __name__ == "__main__":
    main()
