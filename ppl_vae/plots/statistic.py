"""Does the model reach a number that was computed from the data?

Sources: Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness, section 2;
Gabry, Simpson, Vehtari, Betancourt & Gelman (2019), Visualization in Bayesian workflow,
arXiv:1709.01449, section 4.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ppl_vae.plots import style
from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.ranges import even_edges, is_rounding, range_in_sight

FARTHEST = 10  # standard deviations beyond the bars; the observed number becomes an arrow


def statistic_histogram(
    observed: Any,
    replicated: Any,
    *,
    name: str = "",
    p_value: float | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a statistic of the replicates as bars, and the statistic of the data as a line.

    The axis reaches as far as the line. Where the line is so far away that the bars would shrink
    to one stroke, an arrow at the edge stands for the line, and the legend has the number.

    Args:
        observed: The statistic of the data, one number.
        replicated: (samples,) the statistic of each replicate; NaN are left out.
        name: Name and unit of the statistic, for the axis.
        p_value: Share of replicates that lie as far out as the data, written beside the observed
            number.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: If ``observed`` is not one finite number, ``replicated`` has other values
            than finite numbers and NaN, or ``p_value`` is not between 0 and 1.

    Example:
        >>> ax = statistic_histogram(2.5, [1.0, 2.0, 3.0, 4.0], name="mean", p_value=0.5)
        >>> ax.get_legend_handles_labels()[1][0]
        'observed: 2.5 (p = 0.5)'
    """
    value, samples = _as_statistics(observed, replicated)
    if p_value is not None and not 0 <= p_value <= 1:
        raise ValueError(f"p_value: expected a share, 0 to 1, got {p_value}")
    ax = style.axes_or_new(ax, 6.8, 4.4)
    edges = _edges(samples, value)
    counts = np.histogram(samples, edges)[0]
    interval = np.quantile(samples, [0.05, 0.95])
    _draw_observed(ax, value, _label(value, samples, p_value), edges, samples)
    low, high = (_number(bound, samples, value) for bound in interval)
    label = f"central 90 % of the replicates: {low} to {high}"
    ax.axvspan(*interval, color=style.BAND, zorder=0, label=label)
    for bound in interval:
        ax.axvline(bound, color=style.INK, linewidth=1, linestyle=":", zorder=3)
    ax.bar(
        edges[:-1], counts, width=np.diff(edges), align="edge", color=style.PALE_GREY,
        edgecolor=style.INK, linewidth=0.6, label=f"{len(samples)} replicates",
    )  # fmt: skip
    ax.set_ylim(0, 1.06 * counts.max())
    for axis in (ax.xaxis, ax.yaxis) if _are_whole(samples, value) else (ax.yaxis,):
        style.whole_ticks(axis, 8)
    beyond = int(((samples < edges[0]) | (samples > edges[-1])).sum())
    note = f"\nnot shown, far outside: {beyond} of the replicates" if beyond else ""
    title = "A statistic of the data and of replicates" if title is None else title
    style.label_axes(ax, title, (name or "statistic") + note, "replicates")
    style.legend_above(ax)
    return ax


def _as_statistics(observed: Any, replicated: Any) -> tuple[float, np.ndarray]:
    """Return the statistic of the data, and those of the replicates, (samples,) without NaN."""
    value, samples = as_array(observed, "observed"), as_array(replicated, "replicated")
    if value.size != 1 or not np.isfinite(value).all():
        got = f"shape {value.shape}" if value.size != 1 else f"{value.item()}"
        raise ValueError(f"observed: expected one finite number, got {got}")
    if samples.ndim != 1:
        raise ValueError(
            "replicated: expected a number for each replicate, (samples,), got shape "
            f"{samples.shape}"
        )
    samples = samples[~np.isnan(samples)]
    if not len(samples) or np.isinf(samples).any():
        got = "infinite ones" if len(samples) else "none (or NaN alone)"
        raise ValueError(f"replicated: expected finite numbers, got {got}")
    return value.item(), samples


def _edges(samples: np.ndarray, value: float) -> np.ndarray:
    """Return the edges of the bars, (bars + 1,).

    Replicates that are all equal have one bar, wide enough to be seen beside the observed number.
    """
    low, high = range_in_sight(samples)
    if low == high:
        half = max(0.05 * abs(low), 0.01 * abs(value - low)) or 0.5
        return np.array([low - half, low + half])
    most = int(np.clip(len(samples) ** 0.5, 10, 30))
    return even_edges(low, high, most, _are_whole(samples))


def _are_whole(samples: np.ndarray, value: float = 0.0) -> bool:
    """Return whether all samples, and ``value`` if given, are whole numbers."""
    return bool((samples == np.round(samples)).all() and value == round(value))


def _standard_deviation(samples: np.ndarray) -> float:
    """Return the standard deviation, 0 where it is no more than rounding."""
    spread = float(samples.std())
    return 0.0 if is_rounding(spread, samples) else spread


def _draw_observed(
    ax: Axes, value: float, label: str, edges: np.ndarray, samples: np.ndarray
) -> None:
    """Draw the observed number: a line, or far away from the bars an arrow at the edge.

    The distance is measured in standard deviations of the replicates, taken from their central
    90 % (1.645 standard deviations to each side of a normal distribution), because one replicate
    far outside would hide the distance otherwise.

    Args:
        ax: The axes, whose horizontal limits are set here.
        value: The observed number.
        label: Name in the legend.
        edges: (bars + 1,) edges of the bars.
        samples: (samples,) statistics of the replicates.
    """
    low, high = edges[0], edges[-1]
    interval = np.quantile(samples, [0.05, 0.95])
    spread = float(np.ptp(interval)) / (2 * 1.645)
    spread = _standard_deviation(samples) if is_rounding(spread, interval) else spread
    gap = max(low - value, value - high)
    if spread == 0 or gap <= FARTHEST * spread:
        ax.axvline(value, color=style.BLUE, linewidth=2.6, zorder=4, label=label)
        low, high = min(low, value), max(high, value)
        ax.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        return
    side, room, margin = (1 if value > high else -1), 0.25 * (high - low), 0.05 * (high - low)
    ax.set_xlim(low - (margin if side > 0 else room), high + (margin if side < 0 else room))
    ax.text(
        0.5 + 0.49 * side, 0.43, _number(value, samples, value), transform=ax.transAxes,
        ha="right" if side > 0 else "left", va="bottom", color=style.BLUE,
    )  # fmt: skip
    ax.plot(
        [0.5 + 0.38 * side, 0.5 + 0.49 * side], [0.4, 0.4], transform=ax.transAxes,
        color=style.BLUE, linewidth=2.6, marker=">" if side > 0 else "<", markevery=[1],
        markersize=11, label=f"{label}, far outside",
    )  # fmt: skip


def _label(value: float, samples: np.ndarray, p_value: float | None) -> str:
    """Return the observed number and its p-value; no p-value is below one replicate's share."""
    text = f"observed: {_number(value, samples, value)}"
    if p_value is None:
        return text
    least = 1 / len(samples)
    return f"{text} (p {f'< {least:.2g}' if p_value < least else f'= {p_value:.2g}'})"


def _number(number: float, samples: np.ndarray, value: float) -> str:
    """Return a number with the digits that tell the observed number and the replicates apart."""
    spread = _standard_deviation(samples) or np.ptp(np.append(samples, value)) or 1.0
    digits = int(np.clip(np.log10(max(abs(number) / spread, 1.0)) + 3, 3, 12))
    if number and not 1e-4 <= abs(number) < 1e9:
        return f"{number:.{digits}g}"
    return np.format_float_positional(number, precision=digits, fractional=False, trim="-")
