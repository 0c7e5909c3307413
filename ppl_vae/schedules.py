"""Schedules of the KL weight: functions of the step for ``fit(..., kl_weight=schedule)``.

    linear:    w(s) = start + (end - start) min(s / steps, 1)
    cyclical:  w(s) = min((s mod period) / (ramp period), 1)

s is the number of updates made so far, 0 for the first update; w is the weight of the KL terms of
the ELBO. A small weight at the beginning lets latents become informative before the prior pulls
the guide towards itself.

Sources: Bowman et al. (2016), section 3.1, arXiv:1511.06349 (annealing);
Fu et al. (2019), section 4, arXiv:1903.10145 (cyclical).
"""

from collections.abc import Callable

from ppl_vae.arguments import check_count, check_number

Schedule = Callable[[int], float]


def linear(steps: int, *, start: float = 0.0, end: float = 1.0) -> Schedule:
    """Return a weight that changes in a straight line over ``steps`` updates, and then stays.

    Args:
        steps: Number of updates until ``end`` is reached.
        start: Weight of the first update.
        end: Weight from update ``steps`` on.

    Returns:
        A function of the step that returns the weight.

    Raises:
        ValueError: If ``steps`` is below 1, or a weight is negative or infinite.

    Example:
        >>> weight = linear(100)
        >>> weight(0), weight(50), weight(1000)
        (0.0, 0.5, 1.0)
    """
    check_count("steps", steps)
    check_number("start", start, least=0)
    check_number("end", end, least=0)
    return lambda step: start + (end - start) * min(step / steps, 1.0)


def cyclical(period: int, *, ramp: float = 0.5) -> Schedule:
    """Return a weight that rises from 0 to 1 again in every cycle.

    Each new cycle gives latents whose posterior had collapsed onto the prior another chance to
    become informative.

    Args:
        period: Number of updates in one cycle.
        ramp: Share of a cycle in which the weight rises; for the rest of the cycle it is 1.

    Returns:
        A function of the step that returns the weight.

    Raises:
        ValueError: If ``period`` is below 1, or ``ramp`` is not in (0, 1].

    Example:
        >>> weight = cyclical(100)
        >>> weight(0), weight(25), weight(75), weight(100)
        (0.0, 0.5, 1.0, 0.0)
    """
    check_count("period", period)
    check_number("ramp", ramp, positive=True)
    if ramp > 1:
        raise ValueError(f"ramp: expected a share in (0, 1], got {ramp}")
    return lambda step: min((step % period) / (ramp * period), 1.0)
