"""Are the predictions as wide as they should be: probability integral transforms (PIT).

    u = F(x), F the predicted distribution function of the cell, x what was observed there
    of a calibrated prediction u is uniform; counts need P(X < x) + v P(X = x), v ~ U(0, 1)

A band for a histogram of n such rows in B bins has counts c_b ∈ [l, h] for *all* b together with
probability ``level``. With X_b ~ Poisson(n / B),

    P(l <= c_b <= h, all b) = P(l <= X_b <= h, all b, Σ X_b = n) / P(Poisson(n) = n)

whose numerator is a coefficient of the polynomial (Σ_{c=l..h} P(X = c) z^c)^B: exact, no draws.

Sources: Czado, Gneiting & Held (2009), Predictive model assessment for count data, Biometrics
65(4) (randomized PIT, histograms); Säilynoja, Bürkner & Vehtari (2022), arXiv:2103.10522
(simultaneous bands); Levin (1981), A representation for multinomial cumulative distribution
functions, Annals of Statistics 9(5).
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from ppl_vae.plots.arrays import as_array

ORANGE, PALE_BLUE = "#d55e00", "#8db9e2"


def pit_histogram(
    pit: Any,
    *,
    bins: int = 20,
    level: float = 0.95,
    features: int = 1,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw PITs as bars, 1 where calibrated, and the band that holds all bars by chance.

    A hump: predictions too wide. A valley: too narrow. A slope: biased. PITs of predictions that
    have seen the row itself (its latents drawn given the row) lean to a hump.

    Args:
        pit: (rows,) numbers from 0 to 1, of one feature; NaN are left out.
        bins: Number of bars.
        level: Probability that a calibrated prediction has no bar outside the band.
        features: Number of such histograms that are looked at; the probability is that none of
            them has a bar outside (Bonferroni).
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes; heights are counts divided by those expected.

    Raises:
        ValueError: Where ``pit`` is not a number from 0 to 1 for each row, or a setting is
            outside its range.

    Example:
        >>> ax = pit_histogram([0.1, 0.3, 0.6, 0.9], bins=2)
        >>> [float(bar.get_height()) for bar in ax.containers[0]]
        [1.0, 1.0]
    """
    values = as_pit(pit, 1)[:, 0]
    values = values[~np.isnan(values)]
    if features < 1:
        raise ValueError(f"features: expected 1 or more, got {features}")
    low, high = simultaneous_band(len(values), bins, 1 - (1 - level) / features)
    counts, edges = np.histogram(values, bins, (0, 1))
    ax = ax or plt.subplots(figsize=(6.8, 4.4), layout="constrained")[1]
    _draw_bars(ax, counts, edges, (counts < low) | (counts > high))
    among = "" if features == 1 else f" of all {features} features"
    unit = bins / len(values)
    chance = f"all bars{among} lie here in {100 * level:g} % of calibrated models"
    ax.axhspan(low * unit, high * unit, color="0.9", zorder=0, label=chance)
    for bound in (low * unit, high * unit):
        ax.axhline(bound, color="0.25", linewidth=1, linestyle="--")
    ax.axhline(1, color="0.25", linewidth=1)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.45 * unit * max(counts.max(), high))  # room for the legend
    ax.set_title("Calibration of the predictions" if title is None else title)
    ax.set_xlabel(
        "PIT: predicted probability of a smaller value than the observed one\n"
        "hump: predictions too wide · valley: too narrow · slope: biased"
    )
    ax.set_ylabel("rows, as a multiple of those expected")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left")
    return ax


# Counts of rows that chance allows


