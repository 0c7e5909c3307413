"""Does the model make values that are distributed like the observed ones?

    density   f(x) = Σ_r φ((x - x_r) / h) / (rows h), one width h for all curves of a picture;
              where observed and replicated values end at one bound, what would lie beyond is
              folded back
    share     of the rows with a value: a bar; over the replicates its median and central 90 %

Sources: Gabry, Simpson, Vehtari, Betancourt & Gelman (2019), Visualization in Bayesian workflow,
arXiv:1709.01449, section 4 (overlays); Silverman (1986), Density estimation, sections 2.10 (bounds)
and 3.4 (h).
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.ranges import ROUNDING, in_sight
from ppl_vae.plots.shares import draw_bars

CURVES = 50  # replicates drawn; more hide each other
GRID = 1024  # points of a curve
FEW = 100  # rows; the extremes of fewer are no bounds
BLUE = "#0b5394"


def density_overlay(
    observed: Any,
    replicated: Any,
    *,
    discrete: bool = False,
    labels: Sequence[Any] | None = None,
    name: str = "",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw how the observed values are distributed over how the replicated ones are.

    Numbers on a scale are curves: the observed one thick and dark, at most 50 replicates thin and
    pale. Counts, 0/1 and categories are bars of the observed shares, with the median and the
    central 90 % of the replicated ones; more than 40 different values are put into bins. Where
    some values lie far beyond the others, the axis leaves them out and its label says how many.

    Args:
        observed: (rows,) of one feature; rows without a value (NaN) are left out of both.
        replicated: (samples, rows), for example ``posterior_predictive(...)["x"][:, :, 0]``;
            cells without a value (NaN) are left out.
        discrete: Whether the values are counts, 0/1 or categories.
        labels: Names of the categories 0, 1, ..., of discrete values.
        name: Name and unit of the values, for the axis.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: Where there are no values, some are infinite, the replicates have not a value
            for each row, or a value has no label.

    Example:
        >>> ax = density_overlay([0, 1, 1, 1], torch.ones(9, 4), discrete=True)
        >>> [float(bar.get_height()) for bar in ax.patches]
        [0.25, 0.75]
    """
    seen, made, count = _as_pair(observed, replicated, None if discrete else CURVES)
    names = None if labels is None else [str(label) for label in labels]
    if names is not None:
        _check_labels(names, discrete, seen, made)
    ax = ax or plt.subplots(figsize=(6.8, 4.2), layout="constrained")[1]
    note = draw_bars(ax, seen, made, names) if discrete else _draw_curves(ax, seen, made, count)
    ax.set_ylim(0, 1.2 * ax.dataLim.y1)  # room for the legend
    ax.set_title("Observed and replicated values" if title is None else title)
    ax.set_xlabel("\n".join(filter(None, [name or "value", note])))
    ax.set_ylabel("share of rows" if discrete else "density")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper right", ncols=2)
    return ax


# What comes in


