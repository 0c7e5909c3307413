"""The estimators of ``ppl_vae.sklearn`` beside scikit-learn's own, on three tasks.

    python benchmarks/sklearn_interface.py --data DIR --out rows.jsonl [--tasks census digits]

    census     incomes in ``adult.csv`` (32,561 rows): the area under the ROC curve of a gradient
               boosting and of a logistic regression on the codes of a table model,
               ``LatentVariableModel("table", latents=20)``, turned to independent components, in a
               ``Pipeline``, and of the same classifier on one-hot features, by ``cross_val_score``
               on the same folds
    digits     scikit-learn's 1,797 digits, of which 50 have a label, five of each digit, drawn by a
               seed: the share of the other 1,747 that ``LatentClassifier`` with a small
               convolutional network gets right, beside ``SelfTrainingClassifier`` and
               ``LabelSpreading``, each with several settings
    anomaly    ten sets of ADBench by the protocol of ``benchmarks/anomaly.py``: the area under the
               ROC curve of ``LatentAnomalyDetector``; of the ``AnomalyDetector`` that it holds, and
               of ``fit_detector`` with the same seed, which must be equal; of ``fit_detector`` with
               draws of another seed; and of the pair of that benchmark, which has all training rows
               and 30 draws a row. The first differs from the next two by its draws, which belong to
               a row and not to the row's place in a call, as the fourth does

DIR holds ``adult.csv`` and the folder ``adbench``. A line is kept for each fold, draw, set and
seed, so that a run that was cut off goes on.

Measured on one core:

    census     mean of three folds     logistic regression    gradient boosting
               20 codes                0.8873                 0.9097
               one-hot features        0.9060                 0.9258
               (20 codes of a linear decoder, not turned: 0.8905 and 0.8993)

    digits     mean of ten draws: LatentClassifier with the network 0.961, without settings 0.914;
               LabelSpreading 0.938, with nearest neighbours 0.939; SelfTrainingClassifier with a
               logistic regression 0.805, with a support vector machine 0.846

    anomaly    mean of ten sets: the estimator 0.9560, the detector that it holds and
               ``fit_detector`` 0.9559 (equal in every set to the last bit), other draws 0.9558;
               with all training rows the estimator 0.9513, the pair of ``anomaly.py`` 0.9512

The settings were chosen on a quarter of the first fold's training rows. Tried on one fold, for
boosting and logistic regression: two hidden layers of 256 and a KL weight of 1 0.898 and 0.876, one
layer and 0.3 0.904 and 0.882, a linear decoder 0.898 and 0.888, with 0.15 0.899, 0.884.
On that quarter the codes of a linear decoder had 0.900 and 0.897; with the logarithms of their
standard deviations beside them 0.903 and 0.902; turned to independent components (``FastICA``)
0.904 for the boosting, to principal ones 0.899; one-hot features 0.925 and 0.903. With a hidden
layer of 256 in the decoder they had 0.905 and 0.894, and independent components with the standard
deviations 0.909 for the boosting. The codes of a ``ppca`` of the one-hot features, on principal
axes, had 0.899 and 0.890 on the fold itself.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomaly import by_likelihood, split
from json_lines import ResultLines
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_digits
from sklearn.decomposition import FastICA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC
from torch import nn

from ppl_vae import anomaly_scores, build, fit_detector
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.classifier import ClassifierGuide
from ppl_vae.models.semisupervised_gaussian import SemisupervisedGaussianModel
from ppl_vae.nn import MLP, RandomAffine
from ppl_vae.sklearn import LatentAnomalyDetector, LatentClassifier, LatentVariableModel

TARGET, LATENTS, FOLDS = "income-per-year", 20, 3
LABELS_OF_EACH, SIDE = 5, 8


# Census


def encoder(tiny: bool, seed: int) -> LatentVariableModel:
    """Return the estimator whose codes are the features."""
    size = {"hidden": (16,)} if tiny else {"hidden": (256,)}
    return LatentVariableModel(
        "table", latents=3 if tiny else LATENTS, model_arguments=size,
        guide_arguments=size, kl_weight=0.3,
        table_arguments={"missing": ["?"], "unseen": "missing"}, epochs=1 if tiny else 30,
        batch_size=256, learning_rate=4e-3, validation=None, random_state=seed,
    )  # fmt: skip


def one_hot() -> Any:
    """Return the transformer of the features that the codes are compared with."""
    texts = make_column_selector(dtype_exclude="number")
    numbers = make_column_selector(dtype_include="number")
    return make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
        (StandardScaler(), numbers),
    )


def census(path: Path, fold: int, tiny: bool) -> dict[str, Any]:
    """Return the areas on one fold, which is left out of all fits, for two classifiers."""
    frame = pd.read_csv(path)
    frame = frame.sample(600, random_state=0) if tiny else frame
    y = (frame.pop(TARGET).astype(str).str.strip().str.startswith(">")).to_numpy().astype(int)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(frame, y))
    found: dict[str, Any] = {"rows": len(frame)}
    began = time.perf_counter()
    turned = FastICA(random_state=0, max_iter=300)  # trees split along axes, which a code has none
    codes = make_pipeline(encoder(tiny, fold), turned)
    for name, classifier in {
        "boosting": HistGradientBoostingClassifier(random_state=0),
        "logistic": LogisticRegression(max_iter=2000),
    }.items():
        for features, step in {"codes": codes, "one_hot": one_hot()}.items():
            pipeline = make_pipeline(clone(step), StandardScaler(), clone(classifier))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # categories of the fold that the fit has not seen
                scores = cross_val_score(
                    pipeline, frame, y, cv=[folds[fold]], scoring="roc_auc", error_score="raise"
                )
            found[f"{name}_{features}"] = float(scores[0])
    return {**found, "seconds": round(time.perf_counter() - began, 1)}


# Digits


def classifier_network() -> nn.Sequential:
    """Return a network that classifies images of 8 x 8 pixels, (..., 64) -> (..., 10)."""
    return nn.Sequential(
        nn.Unflatten(-1, (1, SIDE, SIDE)), RandomAffine(),
        nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(4, 32), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(64, 10),
    )  # fmt: skip


def pair_for_digits(data: Any, latents: int = 8) -> tuple[Any, Any]:
    """Return a pair for gray levels from 0 to 1, whose classifier sees moved images in training."""
    units = {"loc": 0.0, "scale": 1.0, "latents": latents}
    decoder = MLP(latents + 10, 2 * SIDE**2, (128,))
    model = build(SemisupervisedGaussianModel, data, decoder=decoder, floor=0.2, **units)
    guide = build(ClassifierGuide, data, classifier=classifier_network(), hidden=128, **units)
    return model, guide


def rivals(tiny: bool) -> dict[str, Any]:
    """Return scikit-learn's semi-supervised classifiers, by name."""
    return {
        "spreading": LabelSpreading(),
        "spreading_neighbours": LabelSpreading("knn", max_iter=100),
        "self_training_logistic": SelfTrainingClassifier(LogisticRegression(max_iter=1000)),
        "self_training_svc": SelfTrainingClassifier(SVC(probability=True, random_state=0)),
    }


