"""Does a latent variable help to find strange rows, or is an exact density as good?

    python examples/strange_rows.py [--epochs 300] [--run runs/strange_rows]

Scikit-learn's breast cancer data are 569 tumours in 30 columns. Benign tumours are the normal rows:
158 are for the fit (a fifth of them chooses its best epoch), 99 calibrate a detector, and 100 are
new. The 212 malignant tumours are strange. Two models are fitted by the same `fit`: a VAE, whose
score is an estimate of minus the log-likelihood, and a normalizing flow with nothing latent,
`guide=None`, whose score is exact.

Prints for both the area under the ROC curve (AUROC), the power, that is the share of strange rows
that is flagged, and the false alarms, at a false-alarm rate of 10 %. Also the Monte Carlo error of
a score: the standard deviation over seeds of a row's score, the median over new rows. Draws the ROC
curves and the scores.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from ppl_vae import AnomalyDetector, anomaly_scores, build, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.flow import FlowModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.plots import roc_curves, score_histogram

FITTED, CALIBRATION, RATE, SEEDS = 158, 99, 0.1, 5


def main() -> None:
    """Fit both models, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description="Find strange rows by a VAE and by a flow.")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--draws", type=int, default=200, help="Draws of the latents for each row.")
    parser.add_argument("--run", type=Path, default=Path("runs/strange_rows"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread

    # Clean rows in three parts, and the strange ones; an estimate and an exact density.
    train, held_out, new, strange = tumours()
    unseen, labels = pd.concat([new, strange]), np.repeat([0, 1], [len(new), len(strange)])
    pyro.set_rng_seed(0)
    pairs = {
        "VAE": (build(GaussianModel, train, latents=4), build(NormalGuide, train, latents=4)),
        "flow": (build(FlowModel, train, layers=4, hidden=(32,)), None),
    }

    # Fit each, calibrate it on rows that were held out, and score rows that are new.
    rows, scores, thresholds = {}, {}, {}
    for name, (model, guide) in pairs.items():
        fit(
            model, guide, train, validation=0.2, epochs=arguments.epochs, batch_size=32,
            progress=False, compile=False,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=2e-3),
        )  # fmt: skip
        detector = AnomalyDetector(model, guide, held_out, num_samples=arguments.draws)
        found = detector(unseen, false_alarm_rate=RATE)
        flagged = found["flagged"].to_numpy()
        rows[name] = {
            "AUROC": roc_auc_score(labels, found["score"].clip(upper=1e9)),
            "power": flagged[labels == 1].mean(),
            "false alarms": flagged[labels == 0].mean(),
            "not reliable": 1 - found["reliable"].mean(),
            "Monte Carlo error (nats)": monte_carlo_error(model, guide, new, arguments.draws),
        }
        scores[name], thresholds[name] = found["score"], detector.threshold(RATE)
    print(pd.DataFrame(rows).T.to_string(float_format="{:.3f}".format))
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(labels, scores, thresholds).savefig(arguments.run / "strange_rows.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/strange_rows.png"
        '\nTry next  score="reconstruction" in AnomalyDetector, or more calibration rows.'
    )


def tumours() -> list[pd.DataFrame]:
    """Return benign rows to fit, to calibrate and to try, and the malignant rows."""
    table, benign = load_breast_cancer(as_frame=True, return_X_y=True)
    clean = table[benign == 1].sample(frac=1, random_state=0)
    ends = FITTED, FITTED + CALIBRATION
    return [clean[: ends[0]], clean[ends[0] : ends[1]], clean[ends[1] :], table[benign == 0]]


def monte_carlo_error(
    model: torch.nn.Module, guide: torch.nn.Module | None, data: pd.DataFrame, draws: int
) -> float:
    """Return the standard deviation of a row's score over seeds, the median over rows, in nats."""
    scores = [
        anomaly_scores(model, guide, data, num_samples=draws, seed=seed)["negative_log_likelihood"]
        for seed in range(SEEDS)
    ]
    return float(pd.concat(scores, axis=1).std(axis=1).median())


def draw(
    labels: np.ndarray, scores: dict[str, pd.Series], thresholds: dict[str, float]
) -> plt.Figure:
    """Draw the ROC curves of both models, and the scores of each with its threshold."""
    figure, axes = plt.subplots(1, 1 + len(scores), figsize=(15, 4.6), layout="constrained")
    roc_curves(labels, scores, ax=axes[0], title="Strange rows told from clean ones")
    for ax, (name, values) in zip(axes[1:], scores.items(), strict=True):
        score_histogram(
            values, thresholds[name], labels, name="negative log-likelihood", ax=ax,
            title=f"Scores of the {name}",
        )  # fmt: skip
    return figure


if __name__ == "__main__":
    main()
