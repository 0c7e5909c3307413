"""Where do the rows lie: codes on a plane.

Source of the projection by labels: Fisher (1936), The use of multiple measurements in taxonomic
problems.
"""

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
    """Draw codes on a plane, coloured and named by label.

    Up to two latents are drawn as they are. More are projected: on the plane that separates the
    labels best (linear discriminants; Fisher, 1936), or, without labels, on the first two
    principal components.

    Args:
        codes: (rows, latents), for example ``encode(...)["z"]["mean"]``.
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
    groups = None if labels is None else np.asarray(labels)
    if groups is not None and len(groups) != len(points):
        raise ValueError(f"labels: expected {len(points)}, got {len(groups)}")
    plane, axis_labels = _on_a_plane(points, groups)
    ax = ax or plt.subplots(figsize=(6.4, 5.6), layout="constrained")[1]
    shown = np.linspace(0, len(plane) - 1, min(len(plane), SHOWN)).astype(int)
    if groups is None:
        ax.scatter(plane[shown, 0], plane[shown, 1], s=7, alpha=0.5, color="0.3", linewidths=0)
    else:
        _draw_groups(ax, plane, groups, shown)
    ax.set_title(title)
    ax.set_xlabel(axis_labels[0])
    ax.set_ylabel(axis_labels[1])
    ax.grid(alpha=0.2)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _draw_groups(ax: Axes, plane: np.ndarray, groups: np.ndarray, shown: np.ndarray) -> None:
    names = np.unique(groups)
    for i, name in enumerate(names):
        x, y = plane[shown][groups[shown] == name].T
        ax.scatter(x, y, s=9, alpha=0.6, color=COLOURS[i % len(COLOURS)], linewidths=0)
    for name in names:
        x, y = np.median(plane[groups == name], axis=0)
        text = ax.text(x, y, str(name), fontsize=15, fontweight="bold", ha="center", va="center")
        text.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])


def _on_a_plane(points: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """(rows, 2) and the titles of the two axes."""
    if points.shape[1] == 1:
        return np.column_stack([points, np.zeros(len(points))]), ["latent 0", ""]
    if points.shape[1] == 2:
        return points, ["latent 0", "latent 1"]
    centered = points - points.mean(0)
    if groups is not None and 2 < len(np.unique(groups)) < len(points):
        names, which = np.unique(groups, return_inverse=True)
        means = np.array([centered[groups == name].mean(0) for name in names])[which]
        within = np.cov((centered - means).T) + 1e-9 * np.eye(points.shape[1])
        unit = np.linalg.inv(np.linalg.cholesky(within)).T  # within a group: identity covariance
        directions = np.linalg.svd(means @ unit, full_matrices=False)[2]
        titles = [f"{word} discriminant (sd within a label = 1)" for word in ("first", "second")]
        return centered @ unit @ directions[:2].T, titles
    _, spread, directions = np.linalg.svd(centered, full_matrices=False)
    share = 100 * spread**2 / max((spread**2).sum(), 1e-300)
    titles = [
        f"{word} principal component ({share[i]:.0f} % of the codes' variance)"
        for i, word in enumerate(("first", "second"))
    ]
    return centered @ directions[:2].T, titles
