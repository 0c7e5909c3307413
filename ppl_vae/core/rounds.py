"""Sums over the processes that work together, without a meeting before each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_vae.compat.of_torch import all_gather_flat, all_to_all_flat
from ppl_vae.core.world import World, WorldError, was_told


class Rounds:
    """Sums over all ranks, one round after the other, among ranks that have met (``rounds``).

    In a round every rank has some wide rows. They are cut into slices, one for each rank, which
    gets this slice of the rows of all ranks, adds it in any order that it likes, and gives the sum
    to all. A rank thus receives each number about twice, whatever the number of ranks; small rows
    go to all ranks as they are.

    Args:
        team: The ranks.
        sizes: Bytes of the small message of a rank, the number of its wide rows, and the bytes of a
            slice of a wide row; all multiples of 16, the same on every rank.
    """

    def __init__(self, team: World, sizes: tuple[int, int, int]) -> None:
        self.team, self.sizes = team, sizes

    def scatter(
        self, small: Tensor | None, wide: Tensor | None, failure: Exception | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give every rank its slice of this rank's rows.

        Args:
            small: Bytes for all ranks, whose first 8 are written here; ``None`` where this rank
                has nothing to say any more, because it failed or because the rounds are over.
            wide: The wide rows, (rows, ranks * slice); ``None`` likewise.
            failure: Why this rank failed.

        Returns:
            The small messages of all ranks, (ranks, bytes), and this rank's slice of the wide rows
            of all ranks, (ranks, rows, slice).

        Raises:
            WorldError: If another rank failed or has ended.
        """
        (length, rows, width), ranks = self.sizes, self.team.size
        if small is None or wide is None:
            small = torch.zeros(length, dtype=torch.uint8)
            wide = small.new_zeros(rows, ranks * width)
        if ranks == 1:
            return small[None], wide[None]
        small[:8].view(torch.int64).fill_(0 if failure is None else 1)
        slices = wide.view(rows, ranks, width).transpose(0, 1).reshape(ranks, rows * width)
        sent = torch.cat([small.expand(ranks, length), slices], dim=1).flatten()
        received = self.team.exchange(all_to_all_flat, sent, len(sent)).view(ranks, -1)
        if bool(received[:, :8].any()):
            self.team.hear(failure)
        return received[:, :length], received[:, length:].view(ranks, rows, width)

    def join(self, own: Tensor) -> Tensor:
        """Return the slices of all ranks, (ranks * slice,), one after the other."""
        if self.team.size == 1:
            return own
        return self.team.exchange(all_gather_flat, own, self.team.size * len(own))


@contextlib.contextmanager
def rounds(team: World, sizes: tuple[int, int, int], what: str) -> Iterator[Rounds]:
    """Make a context for sums over all ranks, one after the other, without meetings.

    A rank that fails inside the block says so in its next round, in the place of its rows.

    Args:
        team: The ranks.
        sizes: Those of ``Rounds``.
        what: The place in the program, in words.
    """
    if team.size > 1:
        team.meet(f"{what} {sizes}")
    each = Rounds(team, sizes)
    try:
        yield each
    except Exception as error:
        if not was_told(error):
            with contextlib.suppress(WorldError):
                each.scatter(None, None, error)
        raise
    each.scatter(None, None)
