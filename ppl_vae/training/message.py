"""The bytes in which a process tells the others the gradient of a shard.

    row = losses | gradients and buffers of floats, by dtype | other buffers, by dtype | presence

Gradients and losses are multiplied by the shard's share of the batch's rows, n_v / n, so that the
sum over the shards is that of the batch. Presence has a byte for each parameter: whether it has a
gradient at all. Every part begins at a multiple of 8 bytes, so that it can be read as numbers of
its dtype where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_vae.elbo.loss import Gradients

HEAD = 16  # bytes in front of the rows of a message


@dataclass(frozen=True)
class Part:
    """Tensors of one dtype that stand one after the other.

    Attributes:
        dtype: Their dtype.
        members: Their places among parameters and buffers.
        start: First byte in the row.
        end: First byte after them.
        summed: Whether they are added over the shards; else the first shard's are taken.
    """

    dtype: torch.dtype
    members: tuple[int, ...]
    start: int
    end: int
    summed: bool


class Layout:
    """Where losses, gradients and buffers stand in a row.

    Args:
        parameters: The trainable parameters.
        buffers: The buffers that change.

    Attributes:
        size: Bytes of a row.
    """

    def __init__(self, parameters: Sequence[Tensor], buffers: Sequence[Tensor]) -> None:
        self.count = len(parameters)
        self.shapes = [tensor.shape for tensor in (*parameters, *buffers)]
        self.dtypes = [tensor.dtype for tensor in (*parameters, *buffers)]
        self.parts: list[Part] = []
        position = 2 * 8  # two losses
        for summed in (True, False):
            floats = [dtype.is_floating_point or dtype.is_complex for dtype in self.dtypes]
            for dtype in dict.fromkeys(self.dtypes):
                members = tuple(
                    i for i, d in enumerate(self.dtypes) if d == dtype and floats[i] == summed
                )
                if members:
                    numbers = sum(self.shapes[i].numel() for i in members)
                    end = position + numbers * dtype.itemsize
                    self.parts.append(Part(dtype, members, position, end, summed))
                    position = _next_multiple_of_8(end)
        self.presence = position
        self.size = _next_multiple_of_8(position + self.count)

    def views(self, row: Tensor) -> list[Tensor]:
        """Return a row's parts as tensors: losses, each parameter and buffer, the presence."""
        of_members: dict[int, Tensor] = {}
        for part in self.parts:
            of_members |= self._split(part, row[part.start : part.end].view(part.dtype))
        members = [of_members[i] for i in range(len(self.shapes))]
        return [row[:16].view(torch.float64), *members, self._presence(row)]

    def fill(
        self, views: Sequence[Tensor], losses: Tensor, gradients: Gradients,
        buffers: Sequence[Tensor], share: float,
    ) -> None:  # fmt: skip
        """Write a shard's numbers into a row.

        Args:
            views: The row, from ``views``.
            losses: (2,).
            gradients: One for each parameter, or ``None``.
            buffers: The changing buffers.
            share: The shard's share of the batch's rows.
        """
        with torch.no_grad():
            views[0].copy_(losses).mul_(share)
            present = []
            for view, gradient in zip(views[1 : 1 + self.count], gradients, strict=True):
                present.append(gradient is not None)
                view.zero_() if gradient is None else torch.mul(gradient, share, out=view)
            for view, buffer in zip(views[1 + self.count : -1], buffers, strict=True):
                view.copy_(buffer)
                if buffer.is_floating_point() or buffer.is_complex():
                    view.mul_(share)
            views[-1].copy_(torch.tensor(present))

    def losses(self, row: Tensor) -> Tensor:
        """Return the weighted losses of a shard, (2,), in double precision."""
        return row[:16].view(torch.float64)

    def is_finite(self, row: Tensor) -> bool:
        """Return whether all gradients of a shard are finite."""
        parts = [row[p.start : p.end].view(p.dtype) for p in self.parts if p.summed]
        return all(bool(part.isfinite().all()) for part in parts)

    def add(self, rows: Sequence[Tensor]) -> tuple[Tensor, Gradients, list[Tensor]]:
        """Add the rows of the shards, in their order.

        Returns:
            The losses of the batch, (2,), in double precision; its gradients; the buffers.
        """
        found: dict[int, Tensor] = {}
        with torch.no_grad():
            losses = _sum([self.losses(row) for row in rows])
            for part in self.parts:
                numbers = [row[part.start : part.end].view(part.dtype) for row in rows]
                whole = _sum(numbers) if part.summed else numbers[0].clone()
                found |= self._split(part, whole)
            present = torch.stack([self._presence(row) for row in rows]).any(0).tolist()
        gradients = [found[i] if has else None for i, has in enumerate(present)]
        return losses, gradients, [found[i] for i in range(self.count, len(self.shapes))]

    def _presence(self, row: Tensor) -> Tensor:
        """Return whether each parameter has a gradient, (parameters,)."""
        return row[self.presence : self.presence + self.count]

    def _split(self, part: Part, numbers: Tensor) -> dict[int, Tensor]:
        """Return the tensors of a part by their places."""
        pieces = numbers.split([self.shapes[i].numel() for i in part.members])
        pairs = zip(part.members, pieces, strict=True)
        return {i: piece.view(self.shapes[i]) for i, piece in pairs}


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    """Return a sum, added in order."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total


def _next_multiple_of_8(number: int) -> int:
    """Return the smallest multiple of 8 that is not below a number."""
    return -(-number // 8) * 8
