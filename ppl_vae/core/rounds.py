"""Sums over the processes that work together, without a meeting before each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ppl_vae.compat.of_torch import all_gather_flat, all_to_all_flat
from ppl_vae.core.world import World, WorldError, was_told


def slices(ranks: int, rows: int) -> int:
    """Return into how many slices a wide row is cut that several ranks add, each some rows.

    One for each rank. Two ranks with a row each exchange them whole instead: that sends as many
    bytes, in one message in place of two.
    """
    return 1 if ranks == 1 or ranks * rows == 2 else ranks


class Rounds:
    """Sums over all ranks, one round after the other, among ranks that have met (``rounds``).

    In a round every rank has some wide rows. They are cut into slices, one for each rank, which
    gets this slice of the rows of all ranks, adds it in any order that it likes, and gives the sum
    to all. A rank thus receives each number about twice, whatever the number of ranks. A small
    message goes to all ranks beside the sum. Where there is one slice (``slices``), every rank
    sends its rows to all, and all add.

    Args:
        team: The ranks.
        sizes: Bytes of the small message of a rank, the number of its wide rows, and the bytes of a
            slice of a wide row; all multiples of 16, the same on every rank.
        device: Where the rows and the messages are. All ranks must use one kind of device: the
            processes exchange numbers of a CPU and of a CUDA device by different libraries, and a
            rank that waits in one does not hear of the other.
    """

    def __init__(self, team: World, sizes: tuple[int, int, int], device: torch.device) -> None:
        self.team, self.sizes, self.device = team, sizes, device
        self._begun = False

    def sum(self, sent: Tensor, add: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, Tensor]:
        """Send this rank's rows, and return the sum of all.

        Args:
            sent: The small message, whose first 8 bytes are written here, and after it the wide
                rows, each (slices * slice,): all bytes of one tensor.
            add: Adds a slice of the wide rows of all ranks, (ranks, rows, slice), given its number,
                to (slice,).

        Returns:
            The small messages of all ranks, (ranks, bytes), and the sum, (slices * slice,).

        Raises:
            WorldError: If another rank failed or has ended.
        """
        (length, rows, width), ranks = self.sizes, self.team.size
        sent[:8] = 0
        small, wide = sent[:length], sent[length:]
        if ranks == 1:
            return small[None], add(wide.view(1, rows, width), 0)
        if slices(ranks, rows) == 1:
            small, wide = self._gathered(sent, None)
            return small, add(wide.view(ranks, rows, width), 0)
        # one wide row lies in memory as it is sent; several are copied
        cut = wide.view(rows, ranks, width).transpose(0, 1).reshape(-1)
        received = self.team.exchange(all_to_all_flat, cut, len(cut)).view(ranks, rows, width)
        self._begun = True
        own = add(received, self.team.rank)
        small, total = self._gathered(torch.cat([small, own]), None)
        return small, total.reshape(-1)

    def end(self, failure: Exception | None = None) -> None:
        """Say in a last round, or in one that has begun, that this rank makes no more sums.

        Args:
            failure: Why this rank failed.

        Raises:
            WorldError: If another rank failed or has ended.
        """
        (length, rows, width), ranks = self.sizes, self.team.size
        if ranks == 1:
            return
        if slices(ranks, rows) > 1 and not self._begun:
            zeros = self._zeros(rows * ranks * width)
            self.team.exchange(all_to_all_flat, zeros, len(zeros))
        sent = self._zeros(length + width)
        sent[0] = failure is not None
        self._gathered(sent, failure)

    def _zeros(self, count: int) -> Tensor:
        """Return bytes of zero where the messages are."""
        return torch.zeros(count, dtype=torch.uint8, device=self.device)

    def _gathered(self, sent: Tensor, failure: Exception | None) -> tuple[Tensor, Tensor]:
        """Return what all ranks sent, as small messages and the rest; raise where one failed."""
        length, ranks = self.sizes[0], self.team.size
        received = self.team.exchange(all_gather_flat, sent, ranks * len(sent)).view(ranks, -1)
        self._begun = False
        if bool(received[:, 0].any()):
            self.team.hear(failure)
        return received[:, :length], received[:, length:]


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
