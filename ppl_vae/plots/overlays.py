"""Does the model make values that are distributed like the observed ones?

    density   f(x) = Σ_r φ((x - x_r) / h) / (rows h), with one width h for all curves of a figure.
              Where observed and replicated values end at the same bound, the part of f beyond the
              bound is folded back (reflected at the bound).
    share     of the rows that have a value: a bar for the data; median and central 90 % for the
              replicates.

Sources: Gabry, Simpson, Vehtari, Betancourt & Gelman (2019), Visualization in Bayesian workflow,
arXiv:1709.01449, section 4 (overlays); Silverman (1986), Density estimation, sections 2.10 (bounds)
and 3.4 (h).
"""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from ppl_vae.plots import style
from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.ranges import even_edges, is_rounding, range_in_sight

MAX_CURVES = 50  # replicates drawn; more hide each other
GRID_POINTS = 1024
FEWEST_FOR_BOUNDS = 100  # rows; the extremes of fewer rows say nothing about bounds
MAX_BARS = 40


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
    """Draw the distribution of the observed values over the distributions of the replicated ones.

    Continuous values are density curves: the observed one thick and dark, those of at most 50
    replicates thin and pale. Counts, 0/1 and categories are bars of the observed shares, with the
    median and the central 90 % of the replicated shares; more than 40 different values share
    bins. Where a few values lie far beyond the others, the axis leaves them out and its label says
    how many they are.

    Args:
        observed: (rows,) of one feature. Rows without a value (NaN) are left out of both.
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
        ValueError: If there are no values, some are infinite, the replicates do not have one
            value for each row, or a category has no label.

    Example:
        >>> ax = density_overlay([0, 1, 1, 1], torch.ones(9, 4), discrete=True)
        >>> [float(bar.get_height()) for bar in ax.patches]
        [0.25, 0.75]
    """
    data, samples, count = _as_pair(observed, replicated, None if discrete else MAX_CURVES)
    names = None if labels is None else [str(label) for label in labels]
    if names is not None:
        _check_labels(names, discrete, data, samples)
    ax = style.axes_or_new(ax, 6.8, 4.2)
    if discrete:
        note = _draw_shares(ax, data, samples, names)
    else:
        note = _draw_curves(ax, data, samples, count)
    ax.set_ylim(0, 1.05 * ax.dataLim.y1)
    x = "\n".join(filter(None, [name or "value", note]))
    title = "Observed and replicated values" if title is None else title
    style.label_axes(ax, title, x, "share of rows" if discrete else "density")
    ax.yaxis.set_major_formatter("{x:g}")  # a power of ten above the axis would meet the legend
    style.legend_above(ax)
    return ax


# Arguments


