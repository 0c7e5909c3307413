"""How far the ranks of true latents are from uniform: ECDF differences with a simultaneous band.

    d(k) = share of rows whose rank is below k - k / (S + 1)       k = 1 ... S

Source: Sailynoja, Burkner & Vehtari (2022), arXiv:2103.10522, section 3 (ECDF difference plots).
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ppl_vae.arguments import check_count
from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import (
    BAND,
    GREY,
    INK,
    ORANGE,
    SERIES,
    axes_or_new,
    label_axes,
    legend_above,
    shorten,
)
from ppl_vae.uniform_counts import RankCounts

NAMED = 5  # lines with a colour and a name of their own
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def rank_differences(
    ranks: Any,
    num_draws: int,
    *,
    flagged: Any = None,
    level: float = 0.95,
    ax: Axes | None = None,
    title: str = "Ranks of the true latents among the guide's draws",
) -> Axes:
    """Draw, for each quantity, the share of rows whose rank is below k, less the expected share.

    The lines of a calibrated guide stay in the band: all of them, at all k, with probability
    ``level``. The band is that of the lines of most rows; lines of fewer rows may leave it. A line
    that is above 0 first and below it later says that the draws are too narrow, the other way round
    too wide; one that is below 0 throughout, that they lie too low, above it too high.

    Args:
        ranks: (rows,) or (rows, quantities) of whole numbers from 0 to ``num_draws``; a frame has
            names. Missing ones are left out.
        num_draws: S, draws of the guide for each row.
        flagged: (quantities,) of bool, which lines have a colour; those outside the band by
            default. The first five have names.
        level: Probability that no line of a calibrated guide leaves the band.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes, with a line for each quantity that has ranks.

    Raises:
        ValueError: If ranks are no whole numbers from 0 to S, or ``level`` is not between 0 and 1.

    Example:
        >>> ax = rank_differences([0, 1, 2, 3] * 50, 3)
        >>> bool(abs(ax.lines[0].get_ydata()).max() < 0.01)
        True
    """
    check_count("num_draws", num_draws)
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    values, names = _ranks(ranks, num_draws)
    rows = np.isfinite(values).sum(0)
    used = np.flatnonzero(rows)
    counts = {n: RankCounts(int(n), num_draws) for n in np.unique(rows[used])}
    own_level = 1 - (1 - level) / len(used)  # Bonferroni over the lines
    bands = {n: each.band(own_level) for n, each in counts.items()}
    ax = axes_or_new(ax, 6.8, 4.8)
    lines, outside = [], np.zeros(values.shape[1], dtype=bool)
    for place in used:
        each, n = counts[rows[place]], rows[place]
        below = each.below(values[np.isfinite(values[:, place]), place])
        low, high = bands[n]
        outside[place] = bool(((below < low) | (below > high)).any())
        lines.append((int(place), each.shares, below / n - each.shares))
    marked = outside if flagged is None else np.asarray(flagged, dtype=bool)
    if marked.shape != outside.shape:
        raise ValueError(
            f"flagged: expected one value for each of {len(outside)} quantities, got shape "
            f"{marked.shape}"
        )
    _band(ax, counts, bands, level)
    _lines(ax, lines, marked, names)
    ax.axhline(0, color=INK, linewidth=1)
    ax.set_xlim(0, 1)
    x = (
        "rank k of the true latent, as a share of the draws\n"
        "up, then down: too narrow · down, then up: too wide\n"
        "below 0: too low · above 0: too high"
    )
    label_axes(ax, title, x, "share of rows below k, less expected")
    legend_above(ax)
    return ax


def _ranks(ranks: Any, num_draws: int) -> tuple[np.ndarray, list[str]]:
    """Return ranks as (rows, quantities), NaN where there is none, and the names of quantities."""
    names = [str(name) for name in ranks.columns] if isinstance(ranks, pd.DataFrame) else []
    if isinstance(ranks, pd.DataFrame):
        ranks = ranks.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    values = as_array(ranks, "ranks")
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not np.isfinite(values).any():
        raise ValueError(f"ranks: expected rows x quantities, got shape {values.shape}")
    found = values[np.isfinite(values)]
    wrong = found[(found != np.floor(found)) | (found < 0) | (found > num_draws)]
    if len(wrong):
        raise ValueError(f"ranks: expected whole numbers from 0 to {num_draws}, got {wrong[0]:g}")
    return values, names or [str(place) for place in range(values.shape[1])]


def _band(ax: Axes, counts: dict[Any, Any], bands: dict[Any, Any], level: float) -> None:
    """Draw the band of the lines of most rows, which is the narrowest."""
    n = max(counts)
    shares = counts[n].shares
    x = np.concatenate([[0.0], shares, [1.0]])
    low, high = (np.concatenate([[0.0], bound / n - shares, [0.0]]) for bound in bands[n])
    label = f"range of chance, {100 * level:g} %"
    ax.fill_between(x, low, high, color=BAND, linewidth=0, zorder=0, label=label)


def _lines(
    ax: Axes,
    lines: list[tuple[int, np.ndarray, np.ndarray]],
    marked: np.ndarray,
    names: list[str],
) -> None:
    """Draw the lines: grey ones first, then those that are marked, the first few with names."""
    quiet = [line for line in lines if not marked[line[0]]]
    loud = [line for line in lines if marked[line[0]]]
    for number, (_, x, y) in enumerate(quiet):
        label = f"{len(quiet)} not flagged" if number == 0 else None
        ax.plot(x, y, color=GREY, linewidth=0.8, alpha=0.7, label=label)
    for number, (_, x, y) in reversed(list(enumerate(loud))):
        if number >= NAMED:
            label = f"{len(loud) - NAMED} more flagged" if number == NAMED else None
            ax.plot(x, y, color=ORANGE, linewidth=0.9, alpha=0.55, label=label)
    for number, (place, x, y) in enumerate(loud[:NAMED]):
        (line,) = ax.plot(x, y, linewidth=1.8, label=shorten(names[place], 34))
        line.set(color=SERIES[number][0], linestyle=STYLES[number])
