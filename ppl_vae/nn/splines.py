"""Monotone splines of rational quadratics: curves through knots, with inverse and slope.

    knots (x_0, y_0) = (-B, -B), ..., (x_K, y_K) = (B, B)    rising; slopes d_0 = d_K = 1, d_k > 0
    t = (x - x_k) / (x_(k+1) - x_k),  s = (y_(k+1) - y_k) / (x_(k+1) - x_k)
    y = y_k + (y_(k+1) - y_k) (s t^2 + d_k t (1 - t)) / (s + (d_(k+1) + d_k - 2 s) t (1 - t))
    y = x outside [-B, B]

Numbers without bounds become knots and slopes: 3 K - 1 of them for a curve of K pieces. All of them
0 give the identity. No piece is shorter than a thousandth of the box, and no slope at a knot is
below a thousandth.

Pyro has such splines, too; it selects the values inside the box by a mask, whose number of values
is not known beforehand, so that a step with them cannot be traced.

Source: Gregory & Delbourgo (1982), IMA Journal of Numerical Analysis 2; Durkan et al. (2019),
section 3.1, arXiv:1906.04032 (as layers of a flow).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

LEAST = 1e-3  # share of the box that a piece has at least; least slope at a knot
UNIT_SLOPE = math.log(math.expm1(1 - LEAST))  # softplus of it is 1 - LEAST


def spline(
    x: Tensor, numbers: Tensor, *, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Return a spline's values at x, and the logarithms of its slopes there.

    Args:
        x: Where the spline is computed, (...).
        numbers: Numbers without bounds that give each x a spline, (..., 3 K - 1).
        bound: B, half the side of the box that has the knots.
        inverse: Whether the values go in and their x comes out. The slopes are those of the spline
            all the same, not of its inverse.

    Returns:
        Two tensors, (...) each.

    Example:
        >>> y, log_slope = spline(torch.tensor([0.5]), torch.zeros(1, 11), bound=5.0)
        >>> round(y.item(), 3), abs(round(log_slope.item(), 3))
        (0.5, 0.0)
    """
    pieces = (numbers.shape[-1] + 1) // 3
    widths, heights, slopes = numbers.split([pieces, pieces, pieces - 1], -1)
    xs, ys = _knots(widths, bound), _knots(heights, bound)  # (..., K + 1) each
    slopes = pad(softplus(slopes + UNIT_SLOPE) + LEAST, (1, 1), value=1.0)
    within = x.clamp(-bound, bound)  # elsewhere a curve is computed that ``where`` leaves out
    inner = (ys if inverse else xs)[..., 1:-1]
    piece = (within.unsqueeze(-1) >= inner).sum(-1, keepdim=True)  # 0 ... K - 1
    x0, y0, d0 = (ends.gather(-1, piece).squeeze(-1) for ends in (xs, ys, slopes))
    x1, y1, d1 = (ends.gather(-1, piece + 1).squeeze(-1) for ends in (xs, ys, slopes))
    width, height = x1 - x0, y1 - y0
    s, bend = height / width, d1 + d0 - 2 * height / width
    if inverse:  # t is the root of a t^2 + b t + c in [0, 1]
        rise = within - y0
        a, b, c = height * (s - d0) + rise * bend, height * d0 - rise * bend, -s * rise
        t = -2 * c / (b + (b * b - 4 * a * c).clamp(min=0).sqrt())
    else:
        t = (within - x0) / width
    rest = t * (1 - t)
    denominator = s + bend * rest
    slope = d1 * t * t + 2 * s * rest + d0 * (1 - t) ** 2
    log_slope = 2 * (s.log() - denominator.log()) + slope.log()
    value = x0 + width * t if inverse else y0 + height * (s * t * t + d0 * rest) / denominator
    inside = x.abs() < bound
    return torch.where(inside, value, x), torch.where(inside, log_slope, 0.0)


def _knots(lengths: Tensor, bound: float) -> Tensor:
    """Return knots that rise from -bound to bound, (..., K + 1), from numbers (..., K)."""
    pieces = lengths.shape[-1]
    shares = LEAST + (1 - LEAST * pieces) * lengths.softmax(-1)
    inner = bound * (2 * shares.cumsum(-1)[..., :-1] - 1)
    return pad(pad(inner, (1, 0), value=-bound), (0, 1), value=bound)
