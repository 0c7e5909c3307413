"""Can the log-likelihoods be trusted, and what is the ELBO made of?

k-hat is the shape of the tail of a row's importance weights. Below 0.5 the row's log-likelihood is
good; above min(1 - 1/log10(S), 0.7), for S draws, k-hat alone gives no reason to trust it.

Source of the two bounds: Vehtari, Simpson, Gelman, Yao & Gabry (2024), arXiv:1507.02646.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ppl_vae.plots import style
from ppl_vae.plots.arrays import as_array

GOOD, USABLE = 0.5, 0.7
LOWEST, HIGHEST = -1.0, 3.0  # k-hat beyond these changes no verdict: drawn at the edge


def reliability(scores: Any, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw the k-hat of every row, in rising order, with the bounds 0.5 and 0.7.

    The upper bound is ``scores.attrs["k_hat_threshold"]`` where the frame has it: below 5,000 draws
    it is less than 0.7.

    The legend counts the rows on each side of the bounds. A k-hat of ``-inf`` (all draws of the
    row have the same weight) and a k-hat outside -1 to 3 are drawn at the edge. Rows without a
    k-hat (NaN) are counted in the legend alone.

    Args:
        scores: The frame of ``log_likelihood``, or (rows,) k-hat.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: If the values are not one number for each row.

    Example:
        >>> ax = reliability([0.1, 0.6, 0.9, -np.inf, np.nan])
        >>> [text.get_text() for text in ax.get_legend().get_texts()][0]
        'above 0.7: 1 row (20 %)'
    """
    k_hat = _as_k_hat(scores)
    usable = float(getattr(scores, "attrs", {}).get("k_hat_threshold", USABLE))
    good = min(GOOD, usable)
    known = np.sort(k_hat[~np.isnan(k_hat)])
    ax = style.axes_or_new(ax, 6.8, 4.6)
    order = np.arange(1, len(known) + 1)
    size = float(np.clip(600 / max(len(known), 1), 2.5, 7))
    for name, members, marker, colour in _groups(known, good, usable):
        label = f"{name}: {_rows_and_share(members.sum(), len(k_hat))}"
        heights = known[members].clip(LOWEST, HIGHEST)
        ax.plot(order[members], heights, marker, color=colour, markersize=size, label=label)
    unknown = len(k_hat) - len(known)
    if unknown:
        ax.plot([], [], " ", label=f"without k-hat: {_rows_and_share(unknown, len(k_hat))}")
    # The two numbers may stand close together: the lower one below its line, the other above.
    for bound, dashes, side in ((good, ":", "top"), (usable, "--", "bottom")):
        ax.axhline(bound, color=style.INK, linewidth=1, linestyle=dashes, zorder=0)
        ax.text(
            1.01,
            bound,
            f"{bound:.2g}",
            transform=ax.get_yaxis_transform(),
            va=side,
            size=style.LEGEND_SIZE,
        )
    _set_ticks(ax, known)
    title = "Reliability of the log-likelihood" if title is None else title
    style.label_axes(ax, title, "rows, in order of k-hat", "k-hat (lower is better)")
    style.legend_above(ax, marker_scale=5 / size)
    return ax


