"""Can the log-likelihoods be trusted, and what is the ELBO made of.

    k-hat   shape of the tail of a row's importance weights: below 0.5 good, above 0.7 not reliable

Source of the two bounds: Vehtari, Simpson, Gelman, Yao & Gabry (2024), arXiv:1507.02646.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ppl_vae.plots.arrays import as_array

GOOD, USABLE = 0.5, 0.7
LOWEST, HIGHEST = -1.0, 3.0  # k-hat beyond these changes no verdict: drawn at the edge
BLUE, ORANGE, PALE_BLUE = "#0b5394", "#d55e00", "#8db9e2"


def reliability(scores: Any, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw the k-hat of every row, in rising order, with the bounds 0.5 and 0.7.

    The legend counts the rows on each side. Rows of k-hat ``-inf`` (all draws weigh the same) and
    of values beyond -1 and 3 are drawn at the edge; rows without a k-hat (NaN) are counted alone.

    Args:
        scores: The frame of ``log_likelihood``, or (rows,) k-hat.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes.

    Raises:
        ValueError: Where the values are not one number a row.

    Example:
        >>> ax = reliability([0.1, 0.6, 0.9, -np.inf, np.nan])
        >>> [text.get_text() for text in ax.get_legend().get_texts()][0]
        'above 0.7, not reliable: 1 row (20 %)'
    """
    k_hat = _as_k_hat(scores)
    known = np.sort(k_hat[~np.isnan(k_hat)])
    ax = ax or plt.subplots(figsize=(6.8, 4.4), layout="constrained")[1]
    place = np.arange(1, len(known) + 1)
    size = float(np.clip(600 / max(len(known), 1), 2.5, 7))
    for name, chosen, marker, colour in _groups(known):
        label = f"{name}: {_share(chosen.sum(), len(k_hat))}"
        shown = known[chosen].clip(LOWEST, HIGHEST)
        ax.plot(place[chosen], shown, marker, color=colour, markersize=size, label=label)
    if len(known) < len(k_hat):
        ax.plot([], [], " ", label=f"without k-hat: {_share(len(k_hat) - len(known), len(k_hat))}")
    for bound, style in ((GOOD, ":"), (USABLE, "--")):
        ax.axhline(bound, color="0.3", linewidth=1, linestyle=style, zorder=0)
        ax.text(1.01, bound, str(bound), transform=ax.get_yaxis_transform(), va="center", size=8)
    _scale(ax, known)
    ax.set_title("Reliability of the log-likelihood" if title is None else title)
    ax.set_xlabel("rows, in order of k-hat")
    ax.set_ylabel("k-hat (lower is better)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left", markerscale=5 / size)
    return ax


