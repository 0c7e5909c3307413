"""Anomaly detection on tables without tuning: one recipe for all sets, beside the classics.

    python benchmarks/anomaly.py --data DIR --out rows.jsonl [--sets cardio ...] [--seeds 5]
    python benchmarks/anomaly.py --data DIR --out rows.jsonl --methods exemplar neighbours

DIR holds sets of ADBench, ``NUMBER_NAME.npz`` with X (rows, features) and y (1 = anomaly).
Protocol of Livernoche et al. (2024): train on half the normal rows, at most 6,000; test on the
other half and the anomalies. The seed draws the split, the initial weights and the batches.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from json_lines import ResultLines
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor, NearestNeighbors

from ppl_vae import build, fit, log_likelihood
from ppl_vae.evaluation.summary import UnreliableWarning
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.exemplar import ExemplarModel
from ppl_vae.models.gaussian import GaussianModel
from ppl_vae.nn import MLP
from ppl_vae.schedules import linear_warmup

Array: TypeAlias = npt.NDArray[np.float64]

CHOOSING = ("cardio", "satellite", "thyroid", "mammography", "vowels")
CONFIRMING = ("Ionosphere", "pendigits", "annthyroid", "WDBC", "breastw")
MOST_ROWS = 6000
UPDATES = 1000


def split(x: Array, y: Array, seed: int, most: int) -> tuple[Array, Array, Array]:
    """Return training rows, test rows and the labels of the test rows, (rows, features) each."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    train = normal[: len(normal) // 2]
    test = np.setdiff1d(np.arange(len(x)), train)
    return x[train[:most]], x[test], y[test]


def standardized(train: Array, test: Array) -> tuple[Array, Array]:
    """Return both with the training rows' mean 0 and standard deviation 1; constants left out."""
    scale = train.std(0)
    keep = scale > 1e-8
    loc, scale = train.mean(0)[keep], scale[keep]
    return (train[:, keep] - loc) / scale, (test[:, keep] - loc) / scale


def exemplar_pair(train: Array) -> tuple[Any, Any]:
    """Return the pair of the recipe: as many latents as features."""
    features = train.shape[1]
    latents = max(2, features)
    guide = build(NormalGuide, train, latents=latents,
                  encoder=MLP(features, 2 * latents, (128, 128)))  # fmt: skip
    return build(ExemplarModel, train, guide=guide, latents=latents), guide


def gaussian_pair(train: Array) -> tuple[Any, Any]:
    """Return the zoo's ``GaussianModel`` as it stands."""
    return build(GaussianModel, train), build(NormalGuide, train)


def by_likelihood(
    make_pair: Callable[[Array], tuple[Any, Any]], train: Array, test: Array, seed: int, updates: int
) -> Array:
    """Return minus the log-likelihood of every test row, in nats, of a pair fitted in updates."""
    torch.manual_seed(seed)
    model, guide = make_pair(train)
    batch = min(128, max(32, len(train) // 16))
    rows = np.tile(train, (math.ceil(20 * batch / len(train)), 1))  # 20 updates an epoch at least
    fit(
        model, guide, rows, seed=seed, progress=False, batch_size=batch,
        epochs=math.ceil(updates / math.ceil(len(rows) / batch)),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        kl_weight=linear_warmup(updates * 3 // 10),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreliableWarning)
        scores = log_likelihood(model, guide, test, num_samples=30, seed=seed)
    return -scores["log_prob"].to_numpy()


def isolation_forest(train: Array, test: Array, seed: int) -> Array:
    """Return how short the paths of random trees are."""
    return -IsolationForest(random_state=seed).fit(train).score_samples(test)