def simultaneous_band(count: int, bins: int, level: float = 0.95) -> tuple[int, int]:
    """Lowest and highest count of a bin: all bins of uniform rows lie there together.

    Of the bands that cut equal tails off each bin, the narrowest that is wide enough; counts are
    whole, so the probability is ``level`` or a little more.

    Args:
        count: Rows.
        bins: Bins of one width.
        level: Probability that no bin is outside.

    Returns:
        (low, high), rows.

    Raises:
        ValueError: Where there are no rows, fewer than 2 bins, or ``level`` is not between 0 and 1.

    Example:
        >>> simultaneous_band(1000, 20)
        (31, 72)
    """
    if count < 1 or bins < 2 or not 0 < level < 1:
        raise ValueError(
            "expected 1 row, 2 bins or more and a level between 0 and 1, got "
            f"count {count}, bins {bins}, level {level}"
        )
    hits, mass = binomial(count, 1 / bins)
    wide, narrow = (1 - level) / (2 * bins), 0.25  # tails; Bonferroni's band is wide enough
    for _ in range(40):
        tail = (wide * narrow) ** 0.5
        if _all_inside(count, bins, *central(hits, mass, tail)) >= level:
            wide = tail
        else:
            narrow = tail
    return central(hits, mass, wide)


def _all_inside(count: int, bins: int, low: int, high: int) -> float:
    """Probability that each bin of uniform rows holds from low to high of them (module head)."""
    if bins * low > count or bins * high < count:
        return 0.0
    mean, held = count / bins, np.arange(low, high + 1)
    poisson = np.exp(held * np.log(mean) - mean - _log_factorial(held))
    size = 2 ** int(np.ceil(np.log2(bins * (high - low) + 2)))
    together = np.fft.irfft(np.fft.rfft(poisson, size) ** bins, size)[count - bins * low]
    whole = count * np.log(count) - count - _log_factorial(np.array(count))
    return float(together / np.exp(whole))


def binomial(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts and their probabilities, save those that are beyond any table."""
    middle, reach = count * share, 12 * (count * share * (1 - share)) ** 0.5 + 12
    hits = np.arange(max(0, int(middle - reach)), min(count, int(middle + reach) + 1) + 1)
    ways = _log_factorial(np.array(count)) - _log_factorial(hits) - _log_factorial(count - hits)
    return hits, np.exp(ways + hits * np.log(share) + (count - hits) * np.log1p(-share))


def central(hits: np.ndarray, mass: np.ndarray, tail: float) -> tuple[int, int]:
    """Lowest and highest count, with at most ``tail`` beyond on each side."""
    low = hits[np.argmax(mass.cumsum() > tail)]
    high = hits[::-1][np.argmax(mass[::-1].cumsum() > tail)]
    return int(low), int(high)


def _log_factorial(counts: np.ndarray) -> np.ndarray:
    return torch.lgamma(torch.as_tensor(counts, dtype=torch.float64) + 1).numpy()


# What comes in


def as_pit(pit: Any, dimensions: int) -> np.ndarray:
    """(rows, features), from 0 to 1 or NaN."""
    values = as_array(pit, "pit")
    if not 1 <= values.ndim <= dimensions or np.isnan(values).all():
        wanted = "(rows,)" if dimensions == 1 else "(rows,) or (rows, features)"
        got = "NaN alone" if values.size and np.isnan(values).all() else f"shape {values.shape}"
        raise ValueError(f"pit: expected {wanted}, got {got}")
    wrong = values[(values < 0) | (values > 1)]
    if len(wrong):
        raise ValueError(
            f"pit: expected numbers from 0 to 1, got {wrong[0]:g} ({len(wrong)} are outside)"
        )
    return values.reshape(len(values), -1)


# What is drawn


def _draw_bars(ax: Axes, counts: np.ndarray, edges: np.ndarray, outside: np.ndarray) -> None:
    """Bars inside the band, and those outside in another colour and hatched."""
    look = {"width": np.diff(edges)[0], "align": "edge", "edgecolor": "0.2", "linewidth": 0.8}
    heights = counts * len(counts) / counts.sum()
    ax.bar(edges[:-1][~outside], heights[~outside], color=PALE_BLUE, **look)
    if outside.any():
        label = f"{outside.sum()} of {len(counts)} bars outside"
        ax.bar(
            edges[:-1][outside], heights[outside], color=ORANGE, hatch="///", label=label, **look
        )
