"""Where do the rows lie: codes on a plane.

Source of the projection by labels: Fisher (1936), The use of multiple measurements in taxonomic
problems.
"""

import numbers
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.names import write_apart

COLOURS = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933",
    "#ddcc77", "#cc6677", "#882255", "#aa4499", "#777777",
)  # fmt: skip
MARKERS = "os^DvPX<>*"  # groups differ in shape too: the picture reads in grey
SHOWN = 5000  # points; more hide each other
LISTED, NAMES = 20, 40  # distinct names in a legend, and on the picture


def latent_map(
    codes: Any,
    labels: Any = None,
    *,
    title: str = "Latent space",
    ax: Axes | None = None,
) -> Axes:
    """Draw codes on a plane, coloured and named by label.

    One latent is spread out on lines, one for each label; two are drawn as they are. More are
    projected: on the plane that separates the labels best (linear discriminants; Fisher, 1936),
    or, without such labels, on the first two principal components.

    Args:
        codes: (rows, latents), for example ``encode(...)["z"]["mean"]``.
        labels: (rows,) a name for each row: each group has a colour and a shape, and its name is
            written at its median, or close to it. More than 20 different numbers are a scale:
            they colour the points.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: Where codes or labels are missing (``None``, NaN), the labels are not as many
            as the codes, or there are more than 40 names.

    Example:
        >>> ax = latent_map(torch.randn(90, 8), ["a", "b", "c"] * 30)
        >>> [text.get_text() for text in ax.texts]
        ['a', 'b', 'c']
    """
    points = _as_points(codes)
    values = None if labels is None else _as_labels(labels, len(points))
    groups = None if values is None or _is_scale(values) else values
    plane, axis_labels = _on_a_plane(points, groups)
    ax = ax or plt.subplots(figsize=(6.8, 5.6), layout="constrained")[1]
    shown = np.linspace(0, len(plane) - 1, min(len(plane), SHOWN)).astype(int)
    x, y = plane[shown].T
    if groups is not None:
        _draw_groups(ax, plane, groups, shown)
    elif values is None:
        ax.scatter(x, y, s=7, alpha=0.5, color="0.3", linewidths=0)
    else:
        drawn = ax.scatter(x, y, s=9, alpha=0.8, c=values[shown], cmap="viridis", linewidths=0)
        ax.figure.colorbar(drawn, ax=ax, label=str(getattr(labels, "name", None) or "label"))
    ax.set_title(title)
    ax.set_xlabel(axis_labels[0])
    ax.set_ylabel(axis_labels[1])
    if not axis_labels[1]:
        ax.set_yticks([])
    ax.grid(alpha=0.2)
    ax.spines[["top", "right"]].set_visible(False)
    if groups is not None:
        write_apart(ax, {str(n): np.median(plane[groups == n], 0) for n in np.unique(groups)})
    return ax


def _as_points(codes: Any) -> np.ndarray:
    """(rows, latents), all finite."""
    points = as_array(codes, "codes")
    if points.ndim == 0 or points.size == 0:
        raise ValueError(f"codes: expected (rows, latents), got shape {points.shape}")
    points = points.reshape(len(points), -1)
    bad = np.flatnonzero(~np.isfinite(points).all(1))
    if len(bad):
        raise ValueError(
            f"codes: expected finite numbers, got NaN or infinity in {len(bad)} of {len(points)} "
            f"rows, the first is row {bad[0]}; leave those rows out"
        )
    return points


def _as_labels(labels: Any, count: int) -> np.ndarray:
    """(rows,) of numbers or of text, none missing."""
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,):
        got = len(values) if values.ndim == 1 else f"shape {values.shape}"
        raise ValueError(f"labels: expected {count}, got {got}")
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise ValueError(
            f"labels: expected a name or a number for each row, got none for {len(missing)} of "
            f'{count} rows, the first is row {missing[0]}; name them, for example "unknown", or '
            "leave those rows out"
        )
    if values.dtype.kind == "O":
        numeric = all(isinstance(value, numbers.Real) for value in values)
        values = np.array(values.tolist()) if numeric else values.astype(str)
    found = len(np.unique(values))
    if found > NAMES and not _is_scale(values):
        raise ValueError(
            f"labels: expected {NAMES} names or fewer, got {found}; name groups of them, or pass "
            "numbers, which become a colour scale"
        )
    return values


def _is_scale(values: np.ndarray) -> bool:
    return values.dtype.kind in "iuf" and len(np.unique(values)) > LISTED


def _draw_groups(ax: Axes, plane: np.ndarray, groups: np.ndarray, shown: np.ndarray) -> None:
    names = np.unique(groups)
    for i, name in enumerate(names):
        x, y = plane[shown][groups[shown] == name].T
        ax.scatter(
            x, y, s=15, alpha=0.65, linewidths=0, color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)], label=str(name),
        )  # fmt: skip
    if len(names) <= LISTED:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.6)


def _on_a_plane(points: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """(rows, 2) and the titles of the two axes."""
    if points.shape[1] == 1:
        line = 0.0 if groups is None else np.unique(groups, return_inverse=True)[1]
        spread = 0.7 * (0.618 * np.arange(len(points)) % 1 - 0.5)  # points beside, not on others
        return np.column_stack([points[:, 0], spread - line]), ["latent 0", ""]
    if points.shape[1] == 2:
        return points, ["latent 0", "latent 1"]
    centered = points - points.mean(0)
    if groups is not None and 2 < len(np.unique(groups)) < len(points):
        return _discriminants(centered, groups)
    variances, directions = np.linalg.eigh(centered.T @ centered)  # the largest is the last
    share = 100 * variances[::-1] / max(variances.sum(), 1e-300)
    titles = [
        f"{word} principal component ({share[i]:.0f} % of the codes' variance)"
        for i, word in enumerate(("first", "second"))
    ]
    return centered @ directions[:, :-3:-1], titles


def _discriminants(centered: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(rows, 2) on the plane on which the groups' means differ most, and its titles."""
    names, which = np.unique(groups, return_inverse=True)
    means = np.array([centered[groups == name].mean(0) for name in names])[which]
    within = np.cov((centered - means).T) + 1e-9 * np.eye(centered.shape[1])
    unit = np.linalg.inv(np.linalg.cholesky(within)).T  # within a group: identity covariance
    directions = np.linalg.svd(means @ unit, full_matrices=False)[2]
    titles = [f"{word} discriminant (sd within a label = 1)" for word in ("first", "second")]
    return centered @ unit @ directions[:2].T, titles
