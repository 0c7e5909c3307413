"""How well do scores tell strange rows from others: curves over all thresholds.

    true positive rate    strange rows above the threshold / strange rows       (recall)
    false positive rate   other rows above the threshold / other rows
    precision             strange rows above the threshold / rows above the threshold

The area under the ROC curve is the probability that a strange row has a higher score than another
row, ties counted by half. The area under the precision-recall curve is the average precision, the
sum of precision times the step in recall; it depends on the share of strange rows, its value for
scores that say nothing.

Sources: Hanley & McNeil (1982), Radiology 143(1) (the area as a probability); Davis & Goadrich
(2006), The relationship between precision-recall and ROC curves, ICML (no straight lines between
points of precision and recall).
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ppl_vae.plots import style
from ppl_vae.plots.arrays import as_array

DASHES = ("-", "--", ":")  # of the first, second and third group of scores that share colours
NAME_LENGTH = 28  # characters of a score's name in the legend


def roc_curves(
    labels: Any, scores: Any, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the ROC curve of one or several scores, with their areas in the legend.

    Args:
        labels: (rows,) 1 for strange rows, 0 for others.
        scores: (rows,), the higher, the stranger; or a frame or mapping of several such scores.
            Infinite scores are allowed.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: If the labels are not 0 and 1, both of them, or a score is NaN or does not have
            one number for each row.

    Example:
        >>> ax = roc_curves([0, 0, 1, 1], {"elbo": [1.0, 3.0, 2.0, 4.0]})
        >>> ax.get_legend_handles_labels()[1]
        ['elbo: area 0.750']
    """
    strange, named = _as_labels(labels), _as_named(scores, len(as_array(labels, "labels")))
    ax = style.axes_or_new(ax, 5.2, 5.0)
    ax.plot([0, 1], [0, 1], color=style.INK, linewidth=1, linestyle="--", zorder=0)
    for look, (name, values) in zip(_looks(), named.items(), strict=False):
        hits, alarms = _hits_and_alarms(strange, values)
        x, y = alarms / alarms[-1], hits / hits[-1]
        area = float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())
        ax.plot(x, y, label=_label(name, area), **look)
    title = "ROC curve" if title is None else title
    _finish(ax, title, "false positive rate", "true positive rate")
    return ax


def precision_recall_curves(
    labels: Any, scores: Any, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw precision against recall for one or several scores, with their areas in the legend.

    Args:
        labels: (rows,) 1 for strange rows, 0 for others.
        scores: (rows,), the higher, the stranger; or a frame or mapping of several such scores.
            Infinite scores are allowed.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes. The dashed line is the share of strange rows: the precision of scores that say
        nothing.

    Raises:
        ValueError: As ``roc_curves``.

    Example:
        >>> ax = precision_recall_curves([0, 0, 1, 1], {"elbo": [1.0, 3.0, 2.0, 4.0]})
        >>> ax.get_legend_handles_labels()[1]
        ['elbo: area 0.833']
    """
    strange, named = _as_labels(labels), _as_named(scores, len(as_array(labels, "labels")))
    ax = style.axes_or_new(ax, 5.2, 5.0)
    ax.axhline(strange.mean(), color=style.INK, linewidth=1, linestyle="--", zorder=0)
    for look, (name, values) in zip(_looks(), named.items(), strict=False):
        hits, alarms = (counts[1:] for counts in _hits_and_alarms(strange, values))
        precision, recall = hits / (hits + alarms), hits / hits[-1]
        area = float((np.diff(recall, prepend=0.0) * precision).sum())
        x, y = np.append(0.0, recall), np.append(precision[0], precision)
        ax.step(x, y, where="pre", label=_label(name, area), **look)
    title = "Precision and recall" if title is None else title
    _finish(ax, title, "recall: share of the strange rows found", "precision: strange among found")
    return ax


class _Counts(NamedTuple):
    """Rows above each threshold, from above all scores to below all of them."""

    hits: np.ndarray
    alarms: np.ndarray


def _hits_and_alarms(strange: np.ndarray, scores: np.ndarray) -> _Counts:
    """Return how many strange rows and how many others are at or above each different score.

    Args:
        strange: (rows,) of bool.
        scores: (rows,).

    Returns:
        (different scores + 1,) each, rising from 0.
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    hits = strange[order].cumsum()[last]
    return _Counts(np.append(0, hits), np.append(0, last + 1 - hits))


def _as_labels(labels: Any) -> np.ndarray:
    """Return labels as (rows,) of bool; ``ValueError`` unless they are 0 and 1, both of them."""
    values = as_array(labels, "labels")
    found = np.unique(values)
    if values.ndim != 1 or found.tolist() != [0.0, 1.0]:
        got = f"shape {values.shape}" if values.ndim != 1 else f"{found[:5].tolist()}"
        raise ValueError(
            f"labels: expected 1 for strange rows and 0 for others, some of both, got {got}"
        )
    strange: np.ndarray = values == 1
    return strange


def _as_named(scores: Any, rows: int) -> dict[str, np.ndarray]:
    """Return scores by name, (rows,) each, or raise ``ValueError`` that names the score."""
    if isinstance(scores, pd.Series):
        scores = {str(scores.name or "score"): scores}
    columns = dict(scores.items()) if hasattr(scores, "items") else {"score": scores}
    named = {str(name): as_array(values, f"scores[{name!r}]") for name, values in columns.items()}
    most = len(DASHES) * len(style.SERIES)
    if not 0 < len(named) <= most:
        raise ValueError(f"scores: expected 1 to {most} scores, got {len(named)}")
    for name, values in named.items():
        if values.shape != (rows,) or np.isnan(values).any():
            got = f"shape {values.shape}" if values.shape != (rows,) else "NaN"
            raise ValueError(
                f"scores[{name!r}]: expected a number for each of the {rows} rows, got {got}"
            )
    return named


def _looks() -> list[dict[str, Any]]:
    """Return the colour and the dashes of each curve."""
    return [
        {"color": colour, "linestyle": dashes, "linewidth": 1.8}
        for dashes in DASHES
        for colour, _ in style.SERIES
    ]


def _label(name: str, area: float) -> str:
    """Return a curve's text in the legend."""
    return f"{style.shorten(name, NAME_LENGTH)}: area {area:.3f}"


def _finish(ax: Axes, title: str, x: str, y: str) -> None:
    """Set the limits of two rates, the names and the legend."""
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(-0.01, 1.02)
    style.label_axes(ax, title, x, y, grid=True)
    style.legend_above(ax)
