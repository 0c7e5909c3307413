"""The processes that work together on one fit or on one evaluation, and what they tell each other.

``torchrun`` and its like start the same program in several processes, on one machine or on many,
and tell each by its environment which one it is: its rank, from 0, and their number,
``WORLD_SIZE``.
``world()`` is this process's view of them, and only this file speaks to ``torch.distributed``.

Every exchange begins with a short meeting: all processes say where they are in the program, and
whether one of them has failed. Two faults that would make the others wait for ever end at once:

- an error on one rank: the others raise it too, with its rank and its words (``World.together``);
- a function that is called on some of the ranks only: at the next meeting the ranks are at
  different places, and all raise an error that names both places.

Numbers and text travel as bytes. Nothing is unpickled, so that what another machine sends is data.

Inside ``alone()`` a process works by itself: what it calls there meets nobody.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from ppl_vae.compat.of_torch import all_gather_flat
from ppl_vae.compiled.layout import write_back

Collective: TypeAlias = Callable[[Tensor, Tensor], None]
"""A function of torch's that fills its first argument from the second one of every rank."""

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a process waits for the others, where this library made the process group."""

_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_OWNER = "PPL_VAE_WORLD_OF"  # the process that joined; programs that it starts inherit the name
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


class WorldError(ValueError):
    """Another process failed, has ended, or is at another place of the program."""


@dataclass(frozen=True)
class World:
    """The processes that run this program together, seen from one of them.

    In a world of one process nothing is exchanged, and every method returns what it was given.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is rank 0, which alone writes, prints and decides."""
        return self.rank == 0

    def gather(self, tensor: Tensor, what: str) -> Tensor:
        """Return the tensors of all ranks, (size, ...), in the order of the ranks.

        Args:
            tensor: A tensor of the same shape and dtype on every rank.
            what: The place in the program, the same on every rank, in words for messages.

        Raises:
            WorldError: If a rank failed, has ended, or is at another place.
        """
        if self.size == 1:
            return tensor[None]
        self.meet(what, tensor.numel() * tensor.element_size())
        return self._gather(tensor)

    def texts(self, text: str, what: str) -> list[str]:
        """Return the texts of all ranks, in the order of the ranks."""
        if self.size == 1:
            return [text]
        self.meet(what)
        return self._texts(text)

    def text(self, text: str, what: str, source: int = 0) -> str:
        """Return the text of one rank, on every rank."""
        return self.texts(text if self.rank == source else "", what)[source]

    def broadcast(self, tensors: Sequence[Tensor], what: str) -> None:
        """Copy rank 0's values into tensors of the same shapes and dtypes on the other ranks."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([as_bytes(t).to(tensors[0].device) for t in tensors])
        self.meet(what, len(flat))
        sent = flat.to(_meeting_place(flat))
        _exchange(dist.broadcast, sent, 0)
        if self.first:
            return
        parts = sent.to(flat.device).split([t.numel() * t.element_size() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            write_back(tensor, from_bytes(part, tensor))

    def check_same(self, value: str, what: str, describe: Callable[[list[str]], str]) -> None:
        """Raise ``WorldError`` on every rank unless a text is the same on all of them.

        Args:
            value: The text.
            what: The place in the program, in words.
            describe: Makes the message from the texts of all ranks.
        """
        values = self.texts(value, what)
        if len(set(values)) > 1:
            raise _told(WorldError(describe(values)))

    def seed(self, seed: int | None, what: str) -> int | None:
        """Return a seed that is the same on every rank: rank 0 draws one where it is ``None``.

        In a world of one process ``None`` remains, and stands for the global generators.
        """
        if self.size == 1 or seed is not None:
            return seed
        return int(self.text(str(int(torch.randint(2**31, ()))), f"the seed of {what}"))

    @contextlib.contextmanager
    def together(self, what: str) -> Iterator[None]:
        """Make a context that all ranks leave together: where one raises inside, all of them do.

        The rank that failed raises its own error, the others ``WorldError`` with its rank and
        message, at their next exchange or at the end of the block. So a block holds exchanges that
        all ranks make alike, or none.

        Args:
            what: The place in the program, in words.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
            self.meet(f"the end of {what}")
        except Exception as error:
            if not was_told(error):
                with contextlib.suppress(WorldError):
                    self.meet(what, failure=error)
            raise

    def exchange(self, collective: Collective, sent: Tensor, length: int) -> Tensor:
        """Return what a collective function of torch's gives for bytes, without a meeting."""
        own = sent.to(_meeting_place(sent))
        received = own.new_empty(length)
        _exchange(collective, received, own)
        return received.to(sent.device)

    def meet(self, what: str, size: int = 0, *, failure: Exception | None = None) -> None:
        """Meet the other ranks: compare places and sizes, and hear of failures.

        One reduction of five numbers finds all three: the largest of a number and of its negative
        are those of one number only where all ranks gave the same.
        """
        place = zlib.crc32(what.encode())
        numbers = [0 if failure is None else 1, place, -place, size, -size]
        header = torch.tensor(numbers)
        header = header.to(_meeting_place(header))
        _exchange(dist.all_reduce, header, dist.ReduceOp.MAX)
        failed, *found = header.tolist()
        if failed:
            self.hear(failure)
            return
        if found != [place, -place, size, -size]:
            places = self._texts(f"{what} ({size} bytes)" if size else what)
            listed = "; ".join(f"rank {rank} is at {text}" for rank, text in enumerate(places))
            raise _told(
                WorldError(
                    f"expected all {self.size} processes at the same place, got {listed}; call the "
                    "same functions with the same arguments on every rank, or work inside "
                    "ppl_vae.alone(), where a process meets no other"
                )
            )

    def hear(self, failure: Exception | None) -> None:
        """Exchange the words of the ranks that failed; raise on those that did not."""
        texts = self._texts("" if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            _told(failure)
            return
        rank = next(rank for rank, text in enumerate(texts) if text)
        raise _told(WorldError(f"rank {rank} of {self.size} failed: {texts[rank]}"))

    def _gather(self, tensor: Tensor) -> Tensor:
        """Gather without a meeting, for ranks that have just met."""
        sent = as_bytes(tensor)
        gathered = self.exchange(all_gather_flat, sent, self.size * len(sent))
        return from_bytes(gathered, tensor, self.size)

    def _texts(self, text: str) -> list[str]:
        """Gather texts without a meeting."""
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        lengths = self._gather(torch.tensor([len(content)])).flatten().tolist()
        padded = torch.zeros(max(1, *lengths), dtype=torch.uint8)
        padded[: len(content)] = content
        rows = self._gather(padded)
        return [bytes(row[:n].tolist()).decode() for row, n in zip(rows, lengths, strict=True)]


def world() -> World:
    """Return the processes that this one works with.

    The process group of ``torch.distributed`` where there is one; else, where the environment says
    ``WORLD_SIZE`` above 1, as ``torchrun`` does, one is made: NCCL for tensors on CUDA devices and
    gloo for all others. Else, inside ``alone()``, and in programs that this process starts, the
    process works by itself.

    Raises:
        ValueError: If the environment says ``WORLD_SIZE`` without the rest that is needed.
    """
    if _ALONE.get() or not dist.is_available():
        return World()
    if not dist.is_initialized() and not _join():
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Make a context in which this process works by itself, also where it is one of several.

    Under ``torchrun`` every function of the library that fits or evaluates shares its work with the
    other processes, and so must be called by all of them. What one process alone shall do (an
    evaluation on rank 0, a fit of its own on every rank) belongs in this context.

    Example:
        >>> with alone():
        ...     world().size
        1
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


@contextlib.contextmanager
def written_by_rank_0(what: str) -> Iterator[bool]:
    """Make a context for files that several processes would write alike: rank 0 alone does.

    The processes leave the block together. Where rank 0 fails inside, all raise its message.

    Args:
        what: The place in the program, in words.

    Yields:
        Whether this process is the one that writes.
    """
    team = world()
    with team.together(what), alone():
        yield team.first


def as_bytes(tensor: Tensor) -> Tensor:
    """Return a tensor's numbers as bytes, (bytes,), without copying them where they lie in a row.

    Example:
        >>> as_bytes(torch.tensor([1, 2], dtype=torch.int16))
        tensor([1, 0, 2, 0], dtype=torch.uint8)
    """
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors have the same shape and the same bits, NaN included."""
    return left.shape == right.shape and torch.equal(as_bytes(left), as_bytes(right))


def from_bytes(content: Tensor, like: Tensor, *lead: int) -> Tensor:
    """Return bytes as numbers of the dtype and shape of a tensor, after leading dimensions."""
    aligned = content if content.storage_offset() % like.element_size() == 0 else content.clone()
    return aligned.view(like.dtype).reshape((*lead, *like.shape))


def was_told(error: Exception) -> bool:
    """Return whether all ranks have heard of an error."""
    return hasattr(error, "told_to_all")


def _told(error: Any) -> Any:
    """Mark an error that all ranks have heard of, and return it."""
    error.told_to_all = True
    return error


def _join() -> bool:
    """Join the processes that the environment names; return whether there are any."""
    size = os.environ.get("WORLD_SIZE", "1")
    if (
        not size.isdigit()
        or int(size) < 2
        or os.environ.get(_OWNER, "") not in ("", str(os.getpid()))
    ):
        return False
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE={size}: expected {', '.join(_NEEDED)} in the environment as well, got no "
            f"{missing[0]}; start the program with torchrun, or unset WORLD_SIZE"
        )
    os.environ[_OWNER] = str(os.getpid())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    atexit.register(_leave)
    return True


def _leave() -> None:
    """Leave the process group at the end of the program."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _meeting_place(tensor: Tensor) -> torch.device:
    """Return the device to exchange a tensor on: its own, the CPU, or the CUDA device."""
    backends = dict(part.split(":") for part in dist.get_backend_config().split(",") if ":" in part)
    if tensor.device.type == "cuda" and backends.get("cuda") == "nccl":
        return tensor.device
    if backends.get("cpu", "nccl") != "nccl":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _exchange(collective: Callable[..., Any], *arguments: Any) -> None:
    """Call a collective function of torch's; where it fails, say what is wrong with the ranks."""
    try:
        collective(*arguments)
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or [""]
        if "Duplicate GPU" in lines[-1]:
            raise _told(
                WorldError(
                    "expected a CUDA device for each process, got one for several of them "
                    f"({lines[-1]}); move the pair of each process to "
                    "f\"cuda:{os.environ['LOCAL_RANK']}\", and start as many processes as devices"
                )
            ) from error
        reason = lines[0].rpartition("] ")[2].split(". ")[0][:200]  # gloo names its own file first
        raise _told(
            WorldError(
                "another process of this program has ended, or gave no answer in time; its own "
                "output says why, and a fit with run= goes on from there with resume=True "
                f"({reason})"
            )
        ) from error
