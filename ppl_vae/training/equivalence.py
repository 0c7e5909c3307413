"""Comparison of a traced step with the eager one: same rows, same draws, same loss and gradient.

    |loss - loss'| <= t |loss|;   |g_i - g_i'| <= t (|g_i| + |g| / 1000)

for every parameter i, and likewise for every buffer afterwards. Both steps start from the same
seed, so that they draw the same numbers.

What a tracer freezes by mistake shows in this comparison: a number of Python's that changes from
call to call, a draw that is not torch's, a buffer that is replaced by another tensor. The traced
step is therefore compared on two batches, at the weights of the moment and again after
``UPDATES`` small updates: something that was read from the weights, or that counts calls, differs
by then.

The tolerance t: a traced graph does the eager step's own operations in the same order, so t is
1000 units in the last place (1.2e-4 in single precision). A compiler adds in another order, and a
gradient is a sum whose terms cancel more and more as a fit goes on; its tolerance is 30 times the
root of one unit (1 % in single precision). A compiler that errs, errs grossly.

Where large costs nearly cancel, as those of the values of a summed latent do early in a fit, the
eager gradient itself is uncertain by more than t, and an equal form that adds in another order
(``compiled/value_free.py``) gives another rounding. So before a difference counts, the rounding
error of the eager gradient is measured (``_rounding_errors``) and allowed for.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ppl_vae.compat.of_torch import buffers_of
from ppl_vae.compiled.layout import copy_with_strides, write_back
from ppl_vae.core.pair import Pair
from ppl_vae.core.seeding import forked
from ppl_vae.elbo.loss import Gradients
from ppl_vae.training.clipping import clip_factor
from ppl_vae.training.step import TracedStep

UPDATES = 3  # updates between the two places where a new traced step is compared
ROUNDINGS = 4  # measured rounding errors by which two equal gradients may differ
LARGEST_CHANGE = 1e-3  # of any number of a parameter, in one of these updates


class NotComparableError(ValueError):
    """The eager step's loss or gradient is not finite: no step can be compared with it."""


def difference_from_eager(traced_step: TracedStep, indices: Sequence[Tensor]) -> str:
    """Compare on every batch, at the weights of the moment and after a few updates.

    Weights, buffers, plain tensors of modules and random generators are restored.

    Args:
        traced_step: The traced step; where it is compiled, the uncompiled graph is compared too.
        indices: Positions of the batches, (rows,) each.

    Returns:
        Words for the first difference, or for why nothing can be compared; ``""`` where there is no
        difference.
    """
    derivative = traced_step.eager.derivative
    with state_restored(derivative.bound.pair):
        for update in range(UPDATES + 1):
            for number, index in enumerate(indices if update in (0, UPDATES) else ()):
                try:
                    seed = 100 * update + number + 1
                    difference = difference_on_batch(traced_step, index, seed=seed)
                except NotComparableError as error:
                    return str(error)
                if difference:
                    return f"{difference}, after {update} steps" if update else difference
            _move_downhill(traced_step, indices[0])
    return ""


def difference_on_batch(traced_step: TracedStep, index: Tensor, *, seed: int) -> str:
    """Compare on one batch, with the draws of a seed, at the weights of the moment.

    The traced step runs first, on copies; then the eager one runs on the pair itself. Where the KL
    weight is an input, it is 0.37: any number that is neither 0 nor 1 would do.

    Args:
        traced_step: The traced step.
        index: Positions of the batch's rows, (rows,).
        seed: Seeds both runs.

    Returns:
        Words for the first difference, or ``""`` where there is none.

    Raises:
        NotComparableError: If the eager step's loss is not finite, or its gradient is not, or is so
            large that no update is made.
        ValueError: Of Pyro's checks, from the eager step.
    """
    derivative = traced_step.eager.derivative
    pair = derivative.bound.pair
    weight = 0.37 if traced_step.weighted else 1.0
    parameters = list(map(copy_with_strides, derivative.parameters))
    runs = []
    with state_restored(pair) as replaced_buffer:
        for interpreted in (True, False) if traced_step.is_compiled else (True,):
            constants = _constants(traced_step)
            with forked(seed):
                losses, gradients = traced_step.derivative(
                    parameters, constants, index, weight, interpreted=interpreted
                )
            tolerance = _tolerance(traced_step.graph.precision, interpreted=interpreted)
            runs.append((losses, gradients, constants, tolerance))
        tensor = torch.tensor(weight, device=traced_step.device) if traced_step.weighted else None
        with forked(seed):
            batch = traced_step.rows.take(index, traced_step.device)
            eager_losses, eager_gradients = derivative(batch, tensor)
        eager_constants, replaced = _constants(traced_step), replaced_buffer()

    def again() -> Gradients:
        with forked(seed):
            return derivative(batch, tensor)[1]

    if not bool(eager_losses.isfinite().all()):
        raise NotComparableError("the loss is not finite, and so cannot be compared")
    present = [g for g in eager_gradients if g is not None]
    if present and not math.isfinite(clip_factor(present, traced_step.eager.limit).item()):
        raise NotComparableError("the gradient is not finite, or too large to be compared")
    for losses, gradients, constants, tolerance in runs:
        for place, name in ((1, "loss"), (0, "negative ELBO")):
            got, right = losses[place], eager_losses[place]
            if not _is_near(got, right, tolerance):
                return f"its {name} is {got.item():.6g}, the eager step's {right.item():.6g}"
        if replaced:
            return f"buffer {replaced} is reassigned; update it in place, as in buffer.copy_(value)"
        pairs = zip(constants, eager_constants, strict=True)
        if not all(_is_near(left, right, tolerance) for left, right in pairs):
            return "a buffer is not as the eager step leaves it"
        names = list(pair.trainable())
        difference = _gradient_difference(names, gradients, eager_gradients, tolerance)
        if difference:
            with state_restored(pair):
                errors = _rounding_errors(derivative.parameters, eager_gradients, again)
            difference = _gradient_difference(names, gradients, eager_gradients, tolerance, errors)
        if difference:
            return difference
    return ""


