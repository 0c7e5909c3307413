"""At which hour did a machine misbehave?

    python examples/sensors.py [--epochs 80] [--run runs/sensors]

Simulates logs of three sensors on 200 machines, each from 20 to 60 hours long: the sensors swing
together, with noise of their own. Fits a linear state-space model to them. Then scores new logs,
in each of which one sensor reads wrongly for one hour: by 1.2 units, where the swing itself reaches
2. A particle filter gives log p(x_t given the hours before), and the hour of the lowest one is the
guess. It warns of those very hours: few of its states explain a wrong reading.

Prints how often the guess is the right hour, beside the hour at which a sensor is farthest from its
mean in the log. Draws three logs with their scores.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt

from ppl_vae import anomaly_scores, build, fit, sequences
from ppl_vae.guides.smoothing import SmoothingGuide
from ppl_vae.models.state_space import StateSpaceModel

MACHINES, NEW, WRONG = 200, 60, 1.2


def main() -> None:
    """Fit the model, score new logs, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Locate wrong readings in sensor logs.")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--run", type=Path, default=Path("runs/sensors"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    random = np.random.default_rng(0)
    data = sequences([log(random) for _ in range(MACHINES)])
    pyro.set_rng_seed(0)
    model, guide = build(StateSpaceModel, data, latents=3), build(SmoothingGuide, data, latents=3)
    fit(
        model, guide, data, epochs=arguments.epochs, batch_size=40, progress=False,
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.02),
    )  # fmt: skip
    logs = [log(random) for _ in range(NEW)]
    hours = [int(random.integers(5, len(each))) for each in logs]
    for each, hour in zip(logs, hours, strict=True):
        each[hour, random.integers(3)] += WRONG
    scores = anomaly_scores(model, guide, sequences(logs), per_step=True, num_samples=200)
    strange = scores["negative_log_likelihood"]
    guesses = {
        "state-space model": [int(strange[row].argmax()) for row in range(NEW)],
        "farthest from its mean": [
            int(abs((each - each.mean(0)) / each.std(0)).max(1).argmax()) for each in logs
        ],
    }
    right = {name: np.mean(np.array(found) == hours) for name, found in guesses.items()}
    print(pd.Series(right, name="share of logs with the right hour").to_string())
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(logs, strange, hours).savefig(arguments.run / "sensors.png", dpi=130)
    print(f"\nLook at   {arguments.run}/sensors.png")


def log(random: np.random.Generator) -> np.ndarray:
    """Return the log of a machine, (hours, 3)."""
    hours, turn = int(random.integers(20, 61)), 0.4
    swing = 0.97 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    states = [random.normal(size=2)]
    for _ in range(hours - 1):
        states.append(swing @ states[-1] + 0.25 * random.normal(size=2))
    return np.array(states) @ [[1, 0, 0.7], [0, 1, -0.7]] + 0.1 * random.normal(size=(hours, 3))


def draw(logs: list[np.ndarray], strange: pd.Series, hours: list[int]) -> plt.Figure:
    """Draw three logs above their scores; a line marks the hour with the wrong reading."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 5), layout="constrained", sharex="col")
    for row, (above, below) in enumerate(axes.T):
        above.plot(logs[row])
        above.set_title(f"machine {row}")
        below.plot(strange[row].to_numpy(), color="black")
        for ax in (above, below):
            ax.axvline(hours[row], color="red", alpha=0.4)
        below.set_xlabel("hour (red: a wrong reading)")
    axes[0, 0].set_ylabel("sensors")
    axes[1, 0].set_ylabel("-log p (nats)")
    figure.suptitle("At which hour did a machine misbehave?")
    return figure


if __name__ == "__main__":
    main()
