"""Does the model reach a number that was computed from the data?

Sources: Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness, section 2;
Gabry, Simpson, Vehtari, Betancourt & Gelman (2019), Visualization in Bayesian workflow,
arXiv:1709.01449, section 4.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.ranges import ROUNDING, even_edges, in_sight

BLUE = "#0b5394"
TOP = 0.72  # height of what is drawn; the legend is above
FAR = 10  # standard deviations beyond the bars: the observed number becomes an arrow


def statistic_histogram(
    observed: Any,
    replicated: Any,
    *,
    name: str = "",
    p_value: float | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a statistic of the replicates as bars, and that of the data as a line.

    The axis reaches as far as the line. Where that is so far away that the bars would be one
    stroke, an arrow at the edge stands for it and the legend has the number.

    Args:
        observed: The statistic of the data, one number.
        replicated: (samples,) the same statistic of each replicate; NaN are left out.
        name: Name and unit of the statistic, for the axis.
        p_value: Share of replicates beyond the data, written beside the observed number.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: Where ``observed`` is not one finite number, ``replicated`` not finite numbers,
            or ``p_value`` not within 0 and 1.

    Example:
        >>> ax = statistic_histogram(2.5, [1.0, 2.0, 3.0, 4.0], name="mean", p_value=0.5)
        >>> ax.get_legend_handles_labels()[1][0]
        'observed: 2.5 (p = 0.5)'
    """
    value, made = _as_statistics(observed, replicated)
    if p_value is not None and not 0 <= p_value <= 1:
        raise ValueError(f"p_value: expected a share, 0 to 1, got {p_value}")
    ax = ax or plt.subplots(figsize=(6.8, 4.0), layout="constrained")[1]
    edges = _edges(made, value)
    counts = np.histogram(made, edges)[0]
    bounds = np.quantile(made, [0.05, 0.95])
    _draw_observed(ax, value, _label(value, made, p_value), edges, bounds, made)
    low, high = bounds
    ax.axvspan(low, high, ymax=TOP, color="0.92", zorder=0, label=_interval(bounds, made, value))
    for bound in bounds:
        ax.axvline(bound, ymax=TOP, color="0.4", linewidth=1, linestyle=":", zorder=3)
    ax.bar(
        edges[:-1], counts, width=np.diff(edges), align="edge", color="0.75", edgecolor="0.35",
        linewidth=0.6, label=f"{len(made)} replicates",
    )  # fmt: skip
    ax.set_ylim(0, 1.06 * counts.max() / TOP)
    for axis in (ax.xaxis, ax.yaxis) if _whole(made, value) else (ax.yaxis,):
        axis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    beyond = int(((made < edges[0]) | (made > edges[-1])).sum())
    note = f"not shown, far outside: {beyond} of the replicates" if beyond else None
    ax.set_title("A statistic of the data and of replicates" if title is None else title)
    ax.set_xlabel("\n".join(filter(None, [name or "statistic", note])))
    ax.set_ylabel("replicates")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left")
    return ax


def _as_statistics(observed: Any, replicated: Any) -> tuple[float, np.ndarray]:
    """A number, and (samples,) without NaN."""
    value, made = as_array(observed, "observed"), as_array(replicated, "replicated")
    if value.size != 1 or not np.isfinite(value).all():
        got = f"shape {value.shape}" if value.size != 1 else f"{value.item()}"
        raise ValueError(f"observed: expected one finite number, got {got}")
    if made.ndim != 1:
        raise ValueError(
            f"replicated: expected a number for each replicate, (samples,), got shape {made.shape}"
        )
    made = made[~np.isnan(made)]
    if not len(made) or np.isinf(made).any():
        got = "infinite ones" if len(made) else "none (or NaN alone)"
        raise ValueError(f"replicated: expected finite numbers, got {got}")
    return value.item(), made


def _edges(made: np.ndarray, value: float) -> np.ndarray:
    """Of the bars; whole numbers that differ have bars of whole numbers."""
    low, high = in_sight(made)
    if low == high:
        half = max(0.05 * abs(low), 0.01 * abs(value - low)) or 0.5
        return np.array([low - half, low + half])
    most = int(np.clip(len(made) ** 0.5, 10, 30))
    return even_edges(low, high, most, _whole(made))


def _whole(made: np.ndarray, value: float = 0.0) -> bool:
    return bool((made == np.round(made)).all() and value == round(value))


def _spread(made: np.ndarray) -> float:
    """Standard deviation, 0 where there is but rounding."""
    spread = float(made.std())
    return spread if spread > ROUNDING * np.abs(made).max() else 0.0


def _draw_observed(
    ax: Axes, value: float, label: str, edges: np.ndarray, bounds: np.ndarray, made: np.ndarray
) -> None:
    """The line and the limits that show it, or an arrow at the edge."""
    low, high = edges[0], edges[-1]
    spread = (bounds[1] - bounds[0]) / 3.29
    spread = spread if spread > ROUNDING * np.abs(bounds).max() else _spread(made)
    gap = max(low - value, value - high)
    if spread == 0 or gap <= FAR * spread:
        ax.axvline(value, ymax=TOP, color=BLUE, linewidth=2.6, zorder=4, label=label)
        low, high = min(low, value), max(high, value)
        ax.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        return
    side, room, margin = (1 if value > high else -1), 0.25 * (high - low), 0.05 * (high - low)
    ax.set_xlim(low - (margin if side > 0 else room), high + (margin if side < 0 else room))
    place: dict[str, Any] = {
        "transform": ax.transAxes,
        "ha": "right" if side > 0 else "left",
        "va": "bottom",
        "color": BLUE,
    }
    ax.text(0.5 + 0.49 * side, 0.43, _number(value, made, value), **place)
    ax.plot(
        [0.5 + 0.38 * side, 0.5 + 0.49 * side], [0.4, 0.4], transform=ax.transAxes, color=BLUE,
        linewidth=2.6, marker=">" if side > 0 else "<", markevery=[1], markersize=11,
        label=f"{label}, far outside",
    )  # fmt: skip


def _label(value: float, made: np.ndarray, p_value: float | None) -> str:
    text = f"observed: {_number(value, made, value)}"
    if p_value is None:
        return text
    least = 1 / len(made)
    return f"{text} (p {f'< {least:.2g}' if p_value < least else f'= {p_value:.2g}'})"


def _interval(bounds: np.ndarray, made: np.ndarray, value: float) -> str:
    low, high = (_number(bound, made, value) for bound in bounds)
    return f"central 90 % of the replicates: {low} to {high}"


def _number(number: float, made: np.ndarray, value: float) -> str:
    """With the digits that tell the observed number and the replicates apart."""
    spread = _spread(made) or np.ptp(np.append(made, value)) or 1.0
    digits = int(np.clip(np.log10(max(abs(number) / spread, 1.0)) + 3, 3, 12))
    if number and not 1e-4 <= abs(number) < 1e9:
        return f"{number:.{digits}g}"
    return np.format_float_positional(number, precision=digits, fractional=False, trim="-")
