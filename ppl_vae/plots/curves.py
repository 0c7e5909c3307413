"""How did training go: the ELBO over epochs."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes


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
    """
    ax = ax or plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]
    epochs, training = np.asarray(epochs), np.asarray(training, dtype=float)
    marker = "o" if len(epochs) == 1 else None
    ax.plot(epochs, training, color="0.55", linewidth=1.5, marker=marker, label="training rows")
    curves = [training]
    if held_out is not None:
        held_out = np.asarray(held_out, dtype=float)
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
    ax.set_ylabel("ELBO (nats per row; higher is better)")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    return ax