def elbo_bars(
    terms: Mapping[str, Any] | pd.DataFrame, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the ELBO of every site: the mean over rows, with one standard error to each side.

    A site outside the row plate is hatched: its total divided by the rows, without an error.

    Args:
        terms: The frame of ``elbo_terms``, of all rows, or ``{site: (rows,)}``, in nats.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes, the first site on top and all of them together at the bottom.

    Raises:
        ValueError: Where there are no sites, or not one number for each row.

    Example:
        >>> ax = elbo_bars({"z": [-1.0, -3.0], "x": [-9.0, -7.0]})
        >>> [tick.get_text() for tick in ax.get_yticklabels()]
        ['z', 'x', 'together']
    """
    bars = _bars(terms)
    ax = ax or plt.subplots(figsize=(6.8, 1.4 + 0.55 * len(bars)), layout="constrained")[1]
    for place, (_, mean, error, look) in enumerate(bars):
        end = mean if np.isfinite(mean) else 0.0
        ax.barh(place, end, height=0.62, edgecolor="0.2", linewidth=0.8, **look)
        if np.isfinite(error):
            ax.errorbar(end, place, xerr=error, color="black", capsize=4, linewidth=1.5)
        _write_value(ax, place, mean, error)
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.axhline(len(bars) - 1.5, color="0.7", linewidth=0.8)
    ax.margins(x=0.4)  # room for the numbers
    ax.set_yticks(range(len(bars)), labels=[name for name, *_ in bars])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_title("ELBO by site" if title is None else title)
    ax.set_xlabel("nats per row: mean ± standard error over rows (higher is better)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


# k-hat


def _as_k_hat(scores: Any) -> np.ndarray:
    """(rows,) of a frame or an array."""
    if isinstance(scores, pd.DataFrame):
        if "k_hat" not in scores:
            names = ", ".join(map(str, scores.columns))
            raise ValueError(f"scores: expected a column k_hat, as log_likelihood's, got {names}")
        scores = scores["k_hat"]
    values = as_array(scores, "scores")
    if values.ndim != 1 or not len(values):
        raise ValueError(f"scores: expected a k-hat for each row, (rows,), got {values.shape}")
    return values


def _groups(known: np.ndarray) -> list[tuple[str, np.ndarray, str, str]]:
    """Name, members, marker and colour, the worst first; the worst stands there without members."""
    exact = np.isneginf(known)
    groups = [
        ("above 0.7, not reliable", known > USABLE, "^", ORANGE),
        ("0.5 to 0.7, usable", (known > GOOD) & (known <= USABLE), "s", "0.25"),
        ("0.5 or below, good", (known <= GOOD) & ~exact, "o", BLUE),
        ("-inf, all draws weigh the same", exact, "v", "0.55"),
    ]
    return groups[:1] + [group for group in groups[1:] if group[1].any()]


def _share(count: int, rows: int) -> str:
    percent = "under 1" if 0 < 100 * count < rows else f"{100 * count / rows:.0f}"
    return f"{count} row{'' if count == 1 else 's'} ({percent} %)"


def _scale(ax: Axes, known: np.ndarray) -> None:
    """Both bounds in sight, room for the legend above, and the edges named where rows lie there."""
    shown = np.append(known.clip(LOWEST, HIGHEST), [0.0, 1.0])
    low, high = shown.min(), shown.max()
    ax.set_ylim(low - 0.05 * (high - low), high + 0.5 * (high - low))
    edges = {LOWEST: "≤ ", HIGHEST: "≥ "}
    beyond = {LOWEST: (known < LOWEST).any(), HIGHEST: (known > HIGHEST).any()}
    named = [edge for edge in edges if beyond[edge]]
    between = MaxNLocator(5, steps=[1, 2.5, 5, 10]).tick_values(low, high)
    ax.set_yticks([tick for tick in between if low <= tick <= high])
    names = FuncFormatter(lambda tick, _: f"{edges[tick] if tick in named else ''}{tick:g}")
    ax.yaxis.set_major_formatter(names)
    ax.set_xlim(0.5 - 0.02 * len(known), 0.5 + 1.02 * max(len(known), 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if not len(known):
        ax.set_xticks([])


# The ELBO


def _bars(terms: Mapping[str, Any] | pd.DataFrame) -> list[tuple[str, float, float, Any]]:
    """Name, mean, standard error and look, from top to bottom."""
    sites = {str(name): as_array(values, f"terms[{name!r}]") for name, values in terms.items()}
    shapes = sorted({values.shape for values in sites.values()})
    if len(shapes) != 1 or len(shapes[0]) != 1 or 0 in shapes[0]:
        raise ValueError(f"terms: expected sites with a number for each row, got shapes {shapes}")
    (count,), outside = shapes[0], getattr(terms, "attrs", {}).get("global", {})
    bars = [(name, *_mean(values), {"color": PALE_BLUE}) for name, values in sites.items()]
    for name, total in outside.items():
        label = f"{name}, outside the\nrow plate: total / {count} rows"
        bars.append((label, total / count, np.nan, {"color": "white", "hatch": "////"}))
    together = np.sum(list(sites.values()), axis=0) + sum(outside.values()) / count
    return [*bars, ("together", *_mean(together), {"color": "0.6"})]


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean over rows and its standard error, NaN for one row."""
    with np.errstate(invalid="ignore"):  # -inf: a row that cannot be
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        return float(values.mean()), float(error)


def _write_value(ax: Axes, place: int, mean: float, error: float) -> None:
    """The number beside the end of its bar."""
    text = f"{mean:.2f}" if np.isfinite(mean) else f"{mean}, no bar"
    side = -1 if mean < 0 else 1
    end = mean + side * np.nan_to_num(error) if np.isfinite(mean) else 0.0
    ax.annotate(
        text + (f" ± {error:.2f}" if np.isfinite(error) else ""),
        (end, place),
        xytext=(7 * side, 0),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="center",
        fontsize=9,
    )