def _rounding_errors(
    parameters: Sequence[Tensor], gradients: Gradients, again: Callable[[], Gradients]
) -> list[float]:
    """Measure the rounding error of each eager gradient.

    Every number of the parameters is moved by one unit in its last place, up or down at random, and
    the gradient is computed again from the same draws. All sums are then rounded anew, so that the
    gradient changes by about its own rounding error.

    A number that the pair's Python changes at every call would change the gradient as well, and
    such a change must not pass for rounding. The gradient is therefore first computed once more at
    the same weights; where it is not the same bit for bit, nothing is allowed for.

    Args:
        parameters: The pair's parameters; they are left changed.
        gradients: Their gradients from the eager step.
        again: Computes the eager gradients again, from the same rows and draws.

    Returns:
        The norm of the error for each parameter, at most 1 % of the gradient's norm.
    """
    none = [0.0] * len(gradients)
    for left, right in zip(again(), gradients, strict=True):
        same = left is right if left is None or right is None else torch.equal(left, right)
        if not same:
            return none
    with forked(0), torch.no_grad():
        for p in parameters:
            up = torch.rand(p.shape, device=p.device) < 0.5
            p.mul_(1 + torch.where(up, 1.0, -1.0).to(p.dtype) * torch.finfo(p.dtype).eps)
    return [
        0.0 if left is None or right is None
        else min(_norm([left.double() - right.double()]), _norm([right]) / 100)
        for left, right in zip(again(), gradients, strict=True)
    ]  # fmt: skip


def _tolerance(precision: float, *, interpreted: bool) -> float:
    """Return how far rounding may part two results, as a share of their size.

    Args:
        precision: One unit in the last place, relative, of the coarsest dtype in the graph.
        interpreted: Whether the graph ran operation by operation, not compiled.
    """
    root = math.sqrt(precision)
    return min(1000 * precision, root) if interpreted else min(30 * root, 0.25)


def _gradient_difference(
    names: list[str], gradients: Gradients, expected: Gradients, tolerance: float,
    errors: Sequence[float] | None = None,
) -> str:  # fmt: skip
    """Return words for the first parameter whose gradients differ, or ``""``.

    Args:
        names: Names of the parameters.
        gradients: The traced step's gradients.
        expected: The eager step's gradients.
        tolerance: How far rounding may part two results, as a share of their size.
        errors: Rounding error of each eager gradient, where it was measured; none by default.
    """
    total = _norm([g for g in expected if g is not None])
    allowed = [0.0] * len(names) if errors is None else [ROUNDINGS * error for error in errors]
    for name, left, right, more in zip(names, gradients, expected, allowed, strict=True):
        if left is None or right is None:
            if left is not right:
                return f"one of them has no gradient for {name}"
            continue
        error, size = _norm([left.double() - right.double()]), _norm([right])
        if not error <= tolerance * (size + total / 1000) + more:
            return f"the gradients of {name} differ by {100 * error / max(size, 1e-30):.2g} %"
    return ""


@contextlib.contextmanager
def state_restored(pair: Pair) -> Iterator[Callable[[], str]]:
    """Restore a pair's parameters, buffers and modules' plain tensors when the block ends.

    Values are copied back into the same tensors, because the optimizer and the traced step hold
    those tensors. A buffer that the block replaced by another tensor becomes the old tensor again.

    Yields:
        A function that returns the name of a buffer that has been replaced so far, or ``""``.
    """
    tops = [top for half in (pair.model, pair.guide) for top in half.layers().values()]
    modules = [module for top in tops for module in top.modules()]
    buffers = [(m, n, b) for m in modules for n, b in buffers_of(m).items() if b is not None]
    plain = [value for m in modules for value in vars(m).values() if isinstance(value, Tensor)]
    before = [(tensor, tensor.detach().clone()) for tensor in [*pair.tensors().values(), *plain]]

    def replaced_buffer() -> str:
        return next((n for m, n, buffer in buffers if buffers_of(m).get(n) is not buffer), "")

    try:
        yield replaced_buffer
    finally:
        for module, name, buffer in buffers:
            buffers_of(module)[name] = buffer
        for tensor, value in before:
            write_back(tensor, value)


def _constants(traced_step: TracedStep) -> list[Tensor]:
    """Return copies of a graph's constants as they are now."""
    return list(map(copy_with_strides, traced_step.graph.constants))


def _move_downhill(traced_step: TracedStep, index: Tensor) -> None:
    """Move the pair's parameters downhill on a batch, no number by more than 0.001."""
    parameters = traced_step.parameters
    _, gradients = traced_step.derivative(
        [p.detach().clone() for p in parameters], _constants(traced_step), index, 1.0,
        interpreted=True,
    )  # fmt: skip
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                largest = gradient.abs().max().clamp(min=1e-30)
                parameter.sub_(LARGEST_CHANGE * gradient / largest)


def _is_near(left: Tensor, right: Tensor, tolerance: float) -> bool:
    """Return whether two tensors differ by at most a share of the size of ``right``.

    NaN is equal to NaN: a buffer may say by it that there is no number.
    """
    missing = right.isnan()
    if not torch.equal(left.isnan(), missing):
        return False
    left, right = (t.double().masked_fill(missing, 0.0) for t in (left, right))
    size = max(_norm([right]), tolerance)
    return _norm([left - right]) <= tolerance * size


def _norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all numbers of some tensors, in double precision."""
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))
