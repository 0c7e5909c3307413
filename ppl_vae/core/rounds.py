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
    gets this slice of the rows of all ranks (``scatter``), adds it in any order that it likes, and
    gives the sum to all (``join``). A rank thus receives each number about twice, whatever the
    number of ranks. A small message goes to all ranks beside the sum.

    Args:
        team: The ranks.
        sizes: Bytes of the small message of a rank, the number of its wide rows, and the bytes of a
            slice of a wide row; all multiples of 16, the same on every rank.
        device: Where the rows and the messages are. All ranks must use one kind of device: the
            processes exchange numbers of a CPU and of a CUDA device by different libraries, and a
            rank that waits in one does not hear of the other.

    Attributes:
        scattered: Whether a round has begun and not ended.
    """

    def __init__(self, team: World, sizes: tuple[int, int, int], device: torch.device) -> None:
        self.team, self.sizes, self.device, self.scattered = team, sizes, device, False

    def scatter(self, wide: Tensor) -> Tensor:
        """Give every rank its slice of this rank's wide rows, (rows, ranks * slice).

        Returns:
            This rank's slice of the wide rows of all ranks, (ranks, rows, slice).
        """
        (_, rows, width), ranks = self.sizes, self.team.size
        if ranks == 1:
            return wide[None]
        # one wide row lies in memory as it is sent; several are copied
        sent = wide.view(rows, ranks, width).transpose(0, 1).reshape(-1)
        received = self.team.exchange(all_to_all_flat, sent, len(sent))
        self.scattered = True
        return received.view(ranks, rows, width)

    def join(self, small: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Give the slice of the sum and the small message to all ranks.

        Args:
            small: The small message, (bytes,), whose first 8 bytes are written here.
            own: This rank's slice of the sum, (slice,).

        Returns:
            The small messages of all ranks, (ranks, bytes), and the sum, (ranks * slice,).

        Raises:
            WorldError: If another rank failed or has ended.
        """
        if self.team.size == 1:
            return small[None], own
        small[:8] = 0
        return self._joined(torch.cat([small, own]), None)

    def end(self, failure: Exception | None = None) -> None:
        """Say in a last round, or in one that has begun, that this rank makes no more sums.

        Args:
            failure: Why this rank failed.

        Raises:
            WorldError: If another rank failed or has ended.
        """
        length, rows, width = self.sizes
        if self.team.size == 1:
            return
        if not self.scattered:
            self.scatter(self._zeros(rows, self.team.size * width))
        sent = self._zeros(length + width)
        sent[0] = failure is not None
        self._joined(sent, failure)

    def _zeros(self, *shape: int) -> Tensor:
        """Return bytes of zero where the messages are."""
        return torch.zeros(shape, dtype=torch.uint8, device=self.device)

    def _joined(self, sent: Tensor, failure: Exception | None) -> tuple[Tensor, Tensor]:
        """Return what all ranks sent, as small messages and sum; raise where one has failed."""
        length, ranks = self.sizes[0], self.team.size
        received = self.team.exchange(all_gather_flat, sent, ranks * len(sent)).view(ranks, -1)
        self.scattered = False
        if bool(received[:, 0].any()):
            self.team.hear(failure)
        return received[:, :length], received[:, length:].reshape(-1)


@contextlib.contextmanager
def rounds(
    team: World, sizes: tuple[int, int, int], device: torch.device, what: str
) -> Iterator[Rounds]:
    """Make a context for sums over all ranks, one after the other, without meetings.

    A rank that fails inside the block says so in its next round, beside zeros for its rows.

    Args:
        team: The ranks.
        sizes: Those of ``Rounds``.
        device: That of ``Rounds``.
        what: The place in the program, in words.
    """
    if team.size > 1:
        team.meet(f"{what} {sizes}")
    each = Rounds(team, sizes, device)
    try:
        yield each
    except Exception as error:
        if not was_told(error):
            with contextlib.suppress(WorldError):
                each.end(error)
        raise
    each.end()