def digits(draw: int, tiny: bool) -> dict[str, Any]:
    """Return the shares of right digits among those without a label, for one draw of 50 labels."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    rng = np.random.default_rng(draw)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(y == k), LABELS_OF_EACH, replace=False) for k in range(10)]
    )
    known = np.full(len(y), -1)
    known[chosen] = y[chosen]
    others = known == -1
    ours = {
        "latent": LatentClassifier(
            pair_for_digits, epochs=1 if tiny else 100, batch_size=100, learning_rate=2e-3,
            random_state=draw,
        ),
        "latent_default": LatentClassifier(epochs=1 if tiny else None, random_state=draw),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name, classifier in {**ours, **rivals(tiny)}.items():
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            right = classifier.fit(x, known).predict(x[others]) == y[others]
        found[name] = float(right.mean())
        found[f"{name}_seconds"] = round(time.perf_counter() - began, 1)
    return found


# Anomalies


def anomaly(path: Path, seed: int, tiny: bool) -> dict[str, Any]:
    """Return the areas of the estimator, of the library's detector, and of the benchmark's pair."""
    with np.load(path) as file:
        x, y = file["X"].astype(np.float64), file["y"].ravel().astype(int)
    train, test, labels = split(x, y, seed, 200 if tiny else 6000)
    updates = 20 if tiny else 1000
    estimator = LatentAnomalyDetector(updates=updates, random_state=seed)
    of_all = clone(estimator).set_params(contamination=0.1, num_samples=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # columns with one value
        detector = fit_detector(train, updates=updates, seed=seed, progress=False)
        estimator.fit(train)
    pair = detector.model, detector.guide
    scorers: dict[str, Callable[[], Any]] = {
        "estimator": lambda: -estimator.score_samples(test),
        "held_detector": lambda: estimator.detector_(test, progress=False)["score"],
        "fit_detector": lambda: detector(test, progress=False)["score"],
        "other_draws": lambda: anomaly_scores(*pair, test, num_samples=100, seed=seed + 100)[
            "negative_log_likelihood"
        ],
        "estimator_all_rows": lambda: -of_all.fit(train).score_samples(test),
        "benchmark": lambda: by_likelihood(train, test, seed, updates),
    }  # fmt: skip
    found: dict[str, Any] = {"train_rows": len(train)}
    for name, scorer in scorers.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", UnreliableWarning)
            found[name] = float(roc_auc_score(labels, scorer()))
    return found


def lines(arguments: argparse.Namespace) -> list[tuple[dict[str, Any], Callable[[], Any]]]:
    """Return the lines to measure: what each is called, and how it is measured."""
    data, tiny = arguments.data, arguments.tiny
    listed: list[tuple[dict[str, Any], Callable[[], Any]]] = []
    if "digits" in arguments.tasks:
        listed += [({"task": "digits", "draw": i, "tiny": tiny}, lambda i=i: digits(i, tiny))
                   for i in range(arguments.draws)]  # fmt: skip
    if "census" in arguments.tasks:
        path = data / "adult.csv"
        listed += [({"task": "census", "fold": i, "tiny": tiny}, lambda i=i: census(path, i, tiny))
                   for i in range(1 if tiny else FOLDS)]  # fmt: skip
    if "anomaly" in arguments.tasks:
        paths = sorted((data / "adbench").glob("*_*.npz"))
        listed += [
            ({"task": "anomaly", "set": path.stem.partition("_")[2], "seed": seed, "tiny": tiny},
             lambda path=path, seed=seed: anomaly(path, seed, tiny))
            for seed in range(arguments.seeds) for path in paths
        ]  # fmt: skip
    return listed


def main(words: Sequence[str] | None = None) -> pd.DataFrame:
    """Measure what is not in the file yet, print the means of each task, return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of adult.csv and adbench")
    parser.add_argument("--out", type=Path, help="file of results, one JSON object a line")
    parser.add_argument("--tasks", nargs="+", default=["digits", "census", "anomaly"],
                        choices=["digits", "census", "anomaly"])  # fmt: skip
    parser.add_argument("--draws", type=int, default=10, help="of labels, for digits")
    parser.add_argument("--seeds", type=int, default=1, help="for anomaly")
    parser.add_argument("--tiny", action="store_true", help="few rows, one epoch")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    results, rows = ResultLines(arguments.out), []
    for key, measure in lines(arguments):
        row = results.find(**key)
        if row is None:
            row = {**key, **measure()}
            results.append(row)
            print(row, flush=True)
        rows.append(row)
    table = pd.DataFrame(rows)
    for task, part in table.groupby("task"):
        print(f"\n{task}: means of {len(part)} lines")
        numbers = part.dropna(axis=1, how="all").select_dtypes("number")
        print(numbers.drop(columns=["draw", "fold", "seed"], errors="ignore").mean().to_string())
    return table


if __name__ == "__main__":
    main()
