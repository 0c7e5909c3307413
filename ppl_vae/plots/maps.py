"""Where do the rows lie in the latent space: codes on a plane.

Source of the projection by labels: Fisher (1936), The use of multiple measurements in taxonomic
problems, Annals of Eugenics 7(2).
"""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from torch import Tensor

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import GROUP_COLOURS, GROUP_MARKERS, INK, axes_or_new, label_axes

MAX_POINTS = 5000  # more hide each other
MAX_IN_LEGEND, MAX_NAMES = 20, 40  # different labels in the legend, and on the picture
MAX_ROUNDS = 200
GAP = 8.0  # points between two names, so that 7 beside 1 does not read 71


def latent_map(
    codes: Any, labels: Any = None, *, title: str = "Latent space", ax: Axes | None = None
) -> Axes:
    """Draw the codes of rows on a plane, coloured and named by label.

    One latent is spread out on lines, one line for each label. Two latents are drawn as they are.
    More latents are projected on a plane: with three or more labels, on the plane that separates
    the labels best (linear discriminants; Fisher, 1936), otherwise on the first two principal
    components. A plane that is fitted to the labels shows them further apart than new rows would
    be, the more so the more latents there are beside few rows; the names of its axes say so.

    Args:
        codes: (rows, latents), for example ``encode(...)["z"]["mean"]``.
        labels: (rows,) a name for each row. The rows of one name have a colour and a shape of
            their own, and the name is written at or near their median. More than 20 different
            numbers are a scale: they colour the points.
        title: Title of the picture.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes.

    Raises:
        ValueError: If codes or labels are missing (``None``, NaN), the number of labels is not
            the number of rows, or there are more than 40 names.

    Example:
        >>> ax = latent_map(torch.randn(90, 8), ["a", "b", "c"] * 30)
        >>> [text.get_text() for text in ax.texts]
        ['a', 'b', 'c']
    """
    points = _as_points(codes)
    values = None if labels is None else _as_labels(labels, len(points))
    groups = None if values is None or _is_scale(values) else values
    plane, axis_labels = _project(points, groups)
    ax = axes_or_new(ax, 6.8, 5.6)
    shown = np.linspace(0, len(plane) - 1, min(len(plane), MAX_POINTS)).astype(int)
    x, y = plane[shown].T
    if groups is not None:
        _draw_groups(ax, plane, groups, shown)
    elif values is None:
        ax.scatter(x, y, s=7, alpha=0.5, color=INK, linewidths=0)
    else:
        drawn = ax.scatter(x, y, s=9, alpha=0.8, c=values[shown], cmap="viridis", linewidths=0)
        ax.figure.colorbar(drawn, ax=ax, label=str(getattr(labels, "name", None) or "label"))
    label_axes(ax, title, *axis_labels, grid=True)
    if not axis_labels[1]:
        ax.set_yticks([])
    if groups is not None:
        _write_apart(ax, {str(n): np.median(plane[groups == n], 0) for n in np.unique(groups)})
    return ax


def _as_points(codes: Any) -> np.ndarray:
    """Return the codes as (rows, latents), or raise ``ValueError`` where some are not finite."""
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
    """Return the labels, (rows,) of numbers or of text.

    Raises:
        ValueError: If labels are missing, are not one for each row, or have too many names.
    """
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,):
        got = len(values) if values.ndim == 1 else f"shape {values.shape}"
        raise ValueError(f"labels: expected {count}, one for each row, got {got}")
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
    count = len(np.unique(values))
    if count > MAX_NAMES and not _is_scale(values):
        raise ValueError(
            f"labels: expected {MAX_NAMES} names or fewer, got {count}; name groups of them, or "
            "pass numbers, which become a colour scale"
        )
    return values


def _is_scale(values: np.ndarray) -> bool:
    """Return whether labels are so many different numbers that they colour the points."""
    return values.dtype.kind in "iuf" and len(np.unique(values)) > MAX_IN_LEGEND


def _draw_groups(ax: Axes, plane: np.ndarray, groups: np.ndarray, shown: np.ndarray) -> None:
    """Draw the points of each label in a colour and a shape of its own.

    Args:
        ax: The axes.
        plane: (rows, 2) points.
        groups: (rows,) labels.
        shown: Positions of the rows that are drawn.
    """
    names = np.unique(groups)
    for i, name in enumerate(names):
        x, y = plane[shown][groups[shown] == name].T
        cycle = i // len(GROUP_COLOURS)  # the second time round, a colour has the next shape
        ax.scatter(
            x, y, s=15, alpha=0.65, linewidths=0, label=str(name),
            color=GROUP_COLOURS[i % len(GROUP_COLOURS)],
            marker=GROUP_MARKERS[(i + cycle) % len(GROUP_MARKERS)],
        )  # fmt: skip
    if len(names) <= MAX_IN_LEGEND:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.6)


