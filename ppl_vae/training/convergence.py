"""Whether a learning curve still rises, judged from its own noise.

    rise   b n                                          b the slope of a line through the last third
    error  n sd(b) sqrt((1 + r) / (1 - r))              r the lag-1 autocorrelation around the line

The last third of the epochs has n of them. The ELBO of an epoch is noisy, and a curve that still
rises slowly looks flat by eye; a line through many epochs shows a rise that is far smaller than
the noise of one epoch. Neighbouring epochs are alike where the noise comes from slowly moving
weights, and then they say less than independent ones would: the factor with r widens the error.

Source: Bence (1995), Analysis of short time series: correcting for autocorrelation, Ecology 76.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST = 24  # epochs below which nothing is said: the last third then has fewer than 8
SURE = 3.0  # standard errors by which a rise must differ from 0
SMALL = 0.01  # nats per row; a rise over a third of the fit that no reader would wait for
LARGE = 0.5  # nats per row; noise that could hide such a rise says nothing


@dataclass(frozen=True)
class Trend:
    """The rise of a curve over its last epochs.

    Attributes:
        rise: Slope of the fitted line times the number of epochs, in nats per row.
        error: Standard error of ``rise``, in nats per row.
        epochs: Number of epochs that the line is fitted to.
    """

    rise: float
    error: float
    epochs: int

    @classmethod
    def of(cls, curve: npt.ArrayLike) -> Trend:
        """Fit a line by least squares.

        Args:
            curve: (epochs,), finite, at least 4.

        Example:
            >>> Trend.of([0.0, 1.0, 2.0, 3.0, 4.0]).rise
            5.0
        """
        values = np.asarray(curve, dtype=float)
        count = len(values)
        time = np.arange(count) - (count - 1) / 2
        slope = float(time @ values / (time @ time))
        rest = values - values.mean() - slope * time
        variance = float(rest @ rest) / (count - 2)
        error = np.sqrt(variance / (time @ time) * _inflation(rest))
        return cls(slope * count, float(error) * count, count)

    @property
    def rises(self) -> bool:
        """Whether the curve rises for sure, and by more than a negligible amount."""
        return self.rise > max(SURE * self.error, SMALL)


def has_converged(curve: npt.ArrayLike) -> bool | None:
    """Return whether a curve of ELBOs has stopped rising.

    Args:
        curve: ELBO of each epoch, (epochs,), in nats per row.

    Returns:
        False where the curve rises over the last third of its epochs, and does not fall over the
        last sixth. ``None`` where it cannot be told: the curve has fewer than 24 epochs or numbers
        that are not finite, or its noise could hide a rise of half a nat per row. Otherwise True.

    Example:
        >>> epochs = np.arange(300)
        >>> has_converged(-np.exp(-epochs / 20)), has_converged(epochs / 100)
        (True, False)
    """
    values = np.asarray(curve, dtype=float)
    if len(values) < FEWEST or not np.isfinite(values).all():
        return None
    third, sixth = (Trend.of(values[-(len(values) // part) :]) for part in (3, 6))
    if third.rises and sixth.rise > 0:
        return False
    return None if SURE * third.error > LARGE else True


def verdict(curve: npt.ArrayLike, name: str) -> str:
    """Return words for ``has_converged``, and what to do where the curve still rises.

    Args:
        curve: ELBO of each epoch, (epochs,), in nats per row.
        name: What the curve shows, such as ``"training ELBO"``.

    Example:
        >>> verdict(np.zeros(300), "training ELBO")
        'yes: the training ELBO no longer rises (0.000 ± 0.000 nats per row in 100 epochs)'
        >>> verdict([0.0], "training ELBO")
        'cannot be told: fewer than 24 epochs'
    """
    values, converged = np.asarray(curve, dtype=float), has_converged(curve)
    if len(values) < FEWEST:
        return f"cannot be told: fewer than {FEWEST} epochs"
    if not np.isfinite(values).all():
        return f"cannot be told: the {name} is not finite in every epoch"
    trend = Trend.of(values[-(len(values) // 3) :])
    change = f"{trend.rise:.3f} ± {trend.error:.3f} nats per row in {trend.epochs:,} epochs"
    if converged is None:
        return (
            f"cannot be told: the {name} is noisy ({change}); train for more epochs, or with more "
            "particles"
        )
    if converged:
        return f"yes: the {name} no longer rises ({change})"
    return (
        f"no: the {name} still rises ({change}); train for more epochs or with a larger learning "
        "rate, and do not read the results yet"
    )


def _inflation(rest: npt.NDArray[np.float64]) -> float:
    """Return by how much autocorrelation multiplies the variance of a slope; at least 1."""
    power = float(rest @ rest)
    if power == 0:
        return 1.0
    correlation = min(max(float(rest[1:] @ rest[:-1]) / power, 0.0), 0.95)
    return (1 + correlation) / (1 - correlation)