def _as_pair(
    observed: Any, replicated: Any, most: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the values of the rows that have an observed value.

    Args:
        observed: As in ``density_overlay``.
        replicated: As in ``density_overlay``.
        most: Number of samples to choose, evenly spaced; ``None`` is all. Samples are chosen
            before the values are copied, because there may be many.

    Returns:
        (rows,) observed values; (samples, rows) replicated values; and the number of samples
        before some were chosen.
    """
    data = as_array(observed, "observed")
    if data.ndim != 1:
        raise ValueError(
            f"observed: expected a number for each row, (rows,), got shape {data.shape}; draw one "
            "feature at a time"
        )
    if not isinstance(replicated, Tensor | np.ndarray):
        replicated = as_array(replicated, "replicated")
    if replicated.ndim != 2 or replicated.shape[1] != len(data):
        raise ValueError(
            f"replicated: expected (samples, {len(data)}), values for the observed rows, got "
            f"shape {tuple(replicated.shape)}"
        )
    count = len(replicated)
    if most and count > most:
        replicated = replicated[np.linspace(0, count - 1, most).round().astype(int).tolist()]
    samples, known = as_array(replicated, "replicated"), ~np.isnan(data)
    if not known.all():
        data, samples = data[known], samples[:, known]
    _check_values("observed", data)
    samples = samples[~np.isnan(samples).all(1)]
    _check_values("replicated", samples)
    return data, samples, count


def _check_values(where: str, values: np.ndarray) -> None:
    """Raise ``ValueError`` where there are no values or infinite ones."""
    if not values.size:
        raise ValueError(f"{where}: expected values, got none (or NaN alone)")
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(
            f"{where}: expected finite values, got {infinite} infinite; replace them by NaN"
        )


def _check_labels(names: list[str], discrete: bool, *groups: np.ndarray) -> None:
    """Raise ``ValueError`` where values are continuous or a value has no label."""
    if not discrete:
        raise ValueError("labels: expected none for continuous values; pass discrete=True")
    for values in groups:
        wrong = values[~np.isnan(values) & ~np.isin(values, np.arange(len(names)))]
        if len(wrong):
            raise ValueError(
                f"labels: expected a name for each value, got {len(names)}, for 0 to "
                f"{len(names) - 1}, and the value {wrong[0]:g}"
            )


# Curves


def _draw_curves(ax: Axes, observed: np.ndarray, samples: np.ndarray, count: int) -> str:
    """Draw the density curves.

    Args:
        ax: Where to draw.
        observed: (rows,) values.
        samples: (samples, rows) values, NaN where there is none.
        count: Number of samples before some were chosen.

    Returns:
        What the label of the axis has to say about values out of sight; empty where nothing.
    """
    pool = samples[~np.isnan(samples)]
    low, high = range_in_sight(observed, pool)
    if low == high:
        low, high = low - 0.05 * max(abs(low), 1.0), high + 0.05 * max(abs(low), 1.0)
    width = max(_kernel_width(observed, pool), (high - low) / 200)
    margin = max(3 * width, 0.02 * (high - low))
    low, high = low - margin, high + margin
    bounds = _shared_bounds(observed, pool, width)
    for row in samples:
        curve = _density(row[~np.isnan(row)], (low, high), bounds, width)
        ax.plot(*curve, color=style.PALE_GREY, linewidth=0.7, alpha=0.8)
    chosen = f" ({len(samples)} of {count} samples)" if len(samples) < count else ""
    ax.plot([], [], color=style.GREY, linewidth=1.2, label=f"replicated{chosen}")
    curve = _density(observed, (low, high), bounds, width)
    ax.plot(*curve, color=style.BLUE, linewidth=2.4, label="observed")
    ax.set_xlim(low, high)
    shares = [float(((values < low) | (values > high)).mean()) for values in (observed, pool)]
    if not any(shares):
        return ""
    of_data, of_samples = (style.percent(share, 1) if share else "none" for share in shares)
    return f"not shown, far outside: {of_data} of observed, {of_samples} of replicated values"


def _shared_bounds(observed: np.ndarray, pool: np.ndarray, width: float) -> tuple[float, float]:
    """Return the bounds at which observed and replicated values end alike.

    Args:
        observed: (rows,) values.
        pool: (values,) of all replicates.
        width: Width h of the kernel: ends that differ by less than h / 2 are one bound.

    Returns:
        The lower and the upper bound, infinite where there is none.
    """
    lows, highs = (observed.min(), pool.min()), (observed.max(), pool.max())
    if len(observed) < FEWEST_FOR_BOUNDS or max(highs) - min(lows) < width:
        return -np.inf, np.inf
    return (
        min(lows) if np.ptp(lows) < width / 2 else -np.inf,
        max(highs) if np.ptp(highs) < width / 2 else np.inf,
    )


def _kernel_width(*groups: np.ndarray) -> float:
    """Return Silverman's width h for the narrowest group that varies; 0 where none does."""
    spreads = [(_robust_spread(values), values) for values in groups]
    narrowest = min((s for s, values in spreads if not is_rounding(s, values)), default=0.0)
    return float(0.9 * narrowest * len(groups[0]) ** -0.2)


def _robust_spread(values: np.ndarray) -> float:
    """Return the smaller one of standard deviation and interquartile range / 1.34."""
    quarter, three = np.quantile(values, [0.25, 0.75])
    deviation = float(values.std())
    return min(deviation, float(three - quarter) / 1.34) or deviation  # 0: most values are equal


def _density(
    values: np.ndarray, view: tuple[float, float], bounds: tuple[float, float], width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return points in view and the density there.

    The values are counted in a fine histogram, which is smoothed by one convolution with the
    kernel; the time does not grow with rows times points. Values near a bound are reflected at it
    before they are counted, and the density beyond the bound is set to 0.

    Args:
        values: (values,) without NaN.
        view: Lowest and highest point.
        bounds: Bounds of the values, infinite where there is none.
        width: Standard deviation h of the normal kernel.
    """
    edges = np.linspace(view[0] - 4 * width, view[1] + 4 * width, GRID_POINTS + 1)
    step = edges[1] - edges[0]
    reach = np.arange(-np.ceil(4 * width / step), np.ceil(4 * width / step) + 1)
    kernel = np.exp(-0.5 * (reach * step / width) ** 2)
    reflected = [2 * bound - values[np.abs(values - bound) < 4 * width] for bound in bounds]
    heights = np.histogram(np.concatenate([values, *reflected]), edges)[0] / (len(values) * step)
    smooth = np.convolve(heights, kernel / kernel.sum(), mode="same")
    points = (edges[1:] + edges[:-1]) / 2
    smooth[(points < bounds[0]) | (points > bounds[1])] = 0
    shown = (points >= view[0]) & (points <= view[1])
    return points[shown], smooth[shown]


# Shares of rows: values that are few have a bar each, values that are many share bins


class _Bars(NamedTuple):
    """Where the bars stand.

    Attributes:
        bounds: (bars - 1,) values that separate a bar from the next one.
        places: (bars,) middles of the bars on the horizontal axis.
        width: Width of a bar.
        names: Names below the bars; ``None`` where the axis has numbers.
        note: What the label of the axis has to say about the bars.
        whole: Whether the axis has whole numbers only.
    """

    bounds: np.ndarray
    places: np.ndarray
    width: float
    names: list[str] | None = None
    note: str = ""
    whole: bool = False


def _draw_shares(
    ax: Axes, observed: np.ndarray, replicated: np.ndarray, names: list[str] | None
) -> str:
    """Draw the observed shares as bars, and the replicated ones as points with intervals.

    Args:
        ax: Where to draw.
        observed: (rows,) values.
        replicated: (samples, rows) values, NaN where there is none.
        names: Names of the categories 0, 1, ...; ``None`` where values are numbers.

    Returns:
        What the label of the horizontal axis has to say about the bars; empty where nothing.
    """
    bars = _bars(observed, replicated, names)
    shares = _shares(observed, bars.bounds)
    of_replicates = np.stack([_shares(row, bars.bounds) for row in replicated])  # (samples, bars)
    low, middle, high = np.quantile(of_replicates, [0.05, 0.5, 0.95], axis=0)
    ax.bar(
        bars.places, shares, width=bars.width, color=style.PALE_BLUE, edgecolor=style.BLUE,
        linewidth=0.8, label="observed",
    )  # fmt: skip
    occurs = (shares > 0) | of_replicates.any(0)
    ax.errorbar(
        bars.places[occurs], middle[occurs],
        yerr=np.stack([middle - low, high - middle])[:, occurs], fmt="o", color="black",
        markersize=float(np.clip(120 / len(bars.places), 2.5, 5)), linewidth=1.5, capsize=0,
        label="replicated: median, central 90 %",
    )  # fmt: skip
    ax.set_xlim(bars.places[0] - bars.width, bars.places[-1] + bars.width)
    if bars.whole:
        style.whole_ticks(ax.xaxis)
    if bars.names is not None:
        _write_names(ax, bars.names)
    return bars.note


def _bars(observed: np.ndarray, replicated: np.ndarray, names: list[str] | None) -> _Bars:
    """Choose the bars: one for each category, for each whole number, for each value, or bins."""
    if names is not None:
        return _Bars(np.arange(len(names) - 1) + 0.5, np.arange(len(names)), 0.8, names)
    known = replicated[~np.isnan(replicated)]
    values = np.sort(pd.unique(np.concatenate([observed, known])))
    whole = bool((values == np.round(values)).all())
    if whole and values[-1] - values[0] < MAX_BARS:
        places = np.arange(values[0], values[-1] + 1)
        return _Bars(places[:-1] + 0.5, places, 0.8, whole=True)
    if len(values) <= MAX_BARS:
        bounds = (values[:-1] + values[1:]) / 2
        return _Bars(bounds, np.arange(len(values)), 0.8, [f"{value:g}" for value in values])
    edges = even_edges(*range_in_sight(observed, known), MAX_BARS, whole)
    width = edges[1] - edges[0]
    notes = [f"bins of {width:g} values each"] if whole and width > 1 else []
    if values[0] < edges[0] or values[-1] > edges[-1]:
        notes.append("the end bins hold what lies beyond")
    return _Bars(edges[1:-1], (edges[1:] + edges[:-1]) / 2, 0.9 * width, None, ", ".join(notes))


def _shares(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the share of the values in each bar, (bars,); NaN among the values are left out."""
    values = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(bounds, values, side="right"), minlength=len(bounds) + 1)
    return np.asarray(counts / len(values))


def _write_names(ax: Axes, names: list[str]) -> None:
    """Write names below the bars, on several lines or upright where there is no room.

    Of more than 40 names, every second, third, ... is written.
    """
    step = -(-len(names) // MAX_BARS)
    names = [style.shorten(name, 30) for name in names[::step]]
    room = max(70 // len(names), 1)  # characters below a bar
    wrapped = [textwrap.wrap(name, room, break_long_words=False) or [""] for name in names]
    upright = any(len(line) > room for lines in wrapped for line in lines)
    labels = names if upright else ["\n".join(lines) for lines in wrapped]
    ax.set_xticks(range(0, step * len(names), step), labels=labels, rotation=90 * upright)
    ax.tick_params(axis="x", length=0, labelsize=7 if len(names) > 25 else 9)
