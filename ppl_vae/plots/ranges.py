"""The range of numbers that an axis shows, and bins of equal width over that range."""

import numpy as np

ROUNDING = 1e-12  # relative differences below are rounding: the numbers are equal


def is_rounding(spread: float, *values: np.ndarray | float) -> bool:
    """Return whether a spread is no more than the rounding error of numbers that are equal.

    Args:
        spread: Standard deviation or range of the values.
        values: The values, which give the size of the rounding error.

    Example:
        >>> is_rounding(0.1 + 0.2 - 0.3, 0.3)
        True
    """
    return bool(spread <= ROUNDING * max(float(np.abs(group).max()) for group in values))


def range_in_sight(*groups: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest number that an axis should show.

    The axis shows all values where that leaves most of its length to the central 99 % of them.
    Where a few values are far away, they are left out at their end, so that they do not press the
    others into one stroke.

    Args:
        groups: Arrays of numbers, (values,) each, without NaN; every group must be in sight.

    Example:
        >>> range_in_sight(np.array([0.0, 1.0, 2.0]))
        (0.0, 2.0)
    """
    marks = np.array([np.quantile(values, [0, 0.005, 0.995, 1]) for values in groups])
    lowest, low = marks[:, :2].min(0)
    high, highest = marks[:, 2:].max(0)
    span = high - low
    if is_rounding(span, low, high):
        return float(low), float(low)
    return (
        float(lowest if lowest >= low - 0.6 * span else low - 0.25 * span),
        float(highest if highest <= high + 0.6 * span else high + 0.25 * span),
    )


def even_edges(low: float, high: float, most: int, whole: bool) -> np.ndarray:
    """Return the edges of bins of equal width.

    Args:
        low: The lowest number to be binned.
        high: The highest number to be binned.
        most: Number of bins; of whole numbers, the number of bins at most.
        whole: Whether the numbers are whole: then every bin holds as many whole numbers as any
            other, and edges lie halfway between whole numbers.

    Returns:
        (bins + 1,) edges, rising.

    Example:
        >>> even_edges(0, 5, 3, whole=True)
        array([-0.5,  1.5,  3.5,  5.5])
    """
    if not whole:
        return np.linspace(low, high, most + 1)
    low, high = np.floor(low), np.ceil(high)
    width = np.ceil((high - low + 1) / most)
    return np.asarray(low - 0.5 + width * np.arange(np.ceil((high - low + 1) / width) + 1))
