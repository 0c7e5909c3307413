"""A whole path of a Markov process as one random variable.

    z_1 ~ first                                z_t: any event, at t = 1 ... steps
    z_t ~ step(z_(t-1)[, inputs_t])            t = 2 ... length
    log p(z) = log first(z_1) + sum over t = 2 ... length of log step(z_(t-1))(z_t)

Given the path, all steps are scored at once: ``step`` is called on the path without its end, and
scores the path without its beginning. Only drawing goes step by step. Rows may have paths of
different lengths in one tensor; what stands after the end of a path counts nothing.

Source: Krishnan, Shalit & Sontag (2017), section 2, arXiv:1609.09869.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.distributions.normal_paths import drawn_path, normal_of


class MarkovPath(TorchDistribution):
    """A path z_1 ... z_T whose steps are drawn one after the other: event (steps, *event of z_t).

    Batch shape: that of ``first``, broadcast with that of ``lengths``. After the end of a row's
    path, a draw repeats the last state, and a log-probability neither reads the value nor the
    inputs there, so that no gradient flows to them. Hence a transform of whole paths of different
    lengths must leave out the steps that are no draws, as ``ppl_vae.nn.PathFlow`` does; others
    would count them in the log-determinant. Or transform the distributions that ``step`` returns.

    Mean, variance and entropy are not known: the library averages draws. ``step`` may return
    distributions without ``rsample``, such as discrete ones, if ``first`` is one of these as well.

    Args:
        first: Distribution of z_1.
        step: Function or module: (z_(t-1)[, inputs_t]) -> distribution of z_t, with the event shape
            of ``first``. It is called on one step, (..., *event), and on all steps at once,
            (..., steps - 1, *event), so it must act on the last dimensions alone.
        steps: T, the number of steps of the tensor; 1 or more.
        lengths: Steps of each row's path, (rows,) of integers from 1 to T; all T if ``None``.
        inputs: What each step is given besides the state before it, (..., steps, columns), or
            ``None``; the inputs of the first step are not read.

    Raises:
        ValueError: If ``step`` returns another event shape than that of ``first``, or a value has
            another shape than the path.

    Example:
        >>> import pyro.distributions as dist
        >>> start = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> def walk(z):
        ...     return dist.Normal(z, 0.1).to_event(1)
        >>> path = MarkovPath(start, walk, steps=7, lengths=torch.tensor([7, 3, 5]))
        >>> path.batch_shape, path.event_shape, path.log_prob(path.sample()).shape
        (torch.Size([3]), torch.Size([7, 2]), torch.Size([3]))
    """

    arg_constraints: ClassVar[Any] = {}

    def __init__(
        self,
        first: Any,
        step: Callable[..., Any],
        steps: int,
        lengths: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> None:
        rows = torch.Size() if lengths is None else lengths.shape
        batch_shape = torch.broadcast_shapes(first.batch_shape, rows)
        self.first, self.step, self.steps = first, step, steps
        self.lengths, self.inputs = lengths, inputs
        self._last_draw: tuple[Tensor | None, Any] = (None, None)  # and distributions of its steps
        super().__init__(batch_shape, torch.Size([steps, *first.event_shape]), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether gradients flow through a draw, as they do through one of ``first``."""
        return bool(self.first.has_rsample)

    @property
    def support(self) -> Any:
        """The support of ``first``, at every step."""
        return constraints.independent(self.first.support, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution with another batch shape."""
        path = MarkovPath(self.first, self.step, self.steps, self.lengths, self.inputs)
        shape = torch.Size(batch_shape)
        super(MarkovPath, path).__init__(shape, self.event_shape, validate_args=False)
        return path

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Return draws through which gradients reach the parameters of ``first`` and ``step``.

        Of normal steps the gradient goes back in time by hand (``normal_paths``), which takes about
        half the time. The log-probability of the last such draw costs nothing.
        """
        shape = torch.Size(sample_shape) + self.batch_shape
        inside = self._inside(shape)
        inputs = self._inputs(shape, inside)
        first = self.first.expand(shape).rsample()
        by_hand = torch.is_grad_enabled() and self.steps > 1 and len(self.event_shape) == 2
        if by_hand:
            given = None if inputs is None else inputs[..., 1, :].detach()
            by_hand = normal_of(self._next(first.detach(), given)) is not None
        if not by_hand:
            return self._drawn(first, inside, inputs, lambda fn: fn.rsample())
        return self._drawn_by_hand(first, inside, inputs)

    def sample(self, sample_shape: Any = ()) -> Any:
        """Return draws without gradients."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            inside = self._inside(shape)
            first = self.first.expand(shape).sample()
            return self._drawn(first, inside, self._inputs(shape, inside), lambda fn: fn.sample())

    def log_prob(self, value: Tensor) -> Any:
        """Return the log-probability of paths, (..., steps, *event), in nats."""
        dims, given = len(self.event_shape), value
        if value.shape[value.ndim - dims :] != self.event_shape:
            raise ValueError(
                f"value: expected a path of shape {tuple(self.event_shape)} on the right, got "
                f"{tuple(value.shape)}"
            )
        shape = torch.broadcast_shapes(value.shape[: value.ndim - dims], self.batch_shape)
        value, inside = value.expand(*shape, *self.event_shape), self._inside(shape)
        start = value.narrow(-dims, 0, 1)
        if inside is not None:  # a state in the support stands in for what is never read
            value = torch.where(self._over_event(inside), value, start)
        log_prob = self.first.log_prob(start.squeeze(-dims)).expand(shape)
        if self.steps == 1:
            return log_prob
        drawn, fn = self._last_draw
        if given is not drawn:
            before = value.narrow(-dims, 0, self.steps - 1)
            inputs = self._inputs(shape, inside)
            fn = self._next(before, None if inputs is None else inputs[..., 1:, :])
        each = fn.log_prob(value.narrow(-dims, 1, self.steps - 1))
        if inside is not None:
            each = torch.where(inside[..., 1:], each, 0.0)
        return log_prob + each.expand(*shape, self.steps - 1).sum(-1)

    def following(self, before: Tensor | None, t: int | Tensor) -> Any:
        """Return the distribution of the state at step t, from 0, given the state before it.

        Args:
            before: States at step t - 1, (..., *event); ``None`` at step 0.
            t: The step; one for each row, (rows,), or the same for all. After the end of a row's
                path the inputs are zeros.
        """
        if before is None:
            return self.first
        if self.inputs is None:
            return self._next(before, None)
        step = torch.as_tensor(t, device=self.inputs.device).expand(self.batch_shape)
        given = self.inputs.expand(*self.batch_shape, *self.inputs.shape[-2:])
        given = given.take_along_dim(step[..., None, None], -2).squeeze(-2)
        if self.lengths is not None:
            given = torch.where((step < self.lengths)[..., None], given, 0.0)
        return self._next(before, given)

    def _drawn(
        self, state: Tensor, inside: Tensor | None, inputs: Tensor | None,
        draw: Callable[[Any], Tensor],
    ) -> Tensor:  # fmt: skip
        """Return draws of paths, step by step, from a draw of their first states."""
        shape = state.shape[: state.ndim - len(self.first.event_shape)]
        states = [state]
        for t in range(1, self.steps):
            fn = self._next(state, None if inputs is None else inputs[..., t, :])
            new = draw(fn if fn.batch_shape == shape else fn.expand(shape))
            if inside is not None:
                over = inside[..., t].reshape(*shape, *(1 for _ in self.first.event_shape))
                new = torch.where(over, new, state)
            state = new
            states.append(state)
        return torch.stack(states, -len(self.event_shape))

    def _drawn_by_hand(self, first: Tensor, inside: Tensor | None, inputs: Tensor | None) -> Tensor:
        """Return draws of paths of normal steps, from a draw of their first states."""
        each = None if inputs is None else inputs.detach().movedim(-2, 0).contiguous()

        def step(before: Tensor, t: int | None) -> Any:
            if inputs is None:
                return normal_of(self._next(before, None))
            given = inputs[..., 1:, :] if t is None or each is None else each[t]
            return normal_of(self._next(before, given))

        noise = torch.randn(self.steps - 1, *first.shape, dtype=first.dtype, device=first.device)
        over = None if inside is None else inside.movedim(-1, 0)[..., None]
        path, loc, scale = drawn_path(first, noise, step, over)
        fn = torch.distributions.Normal(loc, scale, validate_args=False)
        self._last_draw = path, torch.distributions.Independent(fn, 1, validate_args=False)
        return path

    def _next(self, before: Tensor, inputs: Tensor | None) -> Any:
        """Return the distribution of the states that follow some states."""
        fn = self.step(before) if inputs is None else self.step(before, inputs)
        if fn.event_shape != self.first.event_shape:
            raise ValueError(
                f"step: expected a distribution of the event shape of first, "
                f"{tuple(self.first.event_shape)}, got {tuple(fn.event_shape)}; use .to_event(1) "
                "for a state that is a vector"
            )
        return fn

    def _inside(self, shape: torch.Size) -> Tensor | None:
        """Return which steps are part of a row's path, (*shape, steps); ``None`` for all."""
        if self.lengths is None:
            return None
        numbers = torch.arange(self.steps, device=self.lengths.device)
        return (numbers < self.lengths[..., None]).expand(*shape, self.steps)

    def _over_event(self, inside: Tensor) -> Tensor:
        """Return marks of steps, (..., steps), with the dimensions of an event: (..., steps, 1)."""
        return inside.reshape(*inside.shape, *(1 for _ in self.first.event_shape))

    def _inputs(self, shape: torch.Size, inside: Tensor | None) -> Tensor | None:
        """Return the inputs of every step, (*shape, steps, columns), zeros after a path's end."""
        if self.inputs is None:
            return None
        inputs = self.inputs.expand(*shape, *self.inputs.shape[-2:])
        return inputs if inside is None else torch.where(inside[..., None], inputs, 0.0)
