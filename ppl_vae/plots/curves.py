"""How did training go: the ELBO against epochs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import BLUE, GREY, axes_or_new, label_axes, legend_above, whole_ticks


def learning_curves(
    epochs: Sequence[float] | Any,
    training: Sequence[float] | Any,
    held_out: Sequence[float] | Any | None = None,
    *,
    best_epoch: int | None = None,
    measure: str = "ELBO",
    ax: Axes | None = None,
) -> Axes:
    """Draw the training and the held-out ELBO against epochs.

    From 20 epochs on, the vertical axis leaves out the first, steep tenth of the curves, so that
    the differences between later epochs can be seen. A line under the curves says where they begin.

    Args:
        epochs: (epochs,) numbers of the epochs.
        training: (epochs,) ELBO of the training rows, in nats per row.
        held_out: (epochs,) ELBO of rows that were not trained on, in nats per row.
        best_epoch: The epoch whose weights the fit ended with, marked on the held-out curve.
        measure: What the curves show, in nats per row.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: If a curve does not have one number for each epoch.

    Example:
        >>> ax = learning_curves([1, 2, 3], [-9.0, -5.0, -4.0], [-9.5, -5.5, -6.0], best_epoch=2)
        >>> ax.get_legend_handles_labels()[1]
        ['training rows', 'held-out rows', 'best: epoch 2']
    """
    epochs, training = as_array(epochs, "epochs"), as_array(training, "training")
    _check_length("training", training, epochs)
    ax = axes_or_new(ax, 6.4, 4.2)
    marker = "o" if len(epochs) == 1 else None
    ax.plot(epochs, training, color=GREY, linewidth=1.5, marker=marker, label="training rows")
    curves = [training]
    if held_out is not None:
        held_out = as_array(held_out, "held_out")
        _check_length("held_out", held_out, epochs)
        curves.append(held_out)
        ax.plot(epochs, held_out, color=BLUE, linewidth=2, marker=marker, label="held-out rows")
        if best_epoch is not None and best_epoch in epochs:
            best = held_out[list(epochs).index(best_epoch)]
            label = f"best: epoch {best_epoch}"
            ax.plot([best_epoch], [best], "o", color=BLUE, markersize=7, label=label)
    if len(epochs) >= 20:
        late = np.concatenate([curve[len(epochs) // 10 :] for curve in curves])
        margin = 0.08 * (np.nanmax(late) - np.nanmin(late)) + 1e-9
        bottom, lowest = np.nanmin(late) - margin, np.nanmin(np.concatenate(curves))
        ax.set_ylim(bottom, np.nanmax(late) + margin)
        if lowest < bottom:
            ax.annotate(
                f"cut: the first epochs lie lower, from {lowest:,.4g} on", (0.99, 0.015),
                xycoords="axes fraction", color=GREY, fontsize=9, ha="right",
            )  # fmt: skip
    whole_ticks(ax.xaxis)
    label_axes(
        ax, "Learning curves", "epoch", f"{measure} (nats per row; higher is better)", grid=True
    )
    legend_above(ax)
    return ax


def _check_length(name: str, curve: np.ndarray, epochs: np.ndarray) -> None:
    """Raise ``ValueError`` where a curve does not have one number for each epoch."""
    if curve.shape != epochs.shape or not len(epochs):
        raise ValueError(
            f"{name}: expected a number for each of the {len(epochs)} epochs, got shape "
            f"{curve.shape}"
        )