def _as_pair(
    observed: Any, replicated: Any, most: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """(rows,), (samples, at most ``most``, rows), and the number of samples there were."""
    seen = as_array(observed, "observed")
    if seen.ndim != 1:
        raise ValueError(
            f"observed: expected a number for each row, (rows,), got shape {seen.shape}; draw one "
            "feature at a time"
        )
    if not isinstance(replicated, Tensor | np.ndarray):
        replicated = as_array(replicated, "replicated")
    if replicated.ndim != 2 or replicated.shape[1] != len(seen):
        raise ValueError(
            f"replicated: expected (samples, {len(seen)}), values for the observed rows, got "
            f"shape {tuple(replicated.shape)}"
        )
    count = len(replicated)
    if most and count > most:  # before they are copied
        replicated = replicated[np.linspace(0, count - 1, most).round().astype(int).tolist()]
    made, known = as_array(replicated, "replicated"), ~np.isnan(seen)
    seen, made = (seen, made) if known.all() else (seen[known], made[:, known])
    _check_values("observed", seen)
    made = made[~np.isnan(made).all(1)]
    _check_values("replicated", made)
    return seen, made, count


def _check_values(where: str, values: np.ndarray) -> None:
    if not values.size:
        raise ValueError(f"{where}: expected values, got none (or NaN alone)")
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(f"{where}: expected finite values, got {infinite} infinite; make them NaN")


def _check_labels(names: list[str], discrete: bool, *groups: np.ndarray) -> None:
    if not discrete:
        raise ValueError("labels: expected none for values on a scale; pass discrete=True")
    for values in groups:
        wrong = values[~np.isnan(values) & ~np.isin(values, np.arange(len(names)))]
        if len(wrong):
            raise ValueError(
                f"labels: expected a name for each value, got {len(names)}, for 0 to "
                f"{len(names) - 1}, and the value {wrong[0]:g}"
            )


# Curves


def _draw_curves(ax: Axes, seen: np.ndarray, made: np.ndarray, count: int) -> str:
    """The curves; returns what the axis leaves out."""
    pool = made[~np.isnan(made)]
    low, high = in_sight(seen, pool)
    if low == high:
        low, high = low - 0.05 * max(abs(low), 1.0), high + 0.05 * max(abs(low), 1.0)
    width = max(_width(seen, pool), (high - low) / 200)
    margin = max(3 * width, 0.02 * (high - low))
    low, high = low - margin, high + margin
    ends = _ends(seen, pool, width)
    pale: dict[str, Any] = {"color": "0.7", "linewidth": 0.7, "alpha": 0.8}
    for row in made:
        ax.plot(*_density(row[~np.isnan(row)], (low, high), ends, width), **pale)
    shown = f" ({len(made)} of {count} samples)" if len(made) < count else ""
    ax.plot([], [], color="0.6", linewidth=1.2, label=f"replicated{shown}")
    ax.plot(*_density(seen, (low, high), ends, width), color=BLUE, linewidth=2.4, label="observed")
    ax.set_xlim(low, high)
    shares = [((values < low) | (values > high)).mean() for values in (seen, pool)]
    if not any(shares):
        return ""
    observed, replicated = (_percent(share) for share in shares)
    return f"not shown, far outside: {observed} of observed, {replicated} of replicated values"


def _ends(seen: np.ndarray, pool: np.ndarray, width: float) -> tuple[float, float]:
    """Bounds that observed and replicated values share, infinite where there is none."""
    low, high = (seen.min(), pool.min()), (seen.max(), pool.max())
    if len(seen) < FEW or max(high) - min(low) < width:
        return -np.inf, np.inf
    return (
        min(low) if np.ptp(low) < width / 2 else -np.inf,
        max(high) if np.ptp(high) < width / 2 else np.inf,
    )


def _width(*groups: np.ndarray) -> float:
    """Silverman's rule for the narrowest of the groups that vary; 0 where none does."""
    spreads = [(_spread(values), ROUNDING * np.abs(values).max()) for values in groups]
    narrowest = min((spread for spread, least in spreads if spread > least), default=0.0)
    return float(0.9 * narrowest * len(groups[0]) ** -0.2)


def _spread(values: np.ndarray) -> float:
    quarter, three = np.quantile(values, [0.25, 0.75])
    spreads = [float(values.std()), float(three - quarter) / 1.34]
    return min(spreads) or spreads[0]  # most values equal: no quartiles to go by


def _density(
    values: np.ndarray, view: tuple[float, float], ends: tuple[float, float], width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points in view, and the density there: a fine histogram, smoothed, folded at both ends."""
    edges = np.linspace(view[0] - 4 * width, view[1] + 4 * width, GRID + 1)
    step = edges[1] - edges[0]
    reach = np.arange(-np.ceil(4 * width / step), np.ceil(4 * width / step) + 1)
    kernel = np.exp(-0.5 * (reach * step / width) ** 2)
    folded = [2 * end - values[np.abs(values - end) < 4 * width] for end in ends]
    heights = np.histogram(np.concatenate([values, *folded]), edges)[0] / (len(values) * step)
    smooth = np.convolve(heights, kernel / kernel.sum(), mode="same")
    points = (edges[1:] + edges[:-1]) / 2
    smooth[(points < ends[0]) | (points > ends[1])] = 0
    shown = (points >= view[0]) & (points <= view[1])
    return points[shown], smooth[shown]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share > 0.0005 else "under 0.1 %" if share else "none"
