"""Are the predictions as wide as they should be? Probability integral transforms (PIT).

    u = F(x)                            F the predicted distribution function of a cell, x observed
    u = P(X < x) + v P(X = x)           for counts, v ~ Uniform(0, 1)

The u of a calibrated prediction are uniform. In a histogram of n uniform rows in B bins, the band
from l to h holds the counts c_b of *all* bins together with probability ``level``. Counts of
uniform rows are multinomial, that is, independent Poisson counts X_b ~ Poisson(n / B) given that
their sum is n:

    P(l <= c_b <= h, all b) = P(l <= X_b <= h, all b, Σ X_b = n) / P(Poisson(n) = n)

The numerator is a coefficient of the polynomial (Σ_{c=l..h} P(X = c) z^c)^B, which a Fourier
transform gives exactly, without random draws.

Sources: Czado, Gneiting & Held (2009), Predictive model assessment for count data, Biometrics
65(4) (randomized PIT, histograms); Säilynoja, Bürkner & Vehtari (2022), arXiv:2103.10522
(simultaneous bands); Levin (1981), A representation for multinomial cumulative distribution
functions, Annals of Statistics 9(5).
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ppl_vae.arguments import check_count
from ppl_vae.plots.arrays import as_array
from ppl_vae.plots.style import BAND, INK, ORANGE, PALE_BLUE, axes_or_new, label_axes, legend_above
from ppl_vae.uniform_counts import binomial_mass, central_counts, log_factorial


def pit_histogram(
    pit: Any,
    *,
    bins: int = 20,
    level: float = 0.95,
    features: int = 1,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a histogram of PITs, and the band that holds all bars of a calibrated model.

    Bars of a calibrated model are close to 1. A hump means that predictions are too wide, a valley
    that they are too narrow, a slope that they are biased. PITs of predictions that were made from
    the row itself (latents drawn from the guide given the row) lean to a hump.

    Args:
        pit: (rows,) numbers from 0 to 1, of one feature (``PredictiveCheck.pit``); NaN are left
            out.
        bins: Number of bars.
        level: Probability that a calibrated prediction has no bar outside the band.
        features: Number of features whose histograms the reader looks at. The band is widened
            (Bonferroni), so that with probability ``level`` none of them has a bar outside.
        ax: Where to draw; a new figure by default.
        title: Title of the picture.

    Returns:
        The axes; the height of a bar is its count divided by the expected count.

    Raises:
        ValueError: If ``pit`` is not a number from 0 to 1 for each row, or a setting is
            outside its range.

    Example:
        >>> ax = pit_histogram([0.1, 0.3, 0.6, 0.9], bins=2)
        >>> [float(bar.get_height()) for bar in ax.containers[0]]
        [1.0, 1.0]
    """
    values = as_pit(pit, 1)[:, 0]
    values = values[~np.isnan(values)]
    check_count("features", features)
    low, high = simultaneous_band(len(values), bins, 1 - (1 - level) / features)
    counts, edges = np.histogram(values, bins, (0, 1))
    ax = axes_or_new(ax, 6.8, 4.4)
    _draw_bars(ax, counts, edges, (counts < low) | (counts > high))
    among = "" if features == 1 else f" of all {features} features"
    unit = bins / len(values)
    chance = f"all bars{among} lie here in {100 * level:g} % of calibrated models"
    ax.axhspan(low * unit, high * unit, color=BAND, zorder=0, label=chance)
    for bound in (low * unit, high * unit):
        ax.axhline(bound, color=INK, linewidth=1, linestyle="--")
    ax.axhline(1, color=INK, linewidth=1)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.05 * unit * max(counts.max(), high))
    title = "Calibration of the predictions" if title is None else title
    x = (
        "PIT: predicted probability of a smaller value than the observed one\n"
        "hump: predictions too wide · valley: too narrow · slope: biased"
    )
    label_axes(ax, title, x, "rows, as a multiple of those expected")
    legend_above(ax)
    return ax


# Counts that a calibrated model has by chance


def simultaneous_band(count: int, bins: int, level: float = 0.95) -> tuple[int, int]:
    """Return the lowest and the highest count that all bins of uniform rows have together.

    The band cuts the same tail probability off each bin. Bisection finds the largest tail for
    which the probability that no bin is outside is still ``level``; because counts are whole, the
    probability is ``level`` or a little more.

    Args:
        count: Number of rows.
        bins: Number of bins, all of one width.
        level: Probability that no bin is outside.

    Returns:
        (low, high), numbers of rows.

    Raises:
        ValueError: If there are no rows, fewer than 2 bins, or ``level`` is not between 0 and 1.

    Example:
        >>> simultaneous_band(1000, 20)
        (31, 72)
    """
    if count < 1 or bins < 2 or not 0 < level < 1:
        raise ValueError(
            "expected 1 row, 2 bins or more and a level between 0 and 1, got "
            f"count {count}, bins {bins}, level {level}"
        )
    hits, mass = binomial_mass(count, 1 / bins)
    # Tails: the first is Bonferroni's, surely wide enough.
    wide, narrow = (1 - level) / (2 * bins), 0.25
    for _ in range(40):
        tail = (wide * narrow) ** 0.5
        if _all_inside(count, bins, *central_counts(hits, mass, tail)) >= level:
            wide = tail
        else:
            narrow = tail
    return central_counts(hits, mass, wide)


def _all_inside(count: int, bins: int, low: int, high: int) -> float:
    """Return the probability that each bin of uniform rows holds from ``low`` to ``high`` rows.

    The formula is at the head of the module. Coefficients are counted from ``low``, so that the
    coefficient of z^count is at position ``count - bins * low``.

    Args:
        count: Number of rows.
        bins: Number of bins, all of one width.
        low: Smallest count.
        high: Largest count.
    """
    if bins * low > count or bins * high < count:
        return 0.0
    mean, counts = count / bins, np.arange(low, high + 1)
    poisson = np.exp(counts * np.log(mean) - mean - log_factorial(counts))
    size = 2 ** int(np.ceil(np.log2(bins * (high - low) + 2)))
    numerator = np.fft.irfft(np.fft.rfft(poisson, size) ** bins, size)[count - bins * low]
    log_denominator = count * np.log(count) - count - log_factorial(np.array(count))
    return float(numerator / np.exp(log_denominator))


# Arguments


def as_pit(pit: Any, dimensions: int) -> np.ndarray:
    """Return PITs as (rows, features), each from 0 to 1 or NaN.

    Args:
        pit: (rows,) or (rows, features).
        dimensions: 1 where only (rows,) is accepted, otherwise 2.

    Raises:
        ValueError: On another shape, a number outside 0 to 1, or nothing but NaN.
    """
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


# Bars


def _draw_bars(ax: Axes, counts: np.ndarray, edges: np.ndarray, outside: np.ndarray) -> None:
    """Draw the bars; bars outside the band have another colour and are hatched.

    Args:
        ax: The axes.
        counts: (bins,) rows in each bin.
        edges: (bins + 1,) edges of the bins.
        outside: (bins,) of bool.
    """
    look = {"width": np.diff(edges)[0], "align": "edge", "edgecolor": INK, "linewidth": 0.8}
    heights = counts * len(counts) / counts.sum()
    ax.bar(edges[:-1][~outside], heights[~outside], color=PALE_BLUE, **look)
    if outside.any():
        label = f"{outside.sum()} of {len(counts)} bars outside"
        look = {**look, "color": ORANGE, "hatch": "///", "label": label}
        ax.bar(edges[:-1][outside], heights[outside], **look)
