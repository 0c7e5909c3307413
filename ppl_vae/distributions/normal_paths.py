"""Draws of paths with normal steps, whose gradient goes back in time by hand.

    z_t = m_t + s_t e_t,    m_t, s_t = loc, scale of step(z_(t-1), inputs_t),    e_t ~ Normal(0, 1)

Let g_t be the slope of a loss along z_t alone, and a_t, b_t those along m_t and s_t, where the loss
reads these (the log-probability of the draw does). The whole slope along z_t is

    G_t = g_t + (dm_(t+1)/dz_t)' (a_(t+1) + G_(t+1)) + (ds_(t+1)/dz_t)' (b_(t+1) + e_(t+1) G_(t+1))

from the last step to the first. Only this recursion goes step by step, and it needs no slope along
the weights of ``step``. These follow from the slopes along all m_t and s_t, a_t + G_t and
b_t + e_t G_t, by one call of ``step`` on all steps at once: one large matrix product in place of
many small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tape = tuple[Tensor, Tensor, Tensor, Tensor]
"""A step of a draw: the state before it, its loc and scale, the state after it."""


def normal_of(fn: Any) -> Any:
    """Return the normal distribution of which ``fn`` is a vector, or ``None`` for another one.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> normal_of(Independent(Normal(torch.zeros(3), 1.0), 1))
        Normal(loc: torch.Size([3]), scale: torch.Size([3]))
    """
    base = getattr(fn, "base_dist", fn)
    plain = type(fn).__name__ in ("Independent", "Normal")
    return base if plain and type(base).__name__ == "Normal" else None


def drawn_path(
    first: Tensor,
    noise: Tensor,
    step: Callable[[Tensor, int | None], Any],
    inside: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw paths step by step, with the gradient of the file's head.

    Args:
        first: z_1, (..., latents).
        noise: e_2 ... e_T, (T - 1, ..., latents).
        step: States before steps and the number of the one step after them, counted from 0, to the
            normal distribution of what follows; with ``None``, of the states of all steps but the
            last, (..., T - 1, latents).
        inside: Which steps are part of a path, (T, ..., 1) of bool; after a path's end its last
            state is repeated. ``None`` for all.

    Returns:
        The paths, (..., T, latents), and the loc and scale of z_2 ... z_T, (..., T - 1, latents).
    """
    tapes: list[Tape] = []
    states = [first.detach()]
    for t, e in enumerate(noise.unbind(0), 1):
        leaf = states[-1].requires_grad_()
        fn = step(leaf, t)
        loc, scale = fn.loc.expand_as(e), fn.scale.expand_as(e)  # smaller where z has no part
        new = loc + scale * e
        if inside is not None:
            new = torch.where(inside[t], new, leaf)
        tapes.append((leaf, loc, scale, new))
        states.append(new.detach())
    path = torch.stack([state.detach() for state in states], -2)
    fn = step(path[..., :-1, :], None)
    shape = path[..., 1:, :].shape
    found: tuple[Tensor, Tensor, Tensor] = _Path.apply(
        first, fn.loc.expand(shape), fn.scale.expand(shape), path, noise, inside, tapes
    )
    return found


class _Path(torch.autograd.Function):
    """Gives a path, and its locs and scales, the gradient of the file's head."""

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, loc: Tensor, scale: Tensor, path: Tensor, noise: Tensor,
        inside: Tensor | None, tapes: list[Tape],
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return the path, the locs and the scales as they are."""
        ctx.noise, ctx.inside, ctx.tapes = noise, inside, tapes
        return path.view_as(path), loc.view_as(loc), scale.view_as(scale)

    @staticmethod
    def backward(ctx: Any, of_path: Tensor, of_loc: Tensor, of_scale: Tensor) -> tuple[Any, ...]:
        """Return the slopes along z_1, the locs and the scales."""
        slopes, onward = [], torch.zeros_like(of_path[..., 0, :])
        for t in range(len(ctx.tapes), 0, -1):
            leaf, *outs = ctx.tapes[t - 1]
            slopes.append(of_path[..., t, :] + onward)
            given = [of_loc[..., t - 1, :], of_scale[..., t - 1, :], slopes[-1]]
            (found,) = _slopes(outs, leaf, given)
            onward = torch.zeros_like(leaf) if found is None else found
        whole = torch.stack(slopes[::-1], -2)
        noise = ctx.noise.movedim(0, -2)
        if ctx.inside is not None:
            whole = torch.where(ctx.inside[1:].movedim(0, -2), whole, 0.0)
        return of_path[..., 0, :] + onward, of_loc + whole, of_scale + whole * noise, *[None] * 4


def _slopes(outs: list[Tensor], leaf: Tensor, given: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Return the slope along a leaf from those along what was computed from it; keep the graph."""
    pairs = [(o, s.expand_as(o)) for o, s in zip(outs, given, strict=True) if o.requires_grad]
    if not pairs:
        return (None,)
    return torch.autograd.grad(
        [o for o, _ in pairs], leaf, [s for _, s in pairs], retain_graph=True, allow_unused=True
    )
