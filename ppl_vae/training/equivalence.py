"""Proof that a traced step is the eager one: same rows, same draws, same loss, same gradient.

    |loss - loss'| <= t |loss|;   |g_i - g_i'| <= t (|g_i| + |g| / 1000)

for every parameter i, and the buffers afterwards. What the tracer froze by mistake shows there: a
number of Python's that has changed, a draw that is not torch's, a buffer that was reassigned. The
traced graph does the eager step's own operations, so t is small: 1000 units of the last place. A
compiler adds up in another order, and gradients cancel more as a fit goes, so that its work is
compared with t = 30 sqrt(one unit): it errs grossly or not at all.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ppl_vae.compat import buffers_of
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.data.rows import Rows
from ppl_vae.elbo.loss import Gradients, LossAndGradient
from ppl_vae.training.traced_step import TracedStep

MOVES = 3  # steps between the two places where a new program is compared
STRIDE = 1e-3  # largest change of a parameter in one of them
NOT_FINITE = "the loss is not finite, and so cannot be compared"


def difference_from_eager(
    program: TracedStep,
    derivative: LossAndGradient,
    pair: Pair,
    rows: Rows,
    indices: Sequence[Tensor],
) -> str:
    """Compare on every batch, here and a few steps on; the pair and the generators are put back.

    Args:
        program: The traced step.
        derivative: The eager one.
        pair: Whose buffers the eager one changes.
        rows: The data.
        indices: Positions of the batches, (rows,) each.

    Returns:
        How they differ, or ``""`` where they agree.
    """
    values = [p.detach().clone() for p in derivative.parameters]
    with state_restored(pair):
        for move in range(MOVES + 1):
            if move in (0, MOVES):
                for number, index in enumerate(indices):
                    seed = 100 * move + number + 1
                    difference = difference_on_batch(
                        program, derivative, pair, rows, index, seed=seed
                    )
                    if difference:
                        return difference if move == 0 else f"{difference}, after {move} steps"
            _, gradients = program.derivative(
                values, _copies(program), indices[0], 1.0, interpreted=True
            )
            values = [_moved(v, g) for v, g in zip(values, gradients, strict=True)]
            with torch.no_grad():
                for parameter, value in zip(derivative.parameters, values, strict=True):
                    parameter.copy_(value)
    return ""


def difference_on_batch(
    program: TracedStep,
    derivative: LossAndGradient,
    pair: Pair,
    rows: Rows,
    index: Tensor,
    *,
    seed: int,
) -> str:
    """Compare on one batch, with the draws of ``seed``; returns how they differ, or ``""``.

    The arguments are those of ``prove``.
    """
    weight = 0.37 if program.weighted else 1.0
    parameters = [p.detach().clone() for p in derivative.parameters]
    runs = []
    with state_restored(pair) as reassigned:
        for interpreted in (True, False) if program.is_compiled else (True,):
            constants = _copies(program)
            with forked(seed):
                found = program.derivative(
                    parameters, constants, index, weight, interpreted=interpreted
                )
            runs.append((*found, constants, _tolerance(program.graph.precision, interpreted)))
        tensor = torch.tensor(weight, device=program.device) if program.weighted else None
        with forked(seed):
            right, exact = derivative(rows.take(index, program.device), tensor)
        after, lost = _copies(program), reassigned()
    if not math.isfinite(right.item()):
        return NOT_FINITE
    for loss, gradients, constants, tolerance in runs:
        if not _near(loss, right, tolerance):
            return f"its loss is {loss.item():.6g}, the eager step's {right.item():.6g}"
        if lost:
            return f"buffer {lost} is reassigned; update it in place, as in buffer.copy_(value)"
        pairs = zip(constants, after, strict=True)
        if not all(_near(left, theirs, tolerance) for left, theirs in pairs):
            return "a buffer is not as the eager step leaves it"
        difference = _differing(list(pair.trainable()), gradients, exact, tolerance)
        if difference:
            return difference
    return ""


def _tolerance(precision: float, interpreted: bool) -> float:
    """How far rounding may lead two results apart, as a share of their size."""
    rough = math.sqrt(precision)
    return min(1000 * precision, rough) if interpreted else min(30 * rough, 0.25)


def _differing(names: list[str], ours: Gradients, theirs: Gradients, tolerance: float) -> str:
    """Name the first parameter whose gradients differ."""
    total = _norm([g for g in theirs if g is not None])
    for name, left, right in zip(names, ours, theirs, strict=True):
        if left is None or right is None:
            if left is not right:
                return f"one of them has no gradient for {name}"
            continue
        error, size = _norm([left.double() - right.double()]), _norm([right])
        if not error <= tolerance * (size + total / 1000):
            return f"the gradients of {name} differ by {100 * error / max(size, 1e-30):.2g} %"
    return ""


@contextlib.contextmanager
def state_restored(pair: Pair) -> Iterator[Callable[[], str]]:
    """Put parameters, buffers and plain tensors of modules back as they were.

    Yields a function that names a reassigned buffer.
    """
    tops = [top for half in (pair.model, pair.guide) for top in half.layers().values()]
    modules = [module for top in tops for module in top.modules()]
    held = [
        (m, n, buffer) for m in modules for n, buffer in buffers_of(m).items() if buffer is not None
    ]
    plain = [value for m in modules for value in vars(m).values() if isinstance(value, Tensor)]
    before = [(tensor, tensor.detach().clone()) for tensor in [*pair.tensors().values(), *plain]]

    def reassigned() -> str:
        return next((n for m, n, buffer in held if buffers_of(m).get(n) is not buffer), "")

    try:
        yield reassigned
    finally:
        for module, name, buffer in held:
            buffers_of(module)[name] = buffer
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)


def _copies(program: TracedStep) -> list[Tensor]:
    return [constant.clone() for constant in program.graph.constants]


def _moved(value: Tensor, gradient: Tensor | None) -> Tensor:
    """A step downhill whose largest change is ``STRIDE``."""
    if gradient is None:
        return value
    return value - STRIDE * gradient / gradient.abs().max().clamp(min=1e-30)


def _near(left: Tensor, right: Tensor, tolerance: float) -> bool:
    size = max(_norm([right]), tolerance)
    return _norm([left.double() - right.double()]) <= tolerance * size


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))
