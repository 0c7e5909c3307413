"""Ctrl-C that ends a fit after the current step instead of in the middle of the step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def first_interrupt_noted() -> Iterator[list[bool]]:
    """Note the first Ctrl-C inside the block instead of raising ``KeyboardInterrupt``.

    A second Ctrl-C interrupts as usual, because the first one restores the handler that was there
    before. Outside of the main thread signals do not arrive, and nothing is done.

    Yields:
        A list that is empty until Ctrl-C is pressed.
    """
    interrupted: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        interrupted.append(True)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