def _project(points: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """Return the points on the plane, (rows, 2), and the names of the two axes.

    Args:
        points: (rows, latents).
        groups: (rows,) labels; ``None`` without labels that are names.
    """
    if points.shape[1] == 1:
        line = 0.0 if groups is None else np.unique(groups, return_inverse=True)[1]
        # Spreads points over the height of their line.
        spread = 0.7 * (0.618 * np.arange(len(points)) % 1 - 0.5)
        return np.column_stack([points[:, 0], spread - line]), ["latent 0", ""]
    if points.shape[1] == 2:
        return points, ["latent 0", "latent 1"]
    centered = points - points.mean(0)
    if groups is not None and 2 < len(np.unique(groups)) < len(points):
        return _discriminants(centered, groups)
    variances, directions = np.linalg.eigh(centered.T @ centered)  # in rising order
    share = 100 * variances[::-1] / max(variances.sum(), 1e-300)
    titles = [
        f"{word} principal component ({share[i]:.0f} % of the codes' variance)"
        for i, word in enumerate(("first", "second"))
    ]
    return centered @ directions[:, :-3:-1], titles


def _discriminants(centered: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the points on the plane that separates the labels best, and the names of its axes.

    The codes are first transformed so that within a label they have the identity as covariance;
    the plane is then spanned by the two directions in which the means of the labels differ most.

    Args:
        centered: (rows, latents), with mean 0.
        groups: (rows,) labels.
    """
    names, which = np.unique(groups, return_inverse=True)
    means = np.array([centered[groups == name].mean(0) for name in names])[which]
    within = np.cov((centered - means).T) + 1e-9 * np.eye(centered.shape[1])
    whiten = np.linalg.inv(np.linalg.cholesky(within)).T
    directions = np.linalg.svd(means @ whiten, full_matrices=False)[2]
    titles = [
        f"{word} discriminant of these labels (sd within a label = 1)"
        for word in ("first", "second")
    ]
    return centered @ whiten @ directions[:2].T, titles


# Names on the picture, close to their points and not over each other


def _write_apart(ax: Axes, places: Mapping[str, Any]) -> None:
    """Write each name at its place, and move names apart that would hide each other.

    A thin line joins a name that had to move with its place. The limits of the axes are fixed at
    what they are now, because places of names are computed in pixels.

    Args:
        ax: Where to write.
        places: ``{name: (x, y)}``, in the data's units.
    """
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())
    size = 15 if max(map(len, places)) <= 2 else 11 if len(places) <= 20 else 8
    texts = [
        ax.text(x, y, name, fontsize=size, fontweight="bold", ha="center", va="center")
        for name, (x, y) in places.items()
    ]
    for text in texts:
        text.set_path_effects([patheffects.withStroke(linewidth=3.5, foreground="white")])
    ax.figure.canvas.figure.draw_without_rendering()  # to know the sizes of texts
    boxes = [text.get_window_extent() for text in texts]
    sizes = np.array([(box.width, box.height) for box in boxes]) + GAP * ax.figure.dpi / 72
    start = ax.transData.transform(np.array(list(places.values()), dtype=float))
    inside = ax.get_window_extent()
    moved = _without_overlap(start, sizes, np.array([inside.p0, inside.p1]))
    for text, old, new, box in zip(texts, start, moved, sizes, strict=True):
        x, y = ax.transData.inverted().transform([old, new]).T
        text.set_position((x[1], y[1]))
        if np.abs(new - old).max() > box[1] / 2:
            ax.plot(x, y, color="0.2", linewidth=0.8, zorder=text.get_zorder() - 0.5)


def _without_overlap(centers: np.ndarray, sizes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the centers of boxes after the boxes were moved until none overlaps another.

    Each round pushes every two boxes that overlap apart, half of the overlap each, along the axis
    where the overlap is smaller, and then moves all boxes back inside the limits.

    Args:
        centers: (names, 2) in pixels.
        sizes: (names, 2) widths and heights, in pixels.
        limits: (2, 2), the lower left and the upper right corner of the axes, in pixels.

    Returns:
        (names, 2) in pixels. Where the boxes have no room, some still overlap.
    """
    centers = centers.copy()
    for _ in range(MAX_ROUNDS):
        settled = True
        for i in range(len(centers)):
            for j in range(i):
                offset = centers[i] - centers[j]
                overlap = (sizes[i] + sizes[j]) / 2 - np.abs(offset)
                if (overlap > 1e-3).all():
                    axis = int(overlap.argmin())
                    push = overlap[axis] / 2 * (1.0 if offset[axis] >= 0 else -1.0)
                    centers[i, axis] += push
                    centers[j, axis] -= push
                    settled = False
        centers = np.clip(centers, limits[0] + sizes / 2, limits[1] - sizes / 2)
        if settled:
            break
    return centers
