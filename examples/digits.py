"""What does a deep latent-variable model learn from handwritten digits?

    python examples/digits.py [--epochs 300] [--run runs/digits]

Fits a Bernoulli pair to scikit-learn's 1,797 digits (8 x 8 pixels, each black or white). Prints the
held-out ELBO in nats per row and a predictive check, draws figures and writes a report.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from sklearn.datasets import load_digits

from ppl_vae import (
    build,
    encode,
    fit,
    generate,
    interpolate,
    predictive_check,
    reconstruct,
    traverse,
    write_report,
)
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.nn import MLP
from ppl_vae.plots import image_grid, latent_map

LATENTS, HIDDEN = 8, (256,)
IMAGE = {"shape": (8, 8), "low": 0, "high": 1}


def main() -> None:
    """Fit the pair and draw the figures."""
    parser = argparse.ArgumentParser(description="Fit a Bernoulli pair to handwritten digits.")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--run", type=Path, default=Path("runs/digits"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    torch.manual_seed(0)

    # 1,797 digits, 300 of them held out, and a pair whose sizes come from the data.
    digits = load_digits()
    images = torch.as_tensor(digits.data > 7).float()  # (1797, 64): ink or paper
    shuffled = torch.randperm(len(images))
    test, train = shuffled[:300], shuffled[300:]

    model = build(BernoulliModel, images, latents=LATENTS, decoder=MLP(LATENTS, 64, HIDDEN))
    guide = build(NormalGuide, images, latents=LATENTS, encoder=MLP(64, 2 * LATENTS, HIDDEN))

    # The fit stops where the held-out ELBO no longer rises.
    print(f"Fitting a Bernoulli pair to {len(train)} digits, {len(test)} held out.")
    history = fit(
        model, guide, images[train], validation=images[test], epochs=arguments.epochs, patience=30
    )
    print(history)

    # What the pair has learned, in figures.
    figures = {
        "learning_curves": history.plot(),
        **pictures(model, guide, images[test], name=str(digits.target[test[0]])),
    }
    codes = encode(model, guide, images)["z"]["mean"]
    title = f"{LATENTS} latents of every digit, projected on a plane"
    figures["latent_map"] = latent_map(codes, digits.target, title=title)
    save(figures, arguments.run)

    # Are new digits from the model like the real ones? And the whole fit on one page.
    statistics = ["built-in", ink]
    print(f"\n{predictive_check(model, guide, images[test], statistics=statistics)}")
    report = write_report(
        model,
        guide,
        images[test],
        arguments.run / "report.html",
        history=history,
        statistics=statistics,
        image_shape=IMAGE["shape"],
        overwrite=True,
    )
    print(
        f"\nHeld-out ELBO: {history.held_out_elbo('{:.2f}'.format)}"
        f"\n\nOpen      {report} in a browser"
        f"\nLook at   {arguments.run}/: {', '.join(f'{name}.png' for name in figures)}"
        "\nTry next  edit models/bernoulli.py (another prior, another likelihood) and run this"
        "\n          again, or read README.md: a pair of your own in 40 lines."
    )


def ink(x: torch.Tensor) -> tuple:
    """Return two statistics of a data set: the mean amount of ink per digit, and its sd."""
    return x.sum(-1).mean(), x.sum(-1).std()


def pictures(model: BernoulliModel, guide: NormalGuide, test: torch.Tensor, name: str) -> dict:
    """Draw grids of images: reconstructions, samples, interpolations and traversals.

    Args:
        model: The fitted model.
        guide: The fitted guide.
        test: Held-out images, (rows, 64).
        name: The digit on the first image, whose latents the traversals change.

    Returns:
        ``{file name: axes}``.
    """
    shown = test[:12]
    strips = {"original": shown, "reconstruction": reconstruct(model, guide, shown)}
    samples = generate(model, guide, test, num_samples=60, expected=True)
    lines = interpolate(model, guide, test[:6], steps=10)
    moves = traverse(model, guide, shown, steps=7, width=3).reshape(LATENTS, 7, 64)
    own = encode(model, guide, shown[:1])["z"]["mean"].iloc[0].to_numpy()
    nearest = np.abs(np.linspace(-3, 3, 7) - own[:, None]).argmin(1)
    traversals = image_grid(
        {f"latent {i}": row for i, row in enumerate(moves)},
        framed={f"latent {i}": int(column) for i, column in enumerate(nearest)},
        column_labels=[f"{sd:+d}" if sd else "0" for sd in range(-3, 4)],
        title=f"A held-out {name} while one latent changes",
        **IMAGE,
    )
    traversals.set_xlabel(
        "value of that latent (prior sd); the other latents stay; framed: its own"
    )
    return {
        "reconstructions": image_grid(strips, title="Held-out digits, probability of ink", **IMAGE),
        "samples": image_grid(
            samples, columns=12, title="New digits from the prior, probability of ink", **IMAGE
        ),
        "interpolations": image_grid(
            lines, columns=10, title="From the code of one held-out digit to the next", **IMAGE
        ),
        "traversals": traversals,
    }


def save(figures: dict, run: Path) -> None:
    """Write the figures as PNG files, over those of an earlier run."""
    run.mkdir(parents=True, exist_ok=True)
    for name, ax in figures.items():
        ax.figure.savefig(run / f"{name}.png", dpi=130)


if __name__ == "__main__":
    main()