def elbo_bars(
    terms: Mapping[str, Any] | pd.DataFrame, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the ELBO of every site: the mean over rows, with one standard error to each side.

    A site outside the row plate has a hatched bar: its total divided by the number of rows,
    without an error.

    Args:
        terms: The frame of ``elbo_terms``, of all rows, or ``{site: (rows,)}``, in nats.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes, the first site on top and the sum of all sites at the bottom.

    Raises:
        ValueError: If there are no sites, or a site does not have one number for each row.

    Example:
        >>> ax = elbo_bars({"z": [-1.0, -3.0], "x": [-9.0, -7.0]})
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['z', 'x', 'together']
    """
    bars = _bars(terms)
    ax = style.axes_or_new(ax, 6.8, 1.4 + 0.55 * len(bars))
    for line, (_, mean, error, look) in enumerate(bars):
        end = mean if np.isfinite(mean) else 0.0
        ax.barh(line, end, height=0.62, edgecolor=style.INK, linewidth=0.8, **look)
        if np.isfinite(error):
            ax.errorbar(end, line, xerr=error, color="black", capsize=4, linewidth=1.5)
        _write_value(ax, line, mean, error)
    ax.axvline(0, color=style.INK, linewidth=0.8)
    ax.axhline(len(bars) - 1.5, color=style.PALE_GREY, linewidth=0.8)
    ax.margins(x=0.4)  # room for the numbers
    ax.set_yticks(range(len(bars)), labels=[name for name, *_ in bars])
    ax.invert_yaxis()
    measure = getattr(terms, "attrs", {}).get("measure", "ELBO")
    title = f"{measure[0].upper()}{measure[1:]} by site" if title is None else title
    x = "nats per row: mean ± standard error over rows (higher is better)"
    style.label_axes(ax, title, x, left=False)
    return ax


# k-hat


def _as_k_hat(scores: Any) -> np.ndarray:
    """Return k-hat, (rows,), of the frame of ``log_likelihood`` or of an array."""
    if isinstance(scores, pd.DataFrame):
        if "k_hat" not in scores:
            names = ", ".join(map(str, scores.columns))
            raise ValueError(
                f"scores: expected a column k_hat, as in the frame of log_likelihood, got {names}"
            )
        scores = scores["k_hat"]
    values = as_array(scores, "scores")
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"scores: expected a k-hat for each row, (rows,), got shape {values.shape}"
        )
    return values


def _groups(
    known: np.ndarray, good: float, usable: float
) -> list[tuple[str, np.ndarray, str, str]]:
    """Return the groups of rows, the worst first: name, members, marker and colour.

    Args:
        known: (rows,) k-hat without NaN.
        good: The lower bound.
        usable: The upper bound.

    Returns:
        The members are (rows,) of bool. The worst group is there even without members, so that
        the legend says that there are none.
    """
    equal_weights = np.isneginf(known)
    groups = [
        (f"above {usable:.2g}", known > usable, "^", style.ORANGE),
        (
            f"{good:.2g} to {usable:.2g}, usable",
            (known > good) & (known <= usable),
            "s",
            style.INK,
        ),
        (f"{good:.2g} or below, good", (known <= good) & ~equal_weights, "o", style.BLUE),
        ("-inf, all draws weigh the same", equal_weights, "v", style.GREY),
    ]
    return groups[:1] + [group for group in groups[1:] if group[1].any()]


def _rows_and_share(count: int, rows: int) -> str:
    """Return a number of rows as text, with its share of all rows."""
    return f"{count} row{'' if count == 1 else 's'} ({style.percent(count / rows)})"


def _set_ticks(ax: Axes, known: np.ndarray) -> None:
    """Keep both bounds in sight, and mark the edges where rows beyond are drawn.

    Args:
        ax: The axes.
        known: (rows,) k-hat without NaN, rising.
    """
    shown = np.append(known.clip(LOWEST, HIGHEST), [0.0, 1.0])
    low, high = shown.min(), shown.max()
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    beyond = ((LOWEST, "≤ ", known < LOWEST), (HIGHEST, "≥ ", known > HIGHEST))
    marks = {edge: mark for edge, mark, rows in beyond if rows.any()}
    ticks = MaxNLocator(5, steps=[1, 2.5, 5, 10]).tick_values(low, high)
    ax.set_yticks([tick for tick in ticks if low <= tick <= high])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{marks.get(tick, '')}{tick:g}"))
    ax.set_xlim(0.5 - 0.02 * len(known), 0.5 + 1.02 * max(len(known), 1))
    style.whole_ticks(ax.xaxis)
    if not len(known):
        ax.set_xticks([])


# The ELBO


def _bars(terms: Mapping[str, Any] | pd.DataFrame) -> list[tuple[str, float, float, Any]]:
    """Return name, mean, standard error and look of each bar, from top to bottom."""
    sites = {str(name): as_array(values, f"terms[{name!r}]") for name, values in terms.items()}
    shapes = sorted({values.shape for values in sites.values()})
    if len(shapes) != 1 or len(shapes[0]) != 1 or 0 in shapes[0]:
        raise ValueError(f"terms: expected sites with a number for each row, got shapes {shapes}")
    (count,), outside = shapes[0], getattr(terms, "attrs", {}).get("global", {})
    pale = {"color": style.PALE_BLUE}
    bars = [(name, *_mean_and_error(rows), pale) for name, rows in sites.items()]
    for name, total in outside.items():
        label = f"{name}, outside the\nrow plate: total / {count} rows"
        bars.append((label, total / count, np.nan, {"color": "white", "hatch": "////"}))
    together = np.sum(list(sites.values()), axis=0) + sum(outside.values()) / count
    return [*bars, ("together", *_mean_and_error(together), {"color": style.GREY})]


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean over rows and its standard error, which is NaN for one row."""
    with np.errstate(invalid="ignore"):  # -inf is a row that is impossible under the model
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        return float(values.mean()), float(error)


def _write_value(ax: Axes, line: int, mean: float, error: float) -> None:
    """Write the mean and its standard error beside the end of the bar."""
    text = f"{mean:.2f}" if np.isfinite(mean) else f"{mean}, no bar"
    side = -1 if mean < 0 else 1
    end = mean + side * np.nan_to_num(error) if np.isfinite(mean) else 0.0
    ax.annotate(
        text + (f" ± {error:.2f}" if np.isfinite(error) else ""),
        (end, line), xytext=(7 * side, 0), textcoords="offset points",
        ha="left" if side > 0 else "right", va="center", fontsize=style.LEGEND_SIZE,
    )  # fmt: skip
