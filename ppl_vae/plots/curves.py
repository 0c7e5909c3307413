"""How did training go: the ELBO over epochs."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ppl_vae.plots.arrays import as_array


def learning_curves(
    epochs: Sequence[float] | Any,
    training: Sequence[float] | Any,
    held_out: Sequence[float] | Any | None = None,
    *,
    best_epoch: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the training and held-out ELBO against epochs.

    The vertical axis leaves out the first steep tenth of the curves where there are many epochs,
    so that the differences that matter can be seen.

    Args:
        epochs: (epochs,) numbers.
        training: (epochs,) ELBO, in nats per row.
        held_out: (epochs,) likewise, of rows that were not trained on.
        best_epoch: The epoch whose weights were kept, marked on the held-out curve.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: Where a curve has not one number an epoch.

    Example:
        >>> ax = learning_curves([1, 2, 3], [-9.0, -5.0, -4.0], [-9.5, -5.5, -6.0], best_epoch=2)
        >>> ax.get_legend_handles_labels()[1]
        ['training rows', 'held-out rows', 'best: -5.50 at epoch 2']
    """
    epochs, training = as_array(epochs, "epochs"), as_array(training, "training")
    _check_length("training", training, epochs)
    ax = ax or plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]
    marker = "o" if len(epochs) == 1 else None
    ax.plot(epochs, training, color="0.55", linewidth=1.5, marker=marker, label="training rows")
    curves = [training]
    if held_out is not None:
        held_out = as_array(held_out, "held_out")
        _check_length("held_out", held_out, epochs)
        curves.append(held_out)
        ax.plot(
            epochs, held_out, color="#0b5394", linewidth=2, marker=marker, label="held-out rows"
        )
        if best_epoch is not None and best_epoch in epochs:
            best = held_out[list(epochs).index(best_epoch)]
            label = f"best: {best:.2f} at epoch {best_epoch}"
            ax.plot([best_epoch], [best], "o", color="#0b5394", markersize=7, label=label)
    if len(epochs) >= 20:
        late = np.concatenate([curve[len(epochs) // 10 :] for curve in curves])
        margin = 0.08 * (np.nanmax(late) - np.nanmin(late)) + 1e-9
        ax.set_ylim(np.nanmin(late) - margin, np.nanmax(late) + margin)
    ax.set_title("Learning curves")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.set_ylabel("ELBO (nats per row; higher is better)")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    return ax


def _check_length(name: str, curve: np.ndarray, epochs: np.ndarray) -> None:
    if curve.shape != epochs.shape or not len(epochs):
        raise ValueError(
            f"{name}: expected a number for each of the {len(epochs)} epochs, got shape "
            f"{curve.shape}"
        )
