"""The lock of a run directory, and a run directory that is begun under its lock.

One process at a time may write into a run directory: the one that holds the system's lock on the
file ``lock`` in it. The system gives the lock back when the process ends in any way, so that a
killed fit never leaves a locked directory behind.

A run is begun in this order: lock, look, write. Several processes that begin a run under one name
at the same moment are told apart by an action that only one of them can do:

- Where the directory does not exist, each process writes the first files into a hidden directory
  of its own, ``.<name>.<process>.<random>.part``, whose lock it holds, and renames the directory.
  The system renames onto an absent or an empty directory only, so the first rename succeeds and
  all others fail. The lock moves with the directory: at no moment does the run stand unlocked.
- Where an empty directory exists (perhaps the current one, which cannot be replaced), its lock is
  taken first. The directory is then looked at again, and the files are written into it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Collection
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without file locks
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
PART = re.compile(r"\.(?P<name>.+?)\.(?P<process>\d+)(\.[a-z0-9_]{8})?\.part")
"""Names of half-written files and directories: the final name, the process, and random letters."""


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()
"""The locks of this process, closed or not."""


class RunLock:
    """The lock of a run directory, held by this process until ``close``.

    On systems without ``fcntl`` (Windows) and on disks without locks nothing is locked; the latter
    gives a warning.

    Args:
        path: The run directory.
        shown: The directory's name in messages; ``path`` itself by default.

    Raises:
        ValueError: If another process, or another fit of this process, holds the lock, or has just
            moved the directory away.
        OSError: If the directory cannot be written.
    """

    def __init__(self, path: Path, shown: Path | None = None) -> None:
        self.path = path.absolute()  # a callback may change the current directory
        try:
            file = (self.path / LOCK).open("a")
        except FileNotFoundError:  # another process has just set the directory aside
            raise ValueError(_refusal(shown or path)) from None
        status = os.fstat(file.fileno())
        self._identity = (status.st_dev, status.st_ino)
        self._file = file
        _held.add(self)
        if fcntl is None:
            file.close()  # Windows renames no directory with an open file in it
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(_refusal(shown or path)) from None
        except OSError as error:
            warnings.warn(
                f"run: the disk of {shown or path} has no locks ({error.strerror}); let no other "
                "process fit into this directory",
                stacklevel=2,
            )
        if not self.is_own():  # renamed or deleted between opening the file and locking it
            file.close()
            raise ValueError(_refusal(shown or path))

    def is_own(self) -> bool:
        """Return whether the directory is still the one that was locked.

        False where the directory was moved, deleted or replaced by another one of its name.
        """
        try:
            status = os.stat(self.path / LOCK)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def forget(self) -> None:
        """Let go of a lock that a forked process inherited; its parent goes on to hold it."""
        self._identity = (-1, -1)  # so that the forked process does not write into the run
        self._file.close()

    def close(self) -> None:
        """Unlock the run directory, so that another process may write into it."""
        self._file.close()


def _forget_locks() -> None:
    """Let go of all locks in a process that was just forked.

    A lock of the system lasts until the last copy of its open file is closed. A forked process has
    such copies, and would keep the directory locked after the fit was killed.
    """
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_locks)


def is_taken(path: Path) -> bool:
    """Return whether something is at a path already: a file, or a directory that holds files.

    An empty lock, and files that a process left half written, do not count: that process was
    killed before it had begun a run.

    Raises:
        ValueError: If the directory cannot be read.
    """
    if not os.path.lexists(path):
        return False
    try:
        return not all(_is_trace(entry) for entry in path.iterdir())
    except NotADirectoryError:
        return True
    except OSError as error:
        raise ValueError(f"run: {path} cannot be read: {error.strerror}") from error


def _is_trace(file: Path) -> bool:
    """Return whether a file in a directory is a lock, or was left by a process that was killed."""
    if file.is_symlink() or not file.is_file():
        return False
    if file.name == LOCK:
        return file.stat().st_size == 0
    return PART.fullmatch(file.name) is not None


def check_new(path: Path) -> None:
    """Raise ``ValueError`` if a path is taken: a new run needs an absent or an empty directory."""
    if is_taken(path):
        raise ValueError(f"run: {path} exists; resume=True continues it, or choose another name")


def begin_directory(path: Path, write: Callable[[Path], None]) -> RunLock:
    """Begin a run directory under its lock, whoever else begins one under this name.

    Args:
        path: The run directory, absent or empty.
        write: Writes the first files into the directory that it is given. ``run.json`` comes last:
            a directory with this file is a whole run.

    Returns:
        The lock, which this process now holds.

    Raises:
        ValueError: If the path is taken, or another process holds the lock.
        OSError: If the directory cannot be written.
    """
    check_new(path)
    if path.exists():
        lock = RunLock(path)
        try:
            check_new(path)
            write(path)
        except BaseException:
            lock.close()
            raise
        return lock
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_directories(path)
    prefix = f".{path.name}.{os.getpid()}."
    beside = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=path.parent))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, beside, ignore_errors=True)
        lock = undo.enter_context(contextlib.closing(RunLock(beside, path)))
        write(beside)
        beside.chmod(0o777 & ~_umask())  # mkdtemp lets nobody else read
        try:
            beside.replace(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ValueError(_refusal(path)) from error
            raise
        undo.pop_all()  # the run has begun
    lock.path = path.absolute()
    return lock


def remove_leftovers(path: Path, names: Collection[str]) -> None:
    """Delete the files that killed processes left half written in a locked run directory.

    A file of another name, of a process that still runs, or of anybody else stays.

    Args:
        path: The run directory.
        names: Final names of the files that a fit writes.
    """
    for part in path.glob(".*.part"):
        match = PART.fullmatch(part.name)
        if match is None or match["name"] not in names or _runs(int(match["process"])):
            continue
        if part.is_file() and not part.is_symlink():
            with contextlib.suppress(OSError):
                part.unlink()


def _remove_abandoned_directories(path: Path) -> None:
    """Delete the hidden directories of processes that were killed while they began a run."""
    for part in path.parent.glob(".*.part"):
        match = PART.fullmatch(part.name)
        if match is None or match["name"] != path.name or match[3] is None:
            continue
        process = int(match["process"])
        if process != os.getpid() and not _runs(process) and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)


def _runs(process: int) -> bool:
    """Return whether a process other than this one runs; True where that cannot be known."""
    if fcntl is None:
        return True
    if process == os.getpid():  # this process holds the lock, and writes nothing at this moment
        return False
    try:
        os.kill(process, 0)  # signal 0 is not sent: the system only looks the process up
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _refusal(path: Path) -> str:
    """Return the message for a directory that another process holds."""
    return f"run: another process is fitting into {path}; wait for it, or choose another directory"


def _umask() -> int:
    """Return the process's file mode mask, which Python can only read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
