"""Which numbers an axis shows, and bins over them."""

import numpy as np

ROUNDING = 1e-12  # differences of numbers that are the same


def in_sight(*groups: np.ndarray) -> tuple[float, float]:
    """Lowest and highest number to draw: all, or the central 99 % and some where others are far."""
    marks = np.array([np.quantile(values, [0, 0.005, 0.995, 1]) for values in groups])
    lowest, low = marks[:, :2].min(0)
    high, highest = marks[:, 2:].max(0)
    span = high - low
    if span <= ROUNDING * max(abs(low), abs(high)):
        return float(low), float(low)
    return (
        lowest if lowest >= low - 0.6 * span else low - 0.25 * span,
        highest if highest <= high + 0.6 * span else high + 0.25 * span,
    )


def even_edges(low: float, high: float, most: int, whole: bool) -> np.ndarray:
    """Edges of bins of one width; of whole numbers, each bin holds as many as any other."""
    if not whole:
        return np.linspace(low, high, most + 1)
    low, high = np.floor(low), np.ceil(high)
    width = np.ceil((high - low + 1) / most)
    return np.asarray(low - 0.5 + width * np.arange(np.ceil((high - low + 1) / width) + 1))
