"""Where do the rows lie: codes on a plane."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes

COLOURS = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933",
    "#ddcc77", "#cc6677", "#882255", "#aa4499", "#777777",
)  # fmt: skip
SHOWN = 5000  # points; more hide each other


def latent_map(
    codes: Any,
    labels: Any = None,
    *,
    title: str = "Latent space",
    ax: Axes | None = None,
) -> Axes:
    """Draw codes on the plane that shows most of their spread, coloured and named by label.

    Args:
        codes: (rows, latents), for example ``encode(...)["z"]["mean"]``. More than two columns
            are projected on their first two principal components, fewer are padded.
        labels: (rows,) a name for each row; each group's name is written at its median, so that
            the picture reads without colour.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: Where the labels are not as many as the codes.
    """
    points = np.asarray(codes, dtype=float).reshape(len(codes), -1)
    if labels is not None and len(labels) != len(points):
        raise ValueError(f"labels: expected {len(points)}, got {len(labels)}")
    points, axis_labels = _on_a_plane(points)
    ax = ax or plt.subplots(figsize=(6.4, 5.6), layout="constrained")[1]
    shown = np.linspace(0, len(points) - 1, min(len(points), SHOWN)).astype(int)
    if labels is None:
        ax.scatter(*points[shown].T, s=7, alpha=0.5, color="0.3", linewidths=0)
    else:
        labels = np.asarray(labels)
        for i, name in enumerate(np.unique(labels)):
            group = points[shown][labels[shown] == name]
            colour = COLOURS[i % len(COLOURS)]
            ax.scatter(*group.T, s=9, alpha=0.6, color=colour, linewidths=0)
        for name in np.unique(labels):
            text = ax.text(*np.median(points[labels == name], axis=0), str(name), fontsize=15)
            text.set(fontweight="bold", ha="center", va="center")
            text.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])
    ax.set_title(title)
    ax.set_xlabel(axis_labels[0])
    ax.set_ylabel(axis_labels[1])
    ax.grid(alpha=0.2)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _on_a_plane(points: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """(rows, 2) and the titles of the two axes."""
    if points.shape[1] == 1:
        return np.column_stack([points, np.zeros(len(points))]), ("latent 0", "")
    if points.shape[1] == 2:
        return points, ("latent 0 (prior sd = 1)", "latent 1 (prior sd = 1)")
    centered = points - points.mean(0)
    _, spread, directions = np.linalg.svd(centered, full_matrices=False)
    share = 100 * spread**2 / max((spread**2).sum(), 1e-300)
    first, second = (
        f"{word} principal component of the codes ({share[i]:.0f} % of their variance)"
        for i, word in enumerate(("first", "second"))
    )
    return centered @ directions[:2].T, (first, second)
