"""Choose a model of wines by scikit-learn's grid search, and look at its codes.

178 wines of three growers, 13 measurements each. ``GridSearchCV`` fits every likelihood with every
number of latents, on two thirds of the wines at a time, and compares the log-likelihoods of the
third that was left out. Prints them in nats a wine, and how often a logistic regression names the
grower by the codes of the best pair, beside as many principal components, by cross-validation.
Draws the log-likelihoods as a map, and the codes of the best pair.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.plots import latent_map
from ppl_vae.sklearn import LatentVariableModel

MODELS, LATENTS = ["ppca", "factor_analysis", "gaussian", "student"], [1, 2, 3, 4]


def main() -> None:
    """Search, print both tables and draw the figure."""
    parser = argparse.ArgumentParser(description="Choose a model of wines by a grid search.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--latents", type=int, nargs="+", default=LATENTS)
    parser.add_argument("--run", type=Path, default=Path("runs/scikit_learn"))
    arguments = parser.parse_args()
    mpl.use("agg")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second thread
    warnings.simplefilter("ignore", UnreliableWarning)  # rows of pairs that lose the search

    x, y = load_wine(return_X_y=True)
    x = StandardScaler().fit_transform(x)  # one unit for all folds, so that nats can be compared
    density = LatentVariableModel(
        epochs=arguments.epochs, batch_size=60, validation=None, compile=False, random_state=0
    )
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    grid = {"model": MODELS, "latents": arguments.latents}
    search = GridSearchCV(density, grid, cv=list(folds.split(x, y))).fit(x)
    settings = pd.MultiIndex.from_frame(pd.DataFrame(search.cv_results_["params"]))
    scores = pd.Series(search.cv_results_["mean_test_score"], settings)
    table = scores.unstack("latents").loc[MODELS]  # noqa: PD010  an index of two levels
    print("held-out log-likelihood, in nats a wine\n")
    print(table.to_string(float_format="{:.2f}".format))

    best, latents = search.best_estimator_, search.best_params_["latents"]
    print("\nright growers, by a logistic regression on")
    for words, step in {
        f"codes of {search.best_params_['model']}": best,
        "principal components": PCA(latents),
    }.items():
        classifier = make_pipeline(step, StandardScaler(), LogisticRegression())
        share = cross_val_score(classifier, x, y, cv=folds).mean()
        print(f"{latents} {words:26} {share:.1%}")
    arguments.run.mkdir(parents=True, exist_ok=True)
    draw(table, best.transform(x), y).savefig(arguments.run / "scikit_learn.png", dpi=130)
    print(
        f"\nLook at   {arguments.run}/scikit_learn.png"
        '\nTry next  another model of "ppl-vae list" in MODELS, or "kl_weight" in the grid.'
    )


def draw(table: pd.DataFrame, codes: np.ndarray, growers: np.ndarray) -> plt.Figure:
    """Draw the log-likelihoods as a map, and the codes of the wines in the colours of the growers.

    Args:
        table: Held-out log-likelihoods in nats a wine: a row for each model, a column for each
            number of latents.
        codes: (wines, latents).
        growers: The grower of each wine, (wines,), from 0.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.5, 4.8), layout="constrained")
    image = left.imshow(table, aspect="auto")
    left.set_xticks(range(table.shape[1]), table.columns)
    left.set_yticks(range(len(table)), [name.replace("_", " ") for name in table.index])
    left.set(xlabel="latents", title="Log-likelihood of wines that were left out (nats)")
    middle = (table.max().max() + table.min().min()) / 2
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        bold = "bold" if value == table.max().max() else "normal"
        left.text(column, row, f"{value:.2f}", ha="center", va="center", weight=bold,
                  color="black" if value > middle else "white")  # fmt: skip
    figure.colorbar(image, ax=left)
    latent_map(codes, growers, title="Codes of the best pair, by grower", ax=right)
    return figure


if __name__ == "__main__":
    main()
