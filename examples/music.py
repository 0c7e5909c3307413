"""Does a deep Markov model play music?

    python examples/music.py [--epochs 90] [--run runs/music]

Makes up tunes of four voices: chords that follow one another by rules of harmony, each for two to
four steps, and voices that move to the nearest note of the chord. A step is a vector of 0 and 1, a
feature for each of 37 keys of a piano, and tunes end at different steps. Fits a deep Markov model
with 16 latents to them, and draws new tunes from it.

Prints, for the tunes, for those of the model and for keys that are played one by one as often as in
the tunes: how many keys sound at a step, how often a key sounds on at the next step, and how often
the keys that sound are of one chord. Draws piano rolls of all three.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt

from ppl_vae import build, fit, generate, sequences
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.deep_markov import DeepMarkovModel
from ppl_vae.schedules import linear

KEYS, ROWS, SHOWN = 37, 300, 3  # three octaves, from C to C
CHORDS = {  # the notes of a chord, from C, and the chords that may follow it
    "C": ((0, 4, 7), "F G Am Dm"), "Dm": ((2, 5, 9), "G Am"), "F": ((5, 9, 0), "C G Dm"),
    "G": ((7, 11, 2), "C C Am"), "Am": ((9, 0, 4), "F Dm G"),
}  # fmt: skip


def main() -> None:
    """Fit the model, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Fit a deep Markov model to tunes.")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--run", type=Path, default=Path("runs/music"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    random = np.random.default_rng(0)
    tunes = [tune(random, int(chords)) for chords in random.integers(4, 9, ROWS)]
    data = sequences(tunes)
    pyro.set_rng_seed(0)
    model = build(DeepMarkovModel, data, latents=16, hidden=64)
    guide = build(SmoothingGuide, data, latents=16, hidden=64)
    updates = arguments.epochs * ROWS // 30
    history = fit(
        model, guide, data, epochs=arguments.epochs, batch_size=30, progress=False,
        kl_weight=linear(max(1, updates // 3), start=0.1),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    )  # fmt: skip
    steps = int(data["lengths"].sum())
    elbo = history.frame["elbo"].iloc[-1] * ROWS / steps
    print(f"ELBO of the deep Markov model: {elbo:.2f} nats per step\n")
    new = generate(model, None, data, num_samples=ROWS)
    rates = np.concatenate(tunes).mean(0)
    rolls = {
        "tunes": tunes,
        "deep Markov model": [
            x[:length].numpy() for x, length in zip(new["x"], new["lengths"], strict=True)
        ],
        "keys one by one": [random.random(array.shape) < rates for array in tunes],
    }
    table = pd.DataFrame({name: measured(group) for name, group in rolls.items()}).T
    print(table.to_string(float_format="{:.2f}".format))
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(rolls).savefig(arguments.run / "music.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/music.png"
        "\nTry next  build(SmoothingGuide, ..., flows=2): a posterior that is bent at each step."
    )


def tune(random: np.random.Generator, chords: int) -> np.ndarray:
    """Return a tune of some chords, (steps, 37) of 0 and 1."""
    name, voices = "C", np.array([5, 12, 19, 26])
    steps = []
    for _ in range(chords):
        notes, follow = CHORDS[name]
        keys = [key for key in range(KEYS) if key % 12 in notes]
        moved = voices + random.integers(-1, 2, 4)
        voices = np.array([min(keys, key=lambda key, v=voice: abs(key - v)) for voice in moved])
        played = np.zeros(KEYS)
        played[voices] = 1
        steps += [played] * int(random.integers(2, 5))
        name = random.choice(follow.split())
    return np.array(steps)


def measured(rolls: list[np.ndarray]) -> dict[str, float]:
    """Return what a group of piano rolls, (steps, 37) each, is like."""
    sounding = np.concatenate(rolls).sum(1)
    on = sum((roll[:-1] * roll[1:]).sum() for roll in rolls)
    could = sum(roll[:-1].sum() for roll in rolls)
    fits = [
        any({key % 12 for key in np.flatnonzero(step)} <= {*notes} for notes, _ in CHORDS.values())
        for roll in rolls
        for step in roll
    ]
    return {
        "keys that sound": float(sounding.mean()), "share that sound on": float(on / could),
        "steps of one chord": float(np.mean(fits)),
    }  # fmt: skip


def draw(rolls: dict[str, list[np.ndarray]]) -> plt.Figure:
    """Draw the first piano rolls of each group: time to the right, low keys below."""
    figure, axes = plt.subplots(
        len(rolls), SHOWN, figsize=(10, 6), layout="constrained", sharex=True, sharey=True
    )
    for row, (name, group) in zip(axes, rolls.items(), strict=True):
        for number, (ax, roll) in enumerate(zip(row, group, strict=False)):
            ax.imshow(np.asarray(roll, float).T, origin="lower", aspect="auto", cmap="Greys")
            ax.set_title(f"{name}, {number + 1}", fontsize="medium")
            ax.set_yticks(range(0, KEYS, 12), ["C", "C'", "C''", "C'''"])
    for ax in axes[-1]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("key")
    longest = max(len(roll) for group in rolls.values() for roll in group[:SHOWN])
    axes[0, 0].set_xlim(-0.5, longest - 0.5)
    figure.suptitle("Does a deep Markov model play music? Piano rolls")
    return figure


if __name__ == "__main__":
    main()
