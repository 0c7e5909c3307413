"""Comparison of a traced step with the eager one: same rows, same draws, same loss and gradient.

    |loss - loss'| <= t |loss| + 4 e;   |g_i - g_i'| <= t |g_i| + 4 e_i

for every parameter i. Both steps start from the same seed, so that they draw the same numbers.
Every buffer is compared afterwards as well.

What a tracer freezes by mistake shows in this comparison: a number of Python's that changes from
call to call, a draw that is not torch's, a buffer that is replaced by another tensor. The traced
step is therefore compared on two batches, at the weights of the moment and again after
``UPDATES`` small updates: something that was read from the weights, or that counts calls, differs
by then.

The tolerance t is 1000 units in the last place, 1.2e-4 in single precision. It is enough while the
terms of a gradient do not cancel: a graph does the eager step's own operations in the same order,
and a compiler only adds in another order.

Where terms cancel, rounding alone may part two equal steps by more: near an optimum the gradient is
what is left of a sum that is thousands of times larger, and so it is with the costs of the values
of a summed latent. What rounding explains is then measured (``_rounding_errors``) as e and e_i;
for compiled code also by how far the traced graph, once it is found equal, is from its own run in
double precision. On a pair that had been fitted for 100 epochs, with a summed class, the compiled
step's gradients differed from the eager ones by up to 0.6 %, and up to 2.9 e_i; a parameter that is
changed by 0.1 % changes them by far more than 4 e_i.

A difference below ``SMALL`` may also be a kink: the two steps may round a number to different
sides of the corner of a ReLU. It counts if other rows and other draws show a difference too.
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
from ppl_vae.core.world import same_bits
from ppl_vae.elbo.loss import Gradients
from ppl_vae.training.clipping import clip_factor
from ppl_vae.training.traced_step import TracedStep

UPDATES = 3  # updates between the two places where a new traced step is compared
ROUNDINGS = 4  # measured rounding errors by which two equal results may differ
MEASURED = 4  # times that the rounding error is measured; the largest counts
SMALL = 0.01  # share of a gradient that a kink of the pair may explain
LARGEST_CHANGE = 1e-3  # of any number of a parameter, in one of these updates


Results = tuple[Tensor, Gradients]
"""Losses, (2,), minus the ELBO and the training loss; and a gradient or ``None`` each."""


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
    words, small = _difference(traced_step, index, seed)
    if words and small:
        other = (index + max(1, len(traced_step.rows) // 3)) % len(traced_step.rows)
        words, _ = _difference(traced_step, other, seed + 50)
    return words


def _difference(traced_step: TracedStep, index: Tensor, seed: int) -> tuple[str, bool]:
    """Return what ``difference_on_batch`` returns, and whether a kink may explain it."""
    derivative = traced_step.eager.derivative
    pair = derivative.bound.pair
    weight = 0.37 if traced_step.weighted else 1.0
    parameters = list(map(copy_with_strides, derivative.parameters))
    runs = []
    with state_restored(pair) as replaced_buffer:
        for interpreted in (True, False) if traced_step.is_compiled else (True,):
            constants = _constants(traced_step)
            with forked(seed):
                results = traced_step.derivative(
                    parameters, constants, index, weight, interpreted=interpreted
                )
            tolerance = _tolerance(traced_step.graph.precision, interpreted=interpreted)
            runs.append((results, constants, tolerance, interpreted))
        tensor = torch.tensor(weight, device=traced_step.device) if traced_step.weighted else None
        with forked(seed):
            batch = traced_step.rows.take(index, traced_step.device)
            expected = derivative(batch, tensor)
        eager_constants, replaced = _constants(traced_step), replaced_buffer()

    def again() -> Results:
        with forked(seed):
            return derivative(batch, tensor)

    if not bool(expected[0].isfinite().all()):
        raise NotComparableError("the loss is not finite, and so cannot be compared")
    present = [g for g in expected[1] if g is not None]
    if present and not math.isfinite(clip_factor(present, traced_step.eager.limit).item()):
        raise NotComparableError("the gradient is not finite, or too large to be compared")
    names = list(pair.trainable())
    errors: list[float] | None = None
    for results, constants, tolerance, interpreted in runs:
        if replaced:
            words = (
                f"buffer {replaced} is reassigned; update it in place, as in buffer.copy_(value)"
            )
            return words, False
        loose = tolerance if interpreted else _loose_tolerance(traced_step.graph.precision)
        pairs = zip(constants, eager_constants, strict=True)
        if not all(_is_near(left, right, loose) for left, right in pairs):
            return "a buffer is not as the eager step leaves it", False
        words, share = _first_difference(names, results, expected, tolerance)
        if words:
            if errors is None:
                with state_restored(pair):
                    errors = _rounding_errors(
                        derivative.parameters, expected, again, traced_step.graph.precision
                    )
            if not interpreted:  # the graph is proven by now
                with contextlib.suppress(Exception), forked(seed):
                    exact = traced_step.derivative(
                        parameters, _constants(traced_step), index, weight,
                        interpreted=True, double=True,
                    )  # fmt: skip
                    errors = list(map(max, errors, _distances(runs[0][0], exact)))
            words, share = _first_difference(names, results, expected, tolerance, errors)
        if words:
            return words, share < SMALL
    return "", False


def _rounding_errors(
    parameters: Sequence[Tensor], expected: Results, again: Callable[[], Results], precision: float
) -> list[float]:
    """Measure the rounding error of each of the eager step's results.

    Every number of the parameters is moved by one unit in its last place, up or down at random (in
    that of half precision, where the step rounds its parameters to it), and losses and gradients
    are computed again from the same draws. All sums are then rounded anew, so that a result changes
    by about its own rounding error.

    A number that the pair's Python changes at every call would change the results as well, and
    such a change must not pass for rounding. They are therefore first computed once more at the
    same weights; where they are not the same bit for bit, nothing is allowed for.

    Args:
        parameters: The pair's parameters; they are left changed.
        expected: Losses and gradients from the eager step.
        again: Computes them again, from the same rows and draws.
        precision: One unit in the last place, relative, of the coarsest dtype in the graph.

    Returns:
        The norm of the error of the training loss, of the negative ELBO, and of the gradient of
        each parameter.
    """
    rights = _flat(expected)
    errors = [0.0] * len(rights)
    for left, right in zip(_flat(again()), rights, strict=True):
        same = left is right if left is None or right is None else torch.equal(left, right)
        if not same:
            return errors
    before = [p.detach().clone() for p in parameters]
    for number in range(MEASURED):
        with forked(number), torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                up = torch.rand(p.shape, device=p.device) < 0.5
                unit = max(torch.finfo(p.dtype).eps, precision)
                p.copy_(value * (1 + torch.where(up, unit, -unit).to(p.dtype)))
        errors = list(map(max, errors, _distances(again(), expected)))
    return errors


def _distances(left: Results, right: Results) -> list[float]:
    """Return the norm of the difference of each result; 0 where there is no gradient."""
    pairs = zip(_flat(left), _flat(right), strict=True)
    return [0.0 if a is None or b is None else _norm([a.double() - b.double()]) for a, b in pairs]


def _flat(results: Results) -> list[Tensor | None]:
    """Return the training loss, the negative ELBO and the gradients as one list."""
    losses, gradients = results
    return [losses[1], losses[0], *gradients]


def _tolerance(precision: float, *, interpreted: bool) -> float:
    """Return how far rounding may part two results whose terms do not cancel, relative.

    In half precision the unit in the last place is so large that a compiler, which rounds fewer
    intermediate results, differs by much more.

    Args:
        precision: One unit in the last place, relative, of the coarsest dtype in the graph.
        interpreted: Whether the graph ran operation by operation, not compiled.
    """
    if not interpreted and precision > 1e-5:
        return _loose_tolerance(precision)
    return min(1000 * precision, math.sqrt(precision))


def _loose_tolerance(precision: float) -> float:
    """Return the tolerance for what is not measured, of compiled code: 1 % in single precision."""
    return min(30 * math.sqrt(precision), 0.25)


def _first_difference(
    names: list[str], results: Results, expected: Results, tolerance: float,
    errors: Sequence[float] | None = None,
) -> tuple[str, float]:  # fmt: skip
    """Return words for the first result that differs, or ``""``, and the largest share of any.

    Args:
        names: Names of the parameters.
        results: The traced step's losses and gradients.
        expected: The eager step's.
        tolerance: How far rounding may part two results, as a share of their size.
        errors: Rounding errors of the eager results, where they were measured; none by default.
    """
    labels = ["loss", "negative ELBO", *names]
    allowed = [0.0] * len(labels) if errors is None else [ROUNDINGS * error for error in errors]
    compared = zip(labels, _flat(results), _flat(expected), allowed, strict=True)
    first, largest = "", 0.0
    for place, (name, left, right, more) in enumerate(compared):
        if left is None or right is None:
            if left is not right:
                return f"one of them has no gradient for {name}", 1.0
            continue
        error, size = _norm([left.double() - right.double()]), _norm([right])
        if error <= tolerance * size + more:
            continue
        share = error / max(size, 1e-30)
        words = f"the gradients of {name} differ by {100 * share:.2g} %"
        if place < 2:
            words = f"its {name} is {left.item():.6g}, the eager step's {right.item():.6g}"
        first, largest = first or words, max(largest, share)
    return first, largest


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


def many_differ(traced_step: TracedStep, indices: Sequence[Tensor]) -> bool:
    """Return whether many steps in one call differ by a bit from single calls.

    Weights, buffers, the optimizer's state and random generators are restored.

    Args:
        traced_step: A compiled step.
        indices: Positions of the batches, (rows,) each.
    """
    assert traced_step.update is not None
    weights, changing = [0.37] * len(indices), [*traced_step.held, *traced_step.update.steps]
    before = list(map(copy_with_strides, changing))
    ends = []
    for together in (True, False):
        try:
            with forked(1):
                if together:
                    losses = traced_step.many(indices, weights)
                else:
                    made = (traced_step(index, 0.37) for index in indices)
                    losses = [of_step for of_step, applied in made if applied]
            ends.append((losses, list(map(copy_with_strides, changing))))
        finally:  # also where compiled code raises
            for tensor, value in zip(changing, before, strict=True):
                write_back(tensor, value)
    (losses, tensors), (other_losses, other_tensors) = ends
    alike = all(map(same_bits, tensors, other_tensors))
    return losses != other_losses or not alike
