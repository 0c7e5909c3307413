"""Score a folder of Parquet files by the workers of a Ray cluster, here two on this machine.

    pip install 'ppl-vae[ray]'
    python examples/ray_scores.py [--epochs 200] [--workers 2] [--run runs/ray_scores]

Scikit-learn's breast cancer data: a VAE is fitted to a part of the benign tumours, and another part
calibrates a detector, which is stored in the run. All 569 tumours lie in eight Parquet files, with
a column ``id`` that numbers them. Every worker opens the run once and scores the batches that Ray
hands it. ``row="id"`` makes a row's draws depend on its number: the scores are those of one worker,
bit for bit, however Ray cuts the rows, which is checked at the end.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import ray
import torch
from sklearn.datasets import load_breast_cancer

from ppl_vae import AnomalyDetector, Scorer, build, fit
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.gaussian import GaussianModel

FITTED, CALIBRATION, FILES = 158, 99, 8


def main() -> None:
    """Fit, store the run and the files, score them by Ray, and compare with one worker."""
    parser = argparse.ArgumentParser(description="Score Parquet files by Ray Data.")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--run", type=Path, default=Path("runs/ray_scores"))
    arguments = parser.parse_args()
    run = arguments.run.resolve()  # workers have folders of their own

    table, benign = load_breast_cancer(as_frame=True, return_X_y=True)
    clean = table[benign == 1].sample(frac=1, random_state=0)
    fit_to(clean[:FITTED], clean[FITTED : FITTED + CALIBRATION], arguments.epochs, run)
    folder = run.with_name(run.name + "_rows")
    write(table, folder)

    cores = arguments.workers + 1  # one more, for the tasks that read the files
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(str(folder))
    scored = rows.map_batches(
        Scorer, fn_constructor_args=[str(run)], fn_constructor_kwargs={"row": "id"},
        batch_format="pandas", batch_size=100, concurrency=arguments.workers,
    ).to_pandas().sort_values("id", ignore_index=True)  # fmt: skip
    ray.shutdown()

    alone = Scorer(run, row="id")(pd.read_parquet(folder)).sort_values("id", ignore_index=True)
    scored = scored.astype(alone.dtypes)  # Ray's columns are Arrow's
    flagged = scored.groupby(np.where(benign == 1, "benign", "malignant"))["flagged"]
    print(flagged.agg(["size", "mean"]).rename(columns={"size": "rows", "mean": "flagged"}))
    print(f"\nthe bits of one worker: {scored.equals(alone)}")
    print(f"Try next  ppl-vae score {arguments.run} {folder} --out scores/ --part 1/2")


def fit_to(train: pd.DataFrame, held_out: pd.DataFrame, epochs: int, run: Path) -> None:
    """Fit a pair to clean rows and store it in a run, with a detector that others calibrate."""
    torch.manual_seed(0)
    pair = build(GaussianModel, train, latents=4), build(NormalGuide, train, latents=4)
    fit(*pair, train, epochs=epochs, batch_size=32, validation=0.2, seed=0, run=run, resume=True)
    AnomalyDetector(*pair, held_out).save(run, overwrite=True)


def write(table: pd.DataFrame, folder: Path) -> None:
    """Write rows as Parquet files, with their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = table.assign(id=np.arange(len(table)))
    for number, places in enumerate(np.array_split(np.arange(len(table)), FILES)):
        numbered.iloc[places].to_parquet(folder / f"part-{number}.parquet", index=False)


if __name__ == "__main__":
    main()
