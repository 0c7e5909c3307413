"""Normalizing flows of paths: every state of a chain is bent by the same layers.

    z_t = layers(u_t; c_t)                              u_t, z_t: (latents,); c_t: (context,)
    log q(z) = log q(u) - sum over t = 1 ... length of log |det(dz_t / du_t)|

u is a path that a chain has drawn, (steps, latents). Steps after the end of a row's path are
neither bent nor counted, so that no padding enters a density.

A draw remembers the path that it came from, as the layers do (``ppl_vae.nn.flows``): its density
is one pass. That of a copy of a draw takes ``latents`` passes of each layer.

Source: Kingma et al. (2016), section 3, arXiv:1606.04934.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from ppl_vae.nn.flows import AutoregressiveFlow
from ppl_vae.nn.recurrent import step_mask


class BentPath(Transform):
    """A map of paths, (..., steps, latents), that bends each state inside by some layers.

    Args:
        layers: Maps of states, (..., steps, latents), one after the other.
        inside: The steps of each row's path, (rows, steps) of bool; all steps if ``None``.
    """

    domain = codomain = constraints.independent(constraints.real, 2)
    bijective = True

    def __init__(self, layers: Sequence[Transform], inside: Tensor | None = None) -> None:
        super().__init__(cache_size=1)
        self.layers, self.inside = layers, inside
        self._log_det: Any = None

    def _call(self, x: Tensor) -> Tensor:
        y, log_det = x, torch.zeros(())
        for layer in self.layers:
            before, y = y, layer(y)
            log_det = log_det + layer.log_abs_det_jacobian(before, y)
        if self.inside is not None:
            y = torch.where(self.inside[..., None], y, x)
            log_det = torch.where(self.inside, log_det, 0.0)
        self._log_det = log_det.sum(-1)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x = y
        for layer in reversed(self.layers):
            x = layer.inv(x)
        if self.inside is not None:
            x = torch.where(self.inside[..., None], x, y)
        self._call(x)  # for the log-determinant
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Any:
        """Return log |det(dy / dx)|, (...): the one that is remembered with x, else computed."""
        self(x)  # nothing to do where x is the last input
        return self._log_det


class PathFlow(nn.Module):
    """Inverse autoregressive layers for the states of a chain, the same at every step.

    Args:
        latents: Size of a state.
        context: Size of what the layers read at a step besides the state.
        layers: Number of layers.
        hidden: Number of hidden units of each layer's network.

    Example:
        >>> flow = PathFlow(latents=2, context=8, layers=1)
        >>> bend = flow(torch.zeros(5, 7, 8), torch.tensor([7, 7, 1, 3, 2]))
        >>> u = torch.randn(100, 5, 7, 2)
        >>> bend(u).shape, bend.log_abs_det_jacobian(u, bend(u)).shape
        (torch.Size([100, 5, 7, 2]), torch.Size([100, 5]))
    """

    def __init__(self, latents: int, context: int, layers: int, hidden: int = 64) -> None:
        super().__init__()
        self.flow = AutoregressiveFlow(latents, context, layers, hidden)

    def states(self, u: Tensor, context: Tensor) -> Tensor:
        """Return the states z, (..., latents), of draws u; context: (..., context)."""
        for layer in self.flow(context):
            u = layer(u)
        return u

    def forward(self, context: Tensor, lengths: Tensor | None = None) -> BentPath:
        """Return the map of whole paths.

        Args:
            context: What the layers read at each step, (rows, steps, context).
            lengths: Steps of each path, (rows,); all steps if ``None``.
        """
        inside = None if lengths is None else step_mask(lengths, context.shape[-2])
        return BentPath(self.flow(context), inside)
