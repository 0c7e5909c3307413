"""The bytes in which a process tells the others the gradients of its shards.

    wide row    gradients and buffers of floats, by dtype        added over the shards
    small row   losses | other buffers, by dtype | presence      read by every rank

All but whole numbers is multiplied by the shard's share of the batch's rows, n_v / n, so that the
sum over the shards is that of the batch. Presence has a byte for each parameter: whether it has a
gradient at all. Every part begins at a multiple of 16 bytes, so that it can be read as numbers of
its dtype where it lies, and a wide row is cut into slices at such places, one slice for each rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ppl_vae.elbo.loss import Gradients

LOSSES = 16  # bytes of two losses in double precision


@dataclass(frozen=True)
class Part:
    """Tensors of one dtype that stand one after the other.

    Attributes:
        dtype: Their dtype.
        members: Their places among parameters and buffers.
        start: First byte in the row.
        end: First byte after them.
    """

    dtype: torch.dtype
    members: tuple[int, ...]
    start: int
    end: int


class Layout:
    """Where losses, gradients and buffers stand in the rows of a shard.

    Args:
        parameters: The trainable parameters.
        buffers: The buffers that change.
        slices: Slices of a wide row.

    Attributes:
        slice: Bytes of a slice of a wide row.
        small: Bytes of a small row.
    """

    def __init__(
        self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], slices: int
    ) -> None:
        self.count = len(parameters)
        tensors = [*parameters, *buffers]
        self.shapes = [tensor.shape for tensor in tensors]
        floats = [i for i, tensor in enumerate(tensors) if _is_added(tensor)]
        others = [i for i, tensor in enumerate(tensors) if not _is_added(tensor)]
        dtypes = [tensor.dtype for tensor in tensors]
        self.added, end = self._parts(floats, dtypes, 0)
        self.slice = _next_multiple(-(-end // slices))
        self.copied, self.presence = self._parts(others, dtypes, LOSSES)
        self.small = _next_multiple(self.presence + self.count)

    def _parts(
        self, places: Sequence[int], dtypes: Sequence[torch.dtype], position: int
    ) -> tuple[list[Part], int]:
        """Return the parts of some tensors from a position on, and the position after them."""
        parts = []
        for dtype in dict.fromkeys(dtypes[i] for i in places):
            members = tuple(i for i in places if dtypes[i] == dtype)
            end = position + sum(self.shapes[i].numel() for i in members) * dtype.itemsize
            parts.append(Part(dtype, members, position, end))
            position = _next_multiple(end)
        return parts, position

    def views(self, wide: Tensor, small: Tensor) -> list[Tensor]:
        """Return a shard's rows as tensors: losses, each parameter and buffer, the presence."""
        of_members: dict[int, Tensor] = {}
        for row, parts in ((wide, self.added), (small, self.copied)):
            for part in parts:
                of_members |= self._split(part, row)
        members = [of_members[i] for i in range(len(self.shapes))]
        return [self.losses(small), *members, self._presence(small)]

    def fill(
        self, views: Sequence[Tensor], losses: Tensor, gradients: Gradients,
        buffers: Sequence[Tensor], share: float,
    ) -> None:  # fmt: skip
        """Write a shard's numbers into its rows.

        Args:
            views: The rows, from ``views``.
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
                if _is_added(buffer):
                    view.mul_(share)
            views[-1].copy_(torch.tensor(present))

    def losses(self, small: Tensor) -> Tensor:
        """Return the weighted losses of a shard, (2,), in double precision."""
        return small[:LOSSES].view(torch.float64)

    def is_finite(self, wide: Tensor) -> bool:
        """Return whether all gradients of a shard are finite."""
        parts = [wide[part.start : part.end].view(part.dtype) for part in self.added]
        return all(bool(part.isfinite().all()) for part in parts)

    def add(self, rows: Sequence[Tensor], number: int) -> Tensor:
        """Add a slice of the wide rows of all shards, in the order of the shards.

        Args:
            rows: The slice of each shard, (bytes,).
            number: The slice's number.

        Returns:
            The slice of the sum, (bytes,).
        """
        total, first = rows[0].clone(), number * self.slice
        for part in self.added:
            start, end = max(part.start - first, 0), min(part.end - first, self.slice)
            if start < end:
                numbers = total[start:end].view(part.dtype)
                for row in rows[1:]:
                    numbers += row[start:end].view(part.dtype)
        return total

    def read(self, wide: Tensor, small: Sequence[Tensor]) -> tuple[Tensor, Gradients, list[Tensor]]:
        """Return the losses of the batch, (2,), its gradients, and the buffers after the step.

        Args:
            wide: The sum of the wide rows, (bytes,).
            small: The small rows of the shards, (bytes,) each, in their order.
        """
        losses = self.losses(small[0]).clone()
        for row in small[1:]:
            losses += self.losses(row)
        found: dict[int, Tensor] = {}
        for row, parts in ((wide, self.added), (small[0], self.copied)):
            for part in parts:
                found |= self._split(part, row)
        present = torch.stack([self._presence(row) for row in small]).any(0).tolist()
        gradients = [found[i] if has else None for i, has in enumerate(present)]
        return losses, gradients, [found[i] for i in range(self.count, len(self.shapes))]

    def _presence(self, small: Tensor) -> Tensor:
        """Return whether each parameter has a gradient, (parameters,)."""
        return small[self.presence : self.presence + self.count]

    def _split(self, part: Part, row: Tensor) -> dict[int, Tensor]:
        """Return the tensors of a part of a row by their places."""
        numbers = row[part.start : part.end].view(part.dtype)
        pieces = numbers.split([self.shapes[i].numel() for i in part.members])
        pairs = zip(part.members, pieces, strict=True)
        return {i: piece.view(self.shapes[i]) for i, piece in pairs}


def _is_added(tensor: Tensor) -> bool:
    """Return whether a tensor is added over the shards."""
    return tensor.is_floating_point() or tensor.is_complex()


def _next_multiple(number: int) -> int:
    """Return the smallest multiple of 16 that is not below a number."""
    return -(-number // 16) * 16
